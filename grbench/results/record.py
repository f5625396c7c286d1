"""The record of a cell: a JSON file with its results, and next to it a parquet file with all users' lists (`lists.py`).

Tables and statistics are computed from these two files alone. The record has a checksum of itself and one of the
lists. They are replaced in three steps: the new record is written as `<digest>.next`, the lists are renamed to their
place, then the record is. Where a process is killed before the second step, the former pair is whole. Where it is
killed before the third, the lists are those of `<digest>.next`, which is read as the record until `finish_write` takes
the last step.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import pydantic_core

from grbench.errors import RunError, cut
from grbench.registry.options import explained
from grbench.results.atomic import complete_file, write_atomically
from grbench.results.checksums import AlteredError, content_checksum, file_checksum, known_checksum, refuse_altered
from grbench.results.record_types import (
    Checksum,
    CostFacts,
    CountFacts,
    Digest,
    EnvironmentFacts,
    ExternalFacts,
    FileName,
    GridFacts,
    IdentityFacts,
    ListFacts,
    MetricFacts,
    NamedFacts,
    PoolFacts,
    PublishedFacts,
    TrialFacts,
    TuningFacts,
    WeightFacts,
)

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 3
"""Version 2: the identity has the parts training, ranking and metrics, and the record their digests and `lists`.
Version 3: a record has a checksum. Fields that earlier versions lack are empty when such a record is read."""

CHECKSUM_VERSION = 3
"""Records of this schema and later ones are refused without a checksum."""

Status = Literal["ok", "error", "oom", "killed", "timeout", "interrupted"]

PARQUET = {"compression": "zstd", "write_page_checksum": True}  # so that damage is seen when lists are read
MAX_BYTES = 100_000_000
"""Of a record's file; a training curve of a million rows has as many."""

MOVE_IT = "move it away or delete it"
TRIALS = "trials"
"""The folder of the records of a suite's trials, in that of its cells."""
AUDIT_FILE = "audit.json"
"""The leak audits of a suite, beside its records (`audit_file.py`)."""

NOT_WRITTEN = ("lists_altered", "lists_gone", "folder")
"""Fields that say what was found out when the record was read."""


@pydantic.with_config(pydantic.ConfigDict(extra="ignore", strict=True, allow_inf_nan=False))
@dataclass(frozen=True)
class Record:
    """One cell's result. Times are ISO 8601 in UTC, durations seconds, memory bytes, rates per second.

    digest:      digest of `identity`, which is everything that the cell's numbers depend on
    training_digest: cells with the same one have the same trained model
    lists_digest: cells with the same one have the same ranked lists
    suite, method, seed: the cell; order: index of the method in its suite
    status:      ok, error, oom, killed, timeout or interrupted; error: {type, message, traceback}, None if ok
    dataset:     {name, digest, options}; protocol: {name, and all its options}
    metrics:     {name: {label, higher_is_better, version, per_user: false for a property of all lists together}}, in
                 the suite's order
    pool:        {size, digest} of the ranked candidates; None where the cell failed before they were known
    scores:      {metric: mean over the evaluated users}
    lists:       lengths of the lists in the parquet file: {scored, shortest: the fewest items in one of these, kept: of
                 the longer lists or None, kept_shortest, error: why they are missing though the suite asked for them,
                 unlabelled: {slice that failed: what it raised}}
    rescored_from: digest of the record whose lists and costs were reused; None = this cell was trained and searched
    external:    of rankings that were made elsewhere and scored here, which have no costs: {file, format, sha256 of its
                 content, note: how they were made, by: who scored them, ordered_by, users_not_evaluated: whose lists
                 were left out, users_without_list: who count as missed}; None = this cell was run
    weights:     of the file of the trained model beside the record: {bytes, sha256}; empty where it was not kept
    weights_from: digest of the record from whose weights this cell was ranked, and whose costs of training these are;
                 None = this cell was trained
    counts:      {evaluated, dropped: {reason: users}, unreachable: {filter, or any: targets that it leaves out of the
                 lists}, validation_users: that the protocol holds out, validated_users: that select the best state
                 (the most of any stage, 0 without validation), parameters, collisions, remarks: sentences on what of
                 the source was not read and what it leaves open, ties: events of a user with equal times (fields of
                 `data.ties.Ties`; absent where there are no times), ...}
    cost:        {phases: {name: {seconds, ...}}, total_seconds, overhead_seconds (total without all phases),
                 train_users_per_second, search_p99_ms, peak memory, beside: {cells: the most other cells that ran on
                 the machine meanwhile, share: of the time in which any did, threads: how many those were given; of
                 those that the same user runs with the same cache folder}, ...}; of a cell that went on from
                 checkpoints, sums over its attempts: {resumptions, lost_seconds: of work that was done again and is in
                 no other cost, earlier_seconds: of total_seconds, those of earlier attempts, or of the record that
                 `weights_from` names, begun_with: what of the machine was another then}
    environment: CPU, RAM, GPU, versions, git
    tokenizer:   the tokenizer's report; curve: one row per epoch, with its stage where there are several
    trial:       of a trial of a tuned method, None for other cells: {study: its search, number: 0 = the first, values:
                 {option's key: value}, metric: that trials are compared by, value: its validation score, state:
                 running, complete, pruned or failed, seconds: of training, same_as: digest of the record whose training
                 this one repeats, so that it was not done again}. A trial has no test scores and no lists
    tuning:      of a method whose options were tuned: {budget, trials, complete, pruned, failed: how many; sampler,
                 pruner, startup_trials, seed; metric, number, values, validation: of the trial that was chosen, and its
                 score; seconds: of training of all trials; not_repeatable: reasons why the search may end otherwise}
    grid:        of a row of a grid: {name: of the grid, points: its number of rows, ablation: whether the suite says
                 that all are tested and none is chosen}
    title:       title of the suite; baseline: method that others are tested against; None where the suite has none
    published:   the suite's published figures of the method, as `suite.published.figure_options` has them
    started, finished: when the cell started and finished
    files:       {name of a file beside the record, such as its lists: sha256 of its content}
    checksum:    sha256 of all other fields as canonical JSON (keys sorted, no spaces, ASCII); computed when the
                 record is written, and empty in one of a schema before 3
    lists_altered: whether the lists are not those that the record was written with; found out by
                 `integrity.with_altered`, and not written
    lists_gone:  whether the record has scores, but the file of its lists is not there; found out when the record is
                 read, and not written
    folder:      of the record and its lists; None before it is read, and not written
    """

    digest: Digest
    suite: str
    method: str
    seed: int
    status: Status
    training_digest: Digest = ""
    lists_digest: Digest = ""
    order: int = 0
    identity: IdentityFacts = field(default_factory=dict)
    error: dict[str, str] | None = None
    dataset: NamedFacts = field(default_factory=dict)
    protocol: NamedFacts = field(default_factory=dict)
    metrics: dict[str, MetricFacts] = field(default_factory=dict)
    pool: PoolFacts | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    lists: ListFacts = field(default_factory=dict)
    rescored_from: Digest | None = None
    external: ExternalFacts | None = None
    weights: WeightFacts = field(default_factory=dict)
    weights_from: Digest | None = None
    counts: CountFacts = field(default_factory=dict)
    cost: CostFacts = field(default_factory=dict)
    environment: EnvironmentFacts = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    trial: TrialFacts | None = None
    tuning: TuningFacts | None = None
    grid: GridFacts | None = None
    title: str | None = None
    baseline: str | None = None
    published: list[PublishedFacts] = field(default_factory=list)
    started: str = ""
    finished: str = ""
    files: dict[FileName, Checksum] = field(default_factory=dict, compare=False)
    checksum: Checksum = field(default="", compare=False)
    lists_altered: bool = field(default=False, compare=False)
    lists_gone: bool = field(default=False, compare=False)
    folder: Path | None = field(default=None, compare=False)

    @property
    def done(self) -> bool:
        """Whether the cell need not run again: it has scores, and the lists that they are of."""
        return self.status == "ok" and not self.lists_gone and not self.lists_altered

    @property
    def validation(self) -> dict[str, float]:
        """{metric: validation score of the state that training kept}; empty where it did not validate."""
        best = self.counts.get("best_epoch")
        kept = next((row for row in self.curve if best is not None and row.get("epoch") == best), {})
        return {name: kept[name] for name in self.metrics if isinstance(kept.get(name), int | float)}

    @property
    def older_identity(self) -> bool:
        """Whether the record was written by an earlier grbench, whose identities covered less; cells are never matched
        with such a record."""
        return bool(self.identity) and "ranking" not in self.identity

    @property
    def list_length(self) -> int:
        """The largest k of a metric that can be computed from the recorded lists; 0 where there are none."""
        return max(self.lists.get("scored") or 0, self.lists.get("kept") or 0)

    def to_json(self) -> str:
        """The text of the record file."""
        values = {"schema": SCHEMA_VERSION, **{key.name: getattr(self, key.name) for key in dataclasses.fields(self)}}
        for name in (*NOT_WRITTEN, "checksum"):
            del values[name]
        values = _json_ready(values)
        return json.dumps({**values, "checksum": content_checksum(values)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Record:
        """Parses a record of this schema version or an older one. where: the file, for messages. Raises RunError where
        the text is not a record, naming the field that is not valid, or its schema is newer; AlteredError where its
        checksum is that of other content."""
        values = _json(text, where)
        if not _has_schema(values):
            raise RunError(f"{where}: not a record of grbench (no schema version); {MOVE_IT}")
        if values["schema"] > SCHEMA_VERSION:
            raise RunError(
                f"{where}: written by a newer grbench (record schema {cut(str(values['schema']))}, this one reads "
                f"up to {SCHEMA_VERSION}); upgrade grbench or choose another results folder"
            )
        try:
            record = _adapter().validate_json(text)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            key = cut(".".join(map(str, problem["loc"])))
            raise RunError(f"{where}: {key}: {explained(problem)}; the record is damaged, {MOVE_IT}") from error
        said = values.pop("checksum", "")
        if (said or values["schema"] >= CHECKSUM_VERSION) and said != content_checksum(values):
            raise AlteredError(
                f"{where}: the record was altered after it was written (its checksum is of other content)"
            )
        return record


@cache
def _adapter() -> pydantic.TypeAdapter[Record]:
    return pydantic.TypeAdapter(Record)


def _json(text: str | bytes, where: str) -> Any:
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise RunError(f"{where}: not a record of grbench ({error}); {MOVE_IT}") from error


def _has_schema(values: Any) -> bool:
    return isinstance(values, dict) and type(values.get("schema")) is int


def now() -> str:
    """The current time in UTC, ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_path(folder: Path, digest: str) -> Path:
    """Path of the record with this digest in its suite's folder."""
    return folder / f"{digest}.json"


def ranking_path(folder: Path, digest: str) -> Path:
    """Path of the lists of the record with this digest in its suite's folder."""
    return folder / f"{digest}.parquet"


def pending_path(folder: Path, digest: str) -> Path:
    """Path of the record that is about to replace the one with this digest, once its lists are in place."""
    return folder / f"{digest}.next"


def checkpoint_folder(folder: Path, digest: str) -> Path:
    """Folder of the checkpoints of the cell with this digest, in its suite's folder."""
    return folder / f"{digest}.checkpoint"


def remove_checkpoints(folder: Path, digest: str) -> None:
    """Removes a cell's checkpoints, if it has any; of a link in their place, the link alone."""
    path = checkpoint_folder(folder, digest)
    if path.is_symlink():
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def weights_path(folder: Path, digest: str) -> Path:
    """Path of the trained model of the record with this digest in its suite's folder."""
    return folder / f"{digest}.weights.safetensors"


def write_record(folder: Path, record: Record, lists: pa.Table | None = None) -> Path:
    """Writes the record with its lists; returns the record's path. Without lists, those of an earlier run are removed.

    Raises RunError where the disk is full or the folder cannot be written; an earlier record is then unchanged.
    """
    path, lists_path = record_path(folder, record.digest), ranking_path(folder, record.digest)
    pending = pending_path(folder, record.digest)
    files = {name: checksum for name, checksum in record.files.items() if name != lists_path.name}
    if lists is None:
        text = dataclasses.replace(record, files=files).to_json().encode()
        pending.unlink(missing_ok=True)  # else it would be read in place of this one
        write_atomically(path, lambda file: file.write(text))
        lists_path.unlink(missing_ok=True)
        return path
    import pyarrow.parquet as pq

    with complete_file(lists_path, lambda file: pq.write_table(lists, file, **PARQUET)) as partial:
        files[lists_path.name] = file_checksum(partial)
        text = dataclasses.replace(record, files=files).to_json().encode()
        write_atomically(pending, lambda file: file.write(text))
        partial.replace(lists_path)
        pending.replace(path)
    return path


def write_in_place(folder: Path, former: Record, record: Record, lists: pa.Table) -> Path:
    """Writes a record with its lists in place of a former one of the same folder; the former's other files, such as its
    log, go by the new digest. Returns the record's path; raises RunError as `write_record` does.

    Where this is interrupted, both records are there and complete.
    """
    if record.digest == former.digest:
        return write_record(folder, record, lists)
    moved = _other_files(folder, former.digest, record.digest)
    names = {file.name: new.name for file, new in moved.items()}
    files = {names[name]: checksum for name, checksum in record.files.items() if name in names}
    path = write_record(folder, dataclasses.replace(record, files=files), lists)
    for file, new in moved.items():
        file.replace(new)
    if former.digest:
        record_path(folder, former.digest).unlink(missing_ok=True)
        ranking_path(folder, former.digest).unlink(missing_ok=True)
    return path


def _other_files(folder: Path, digest: str, new: str) -> dict[Path, Path]:
    """{file: what it is called under the new digest} of a cell's files beside its record and lists, as its log; not of
    claims and of a record that is being written."""
    own = {path(folder, digest) for path in (record_path, ranking_path, pending_path)}
    return {
        file: folder / f"{new}{file.name.removeprefix(digest)}"
        for file in sorted(folder.glob(f"{digest}.*"))
        if digest and file not in own and not file.name.startswith(f"{digest}.claim-")
    }


def finish_write(folder: Path, digest: str) -> None:
    """Ends the writing of a record that a killed process did not end: takes the last step where the lists are in place,
    else removes the new record. Only for who holds the cell's claim, because others may be writing. Raises OSError."""
    pending = pending_path(folder, digest)
    if _pending(folder, digest) is not None:
        pending.replace(record_path(folder, digest))
    else:
        pending.unlink(missing_ok=True)


def replace_record(folder: Path, record: Record) -> None:
    """Overwrites a record but not its lists; raises RunError as `write_record` does."""
    text = record.to_json().encode()
    write_atomically(record_path(folder, record.digest), lambda file: file.write(text))


def read_record(path: Path) -> Record:
    """Reads one record file; raises RunError where it is missing, not a valid record, or of a newer schema, and
    AlteredError where it was altered. Whether its lists were is not looked at: see `integrity.py`."""
    record = Record.from_json(_read(path), str(path))
    record = _pending(path.parent, record.digest) or record
    gone = record.status == "ok" and record.trial is None and not ranking_path(path.parent, record.digest).is_file()
    return dataclasses.replace(record, lists_gone=gone, folder=path.parent)


def _pending(folder: Path, digest: str) -> Record | None:
    """The record of which the last step of writing is still to be taken; None where there is no such record."""
    pending, lists = pending_path(folder, digest), ranking_path(folder, digest)
    if not pending.exists():
        return None
    try:
        record = Record.from_json(pending.read_bytes(), str(pending))
        return record if record.files.get(lists.name) == known_checksum(lists) else None
    except (OSError, RunError):  # another process has just taken the last step, or the lists are gone
        return None


def record_bytes(path: Path, record: Record) -> bytes:
    """The text of the file that the record was read from: `path`, or the one that is about to replace it. Raises
    RunError where it cannot be read."""
    pending = pending_path(path.parent, record.digest)
    unfinished = _pending(path.parent, record.digest)
    return _read(pending if unfinished is not None and unfinished.checksum == record.checksum else path)


def read_records(
    paths: Iterable[Path],
    note: Callable[[str], object] = warnings.warn,
    *,
    altered: Callable[[Path, AlteredError], object] | None = None,
    trials: bool = False,
) -> list[Record]:
    """All records in the given files and folders (searched recursively), by suite, method in the suite's order, seed.

    trials: those of trials, in place of the others.

    JSON files in a folder that are no records, neither by name nor by content, are left out and named to `note`.
    altered: gets the file and the error of each record that was altered, which is left out; None = they are raised as
    one.
    Raises RunError where a path does not exist, or a record is not valid or has a newer schema.
    """
    files, strays = record_files(paths)
    if strays:
        more = f" and {len(strays) - 5} more" if len(strays) > 5 else ""
        note(f"left out, because not a record of grbench: {', '.join(map(str, strays[:5]))}{more}")
    records, errors = list[Record](), dict[Path, AlteredError]()
    for file in files:
        try:
            records.append(read_record(file))
        except AlteredError as error:
            if trials or file.parent.name != TRIALS:  # no table shows a trial
                errors[file] = error
    if altered is None:
        refuse_altered(map(str, errors.values()))
    else:
        for file, reason in errors.items():
            altered(file, reason)
    kept = [record for record in records if (record.trial is not None) == trials]
    return sorted(kept, key=lambda record: (record.suite, record.order, record.method, record.seed, record.finished))


def record_files(paths: Iterable[Path]) -> tuple[dict[Path, None], list[Path]]:
    """(files of records, each once; JSON files in folders that are none)."""
    files: dict[Path, None] = {}
    strays: list[Path] = []
    for path in paths:
        if path.is_dir():
            # `<digest>.d` holds other files of a cell, such as trackers', which may be JSON too.
            found = [file for file in sorted(path.rglob("*.json")) if not any(p.suffix == ".d" for p in file.parents)]
            for file in filter(lambda file: file.name != AUDIT_FILE, found):
                if _is_stray(file):
                    strays.append(file)
                else:
                    files[file] = None
        elif path.exists():
            files[path] = None
        else:
            raise RunError(f"{cut(str(path), 300)}: no such file or folder of results")
    return files, strays


def _read(path: Path) -> bytes:
    """Raises RunError for what is no ordinary file of a record's size: a pipe or a device would never end."""
    try:
        if not path.is_file():
            raise RunError(f"{path}: is no file that can be read; {MOVE_IT}")
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path}: is larger than {MAX_BYTES:,} bytes, so it is no record of grbench; {MOVE_IT}")
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error


def _is_stray(file: Path) -> bool:
    """Whether a JSON file is no record: it is not named by a digest as records are, and says no schema version."""
    if re.fullmatch(r"[0-9a-f]{16}", file.stem):
        return False
    try:
        return not _has_schema(_json(_read(file), str(file)))
    except RunError:
        return True


def latest(records: Iterable[Record]) -> list[Record]:
    """The newest successful record of each cell, or its newest record where none has the status `ok`. A cell has
    several where results were copied, and where it was scored again with other metrics; rankings made elsewhere where
    their file was changed."""
    newest: dict[tuple[str, str, str], Record] = {}

    def rank(record: Record) -> tuple[bool, str]:
        return record.status == "ok", record.finished

    for record in records:
        external = f"external, seed {record.seed}" if record.external else ""
        key = record.suite, record.method, external or record.lists_digest or record.digest
        if key not in newest or rank(record) > rank(newest[key]):
            newest[key] = record
    return list(newest.values())


def _json_ready(value: Any) -> Any:
    """The value with JSON's types only: numpy values, paths and tuples are converted; floats that are not finite become
    None."""
    if isinstance(value, Mapping):
        return {str(key): _json_ready(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _json_ready(value.tolist())
    raise TypeError(f"a record cannot hold {value!r} ({type(value).__name__})")
