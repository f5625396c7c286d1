"""What is kept of a cell: one JSON file with everything needed to judge it, and a parquet file with every user's lists
(`lists.py`).

Both appear whole or not at all. The lists are written first, so a record that says `ok` always has its lists beside it.
Tables and statistics are derived from these two files alone.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from grbench.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
"""2: the identity has the parts training, ranking and metrics, and the record their digests and `lists`. What version 1
lacks is empty when it is read."""

Status = Literal["ok", "error", "oom", "killed", "timeout", "interrupted"]

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Record:
    """One cell's result. Times are ISO 8601 in UTC, durations seconds, memory bytes, rates per second.

    digest:      names the experiment; `identity` is all that it covers
    training_digest, lists_digest: records that share them have one trained model, and the same lists of every user
    suite, method, seed, order: where the cell stands (`order` = the method's place in its suite)
    status:      ok, error, oom, killed, timeout or interrupted; `error` = {type, message, traceback} unless ok
    dataset:     {name, digest, options}; protocol: {name, and every switch resolved}
    metrics:     {name: {label, higher_is_better, version}}, in the suite's order
    pool:        {size, digest} of the candidates that were ranked; None where the cell did not come so far
    scores:      {metric: mean over the evaluated users}
    lists:       lengths of the lists beside the record: {scored, kept: of the longer ones or None, shortest: the fewest
                 items in one of those, error: why there are none though the suite asked for them}
    rescored_from: digest of the record whose lists were searched and whose costs these are; None = this cell's own
    counts:      {evaluated, dropped: {reason: users}, parameters, collisions, ...}
    cost:        {phases: {name: {seconds, ...}}, total_seconds, overhead_seconds (the part of them outside all
                 phases), train_users_per_second, search_p99_ms, peak memory, ...}
    environment: CPU, RAM, GPU, versions, git
    tokenizer:   what the tokenizer reported; curve: one row an epoch, which names its stage where there are several
    title:       what the suite calls itself in words; baseline: the row that it tests others against; None without
    started, finished: when
    """

    digest: str
    suite: str
    method: str
    seed: int
    status: Status
    training_digest: str = ""
    lists_digest: str = ""
    order: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] | None = None
    dataset: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    pool: dict[str, Any] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    lists: dict[str, Any] = field(default_factory=dict)
    rescored_from: str | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    title: str | None = None
    baseline: str | None = None
    started: str = ""
    finished: str = ""

    @property
    def older_identity(self) -> bool:
        """Whether an earlier grbench made it, whose identities covered less: no cell of today has such a record."""
        return bool(self.identity) and "ranking" not in self.identity

    @property
    def list_length(self) -> int:
        """The longest cutoff that can be scored from the lists beside it; 0 where there are none."""
        return max(self.lists.get("scored") or 0, self.lists.get("kept") or 0)

    def to_json(self) -> str:
        """The record file's text."""
        values = {"schema": SCHEMA_VERSION, **{key.name: getattr(self, key.name) for key in dataclasses.fields(self)}}
        return json.dumps(_json_ready(values), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Record:
        """Reads a record file's text, of this schema or an older one; raises RunError where it is none, or of a newer
        one."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise RunError(f"{where}: not a record of grbench ({error}); move it away or delete it") from error
        if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
            raise RunError(f"{where}: not a record of grbench (no schema version); move it away or delete it")
        if values["schema"] > SCHEMA_VERSION:
            raise RunError(
                f"{where}: written by a newer grbench (record schema {values['schema']}, this one reads up to "
                f"{SCHEMA_VERSION}); upgrade grbench or choose another results folder"
            )
        known = {entry.name for entry in dataclasses.fields(cls)}
        try:
            return cls(**{key: value for key, value in values.items() if key in known})
        except TypeError as error:
            raise RunError(f"{where}: the record is incomplete ({error}); move it away or delete it") from error


def now() -> str:
    """The present time in UTC, ISO 8601, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_path(folder: Path, digest: str) -> Path:
    """Where the record of `digest` lies in its suite's folder."""
    return folder / f"{digest}.json"


def ranking_path(folder: Path, digest: str) -> Path:
    """Where the users' lists of `digest` lie in its suite's folder."""
    return folder / f"{digest}.parquet"


def write_record(folder: Path, record: Record, lists: pa.Table | None = None) -> Path:
    """Writes the lists, then the record; returns the record's path. Lists of an earlier run go where there are none.

    Raises RunError where the disk is full or the folder cannot be written; an earlier record then stays as it was.
    """
    path, lists_path = record_path(folder, record.digest), ranking_path(folder, record.digest)
    text = record.to_json().encode()
    if lists is not None:
        import pyarrow.parquet as pq

        _write_atomically(lists_path, lambda file: pq.write_table(lists, file, compression="zstd"))
    _write_atomically(path, lambda file: file.write(text))
    if lists is None:
        lists_path.unlink(missing_ok=True)
    return path


def replace_record(folder: Path, record: Record) -> None:
    """Writes a record anew whose lists stay; raises RunError as `write_record` does."""
    text = record.to_json().encode()
    _write_atomically(record_path(folder, record.digest), lambda file: file.write(text))


def read_record(path: Path) -> Record:
    """Reads one record file; raises RunError where it is missing, no record, or of a newer schema."""
    try:
        return Record.from_json(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Every record in the given files and folders (searched to any depth), in the order of suites and their methods.

    Raises RunError where a path does not exist, or a file is no record or of a newer schema.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            # What belongs to a cell without being its record (trackers' files) lies a level below, in `<digest>.d`.
            found = (file for file in sorted(path.rglob("*.json")) if not any(p.suffix == ".d" for p in file.parents))
            files.update(dict.fromkeys(found))
        elif path.exists():
            files[path] = None
        else:
            raise RunError(f"{path}: no such file or folder of results")
    records = [read_record(file) for file in files]
    return sorted(records, key=lambda record: (record.suite, record.order, record.method, record.seed, record.finished))


def latest(records: Iterable[Record]) -> list[Record]:
    """One record a cell, the one that finished last: copies of a results folder hold it twice, and a cell that was
    scored by other metrics has a record of each set of them."""
    kept: dict[tuple[str, str, str], Record] = {}
    for record in records:
        key = record.suite, record.method, record.lists_digest or record.digest
        if key not in kept or record.finished > kept[key].finished:
            kept[key] = record
    return list(kept.values())


def _write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a neighbour of `path`, which takes its name once every byte is on the disk."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise RunError(
                f"{path}: no space left for this result; free some and run the same command again. "
                "Everything finished before stays, nothing half-written was kept"
            ) from error
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut, where the system lets folders be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _json_ready(value: Any) -> Any:
    """The value as JSON has it: numpy's numbers and arrays, paths and tuples made plain, what is not finite null."""
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
