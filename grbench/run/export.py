"""The kept lists of a record, to be written in the formats of other tools. This needs no dataset: they have its ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grbench.errors import RunError, cut, first_line
from grbench.registry.options import suggestion
from grbench.results.integrity import intact_records
from grbench.results.lists import RUN_AGAIN, read_lists
from grbench.results.record import Record
from grbench.results.record_files import latest, ranking_path

if TYPE_CHECKING:
    import pyarrow as pa

    from grbench.ranking_files.write import ListsToWrite


@dataclass(frozen=True)
class ExportRequest:
    """What `grbench export` was asked for. seed: None = the only one; kept: the longer lists."""

    results: Sequence[Path]
    method: str
    seed: int | None = None
    kept: bool = False


def chosen_record(request: ExportRequest) -> Record:
    """The one finished record of this method and seed. Raises RunError where there is none, or several."""
    records = [record for record in latest(intact_records(request.results)) if record.status == "ok"]
    of_method = [record for record in records if record.method == request.method]
    if not of_method:
        names = {record.method for record in records}
        raise RunError(f"--method {cut(request.method)}: has no finished record; {suggestion(request.method, names)}")
    seeds = sorted({record.seed for record in of_method})
    if request.seed is None and len(seeds) > 1:
        raise RunError(f"--method {request.method}: has the seeds {', '.join(map(str, seeds))}; choose one with --seed")
    found = [record for record in of_method if request.seed in (None, record.seed)]
    if not found:
        raise RunError(f"--seed {request.seed}: {request.method} has the seeds {', '.join(map(str, seeds))}")
    if len(found) > 1:
        files = ", ".join(f"{record.folder}/{record.digest}.json" for record in found[:5])
        raise RunError(f"--method {request.method}: has {len(found)} records of this seed; give one of them: {files}")
    if request.kept and not found[0].lists.get("kept"):
        raise RunError(f"--kept: no longer lists were kept for {request.method}; set keep_lists in the suite")
    return found[0]


def lists_of(record: Record, *, kept: bool) -> ListsToWrite:
    """The record's scored lists, or its longer ones. Raises RunError where they cannot be read."""
    import pyarrow as pa

    assert record.folder is not None  # it was read from a file
    path, prefix = ranking_path(record.folder, record.digest), "kept_" if kept else ""
    table = read_lists(path, ["user", "targets", *(f"{prefix}{name}" for name in ("items", "scores", "ranks"))])
    try:
        return _lists_of(table, prefix)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, pa.ArrowException) as error:
        raise RunError(f"{path}: the lists are damaged ({first_line(error)}); {RUN_AGAIN}") from error


def _lists_of(table: pa.Table, prefix: str) -> ListsToWrite:
    from grbench.ranking_files.write import ListsToWrite

    columns = {name: table[name].combine_chunks() for name in table.column_names}
    items, scores, ranks = (columns[f"{prefix}{name}"] for name in ("items", "scores", "ranks"))
    counts = [np.diff(columns.offsets.to_numpy()) for columns in (items, scores, columns["targets"], ranks)]
    if not (np.array_equal(counts[0], counts[1]) and np.array_equal(counts[2], counts[3])):
        raise ValueError("the numbers of items and scores, or of targets and ranks, differ")
    return ListsToWrite(
        users=columns["user"],
        items=items,
        scores=scores,
        targets=columns["targets"],
        tied_beyond=_tied_beyond(items, columns["targets"], ranks),
    )


def _tied_beyond(items: pa.Array, targets: pa.Array, ranks: pa.Array) -> np.ndarray:
    """[L] bool: lists with a target whose rank is beyond them, though it is in them: a tie goes on beyond the list."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = [np.repeat(np.arange(len(each)), np.diff(each.offsets.to_numpy())) for each in (items, targets)]
    beyond = np.flatnonzero(ranks.flatten().to_numpy(zero_copy_only=False) == 0)
    wanted = targets.flatten().take(pa.array(beyond))
    known = wanted.unique()
    size = len(known) + 1
    listed = pc.index_in(items.flatten(), value_set=known).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    sought = pc.index_in(wanted, value_set=known).to_numpy(zero_copy_only=False).astype(np.int64)
    found = lists[1][beyond][np.isin(lists[1][beyond] * size + sought, (lists[0] * size + listed)[listed >= 0])]
    tied = np.zeros(len(items), bool)
    tied[found] = True
    return tied
