"""Checks of a record and its lists that need nothing else: no data, no suite, no plug-ins.

Shapes: Q queries, K list length, G most targets of a query.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grbench.errors import GRBenchError, first_line
from grbench.results.checksums import file_checksum
from grbench.results.identity import cell_digest, lists_digest, training_digest
from grbench.results.lists import read_lists
from grbench.results.places import shows_scores
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, read_record
from grbench.results.values import PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

QUERIES = 1 << 15
"""Queries whose lists are checked at once."""

ROUNDING = 1e-12
"""Relative difference that a sum over users may have on another processor."""

NOT_SHOWN = "the numbers are not said, because a table shows them only of the row that its grid chooses"

CHECKS = ("record", "files", "scores", "lists")


@dataclass
class Verified:
    """What came of checking a record. found: {one of CHECKS, metrics or rerun: problems}, without the checks that could
    not be made; notes: what could not be checked, and why."""

    path: Path
    record: Record | None = None
    found: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All that is wrong, a sentence each."""
        return [problem for problems in self.found.values() for problem in problems]


def verify_record(path: Path) -> Verified:
    """Checks the record's schema and checksum, its digests against its identity, the checksums of the files beside it,
    its scores against the users' values, and targets' ranks against the lists."""
    verified = Verified(path)
    try:
        record = verified.record = read_record(path)
    except GRBenchError as error:
        verified.found["record"] = [str(error)]
        return verified
    verified.found["record"] = _identity_problems(record, path)
    if not record.checksum:
        verified.notes.append(f"{path}: has no checksum, because an earlier grbench wrote it")
    if record.files or record.lists_gone:
        verified.found["files"] = _file_problems(record)
    if record.trial is not None:
        verified.found["scores"] = _trial_problems(record, path)
        return verified
    if record.status != "ok" or record.lists_gone:
        return verified
    lists = ranking_path(path.parent, record.digest)
    try:
        table = read_lists(lists)
    except GRBenchError as error:
        verified.found.setdefault("files", []).append(str(error))
        return verified
    _checked(verified, "scores", lists, lambda: _score_problems(record, table, lists))
    _checked(verified, "lists", lists, lambda: _list_problems(table, lists))
    return verified


def _checked(verified: Verified, check: str, lists: Path, problems: Callable[[], list[str] | str]) -> None:
    """Keeps what a check finds, a text where it cannot be made; lists of other types than expected are a problem."""
    try:
        found = problems()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        found = [f"{lists}: the lists are damaged ({first_line(error)})"]
    if isinstance(found, str):
        verified.notes.append(found)
    else:
        verified.found[check] = found


def _identity_problems(record: Record, path: Path) -> list[str]:
    """Digests that are not those of the record's identity. Identities of earlier versions are not known any more."""
    if record.older_identity or not {"training", "ranking", "metrics"} <= record.identity.keys():
        return []
    made = {
        "digest": (record.digest, cell_digest(record.identity)),
        "training_digest": (record.training_digest, training_digest(record.identity)),
        "lists_digest": (record.lists_digest, lists_digest(record.identity)),
    }
    return [
        f"{path}: {key}: is {said}, but its identity's is {true}" for key, (said, true) in made.items() if said != true
    ]


def _trial_problems(record: Record, path: Path) -> list[str]:
    """What a trial must not have: whatever is said of test queries."""
    there = {
        "scores": bool(record.scores),
        "lists": bool(record.lists) or ranking_path(path.parent, record.digest).exists(),
    }
    return [
        f"{path}: is of a trial, which is compared on validation only, but has {what} of the test"
        for what, found in there.items()
        if found
    ]


def _file_problems(record: Record) -> list[str]:
    assert record.folder is not None
    problems = []
    if record.lists_gone and not record.files:
        problems.append(f"{ranking_path(record.folder, record.digest)}: the lists are gone")
    for name, checksum in record.files.items():
        path = record.folder / name
        try:
            if file_checksum(path) != checksum:
                problems.append(f"{path}: was altered after it was written (its checksum is another)")
        except FileNotFoundError:
            problems.append(f"{path}: is gone")
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror})")
    return problems


def _score_problems(record: Record, table: pa.Table, lists: Path) -> list[str] | str:
    """Scores that are not the mean of the users' values."""
    columns = {name.removeprefix(PREFIX): name for name in table.column_names if name.startswith(PREFIX)}
    if not columns:
        return f"{lists}: has no values of single users, because an earlier grbench wrote it"
    problems, shown = [], shows_scores(record)
    evaluated = record.counts.get("evaluated")
    if evaluated is not None and evaluated != table.num_rows:
        problems.append(f"{lists}: has lists of {table.num_rows:,} users, but {evaluated:,} were evaluated")
    for metric, score in record.scores.items():
        if metric not in columns:
            problems.append(f"{lists}: has no column {PREFIX}{metric}")
            continue
        values = table[columns[metric]].to_numpy().astype(np.float64)
        mean = float(values.mean()) if len(values) else math.nan
        if score is None or not math.isclose(mean, score, rel_tol=ROUNDING, abs_tol=ROUNDING):
            differ = f"the record says {score}, but the users' mean is {mean}"
            hidden = f"the score is not the mean of the users' values; {NOT_SHOWN}"
            problems.append(f"{lists}: {metric}: {differ if shown else hidden}")
    return problems


def _list_problems(table: pa.Table, lists: Path) -> list[str]:
    """Lists that are not sorted or repeat an item, and ranks that are not those of the targets in the lists."""
    metadata: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"grbench", b"{}"))
    lengths = {"": metadata.get("length"), "kept_": metadata.get("kept_length")}
    problems = []
    for prefix, length in lengths.items():
        if f"{prefix}items" not in table.column_names or length is None:
            continue
        users = table["user"]
        wrong: dict[str, list[int]] = {"order": [], "twice": [], "rank": []}
        for start in range(0, table.num_rows, QUERIES):
            part = table.slice(start, QUERIES)
            for kind, rows in _wrong_lists(part, prefix, int(length)).items():
                wrong[kind] += (np.flatnonzero(rows) + start).tolist()
        said = {
            "order": "lists are not sorted, best first",
            "twice": "lists hold an item twice",
            "rank": "users' targets have other ranks than their places in the lists",
        }
        problems += [
            f"{lists}: {prefix}items: {len(rows):,} {said[kind]}, the first that of user {users[rows[0]].as_py()}"
            for kind, rows in wrong.items()
            if rows
        ]
    return problems


def _wrong_lists(table: pa.Table, prefix: str, length: int) -> dict[str, np.ndarray]:
    """{kind of problem: [Q] bool, which queries have it}. length: K of the search.

    A target's rank is the number of scores at least as high as its own (a tie counts against it); where the tie reaches
    the end of a full list, it may go on outside, and the rank may be 0, as that of a target that is not in the list.
    """
    items, targets = _codes(table[f"{prefix}items"], table["targets"])
    scores, ranks = _padded(table[f"{prefix}scores"], -np.inf), _padded(table[f"{prefix}ranks"], 0)
    inside = (items[:, None, :] == targets[:, :, None]) & (targets[:, :, None] >= 0)
    own = np.take_along_axis(scores, inside.argmax(axis=2), axis=1) if scores.shape[1] else np.zeros(targets.shape)
    place = (scores[:, None, :] >= own[:, :, None]).sum(axis=2)
    found = inside.any(axis=2)
    full = (items >= 0).sum(axis=1) == length
    beyond = found & full[:, None] & (own == scores[:, -1:]) if scores.shape[1] else found
    right = np.where(found, (ranks == place) | (beyond & (ranks == 0)), ranks == 0)
    ordered = np.sort(items, axis=1)
    return {
        "order": (scores[:, 1:] > scores[:, :-1]).any(axis=1),
        "twice": ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1),
        "rank": (~right & (targets >= 0)).any(axis=1),
    }


def _codes(*columns: pa.ChunkedArray) -> list[np.ndarray]:
    """Each column's lists of ids as [Q, longest] int64; equal ids of all columns have one number, -1 = none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = [pc.list_flatten(column.combine_chunks()) for column in columns]
    codes = pa.concat_arrays(flat).dictionary_encode().indices.to_numpy()
    ends = np.cumsum([len(each) for each in flat])
    parts = np.split(codes.astype(np.int64), ends[:-1])
    return [_spread(column, part, -1) for column, part in zip(columns, parts, strict=True)]


def _padded(column: pa.ChunkedArray, padding: float) -> np.ndarray:
    import pyarrow.compute as pc

    return _spread(column, pc.list_flatten(column.combine_chunks()).to_numpy(zero_copy_only=False), padding)


def _spread(column: pa.ChunkedArray, values: np.ndarray, padding: float) -> np.ndarray:
    """values: those of all lists of the column -> [Q, longest]."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column.combine_chunks()).to_numpy(zero_copy_only=False).astype(np.int64)
    array = np.full((len(lengths), int(lengths.max(initial=0))), padding, values.dtype)
    array[np.arange(array.shape[1]) < lengths[:, None]] = values
    return array
