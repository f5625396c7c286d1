"""The parquet file with all users' ranked lists, next to the record: one row per query, with the source's ids.

Columns: user; history_length, its number of events; items and scores (best first, only as many as were found); targets,
ranks (1 = first, 0 = not in the list) and target_actions, one value per target. Where the suite asks for longer lists
(`keep_lists`): kept_items, kept_scores and kept_ranks, from a second search, so that the scored lists need not be their
prefixes. Lengths, pool size and action names are in the table's metadata.

Shapes: Q queries, K list length, G targets per query, U users, N items, n some items.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grbench.errors import RunError, first_line
from grbench.types import Ranking

if TYPE_CHECKING:
    import pyarrow as pa

    from grbench.data.split import Split

LISTS_VERSION = 2
"""Version 2 added `length`, `kept_length` and the kept_* columns."""

MOST_VALUES_PER_BYTE = 50
FEW_VALUES = 10_000_000
"""A file of lists holds about one value per byte; where it says that it holds many more, they are no lists."""

RUN_AGAIN = "remove its record, so that the cell is run again"


def lists_table(ranking: Ranking, user_ids: np.ndarray, item_ids: np.ndarray, kept: Ranking | None = None) -> pa.Table:
    """The file's content. ranking: the scored lists; kept: the longer ones; user_ids [U], item_ids [N+1]: ids in the
    source."""
    import pyarrow as pa

    names = np.array([None, None, *ranking.actions], dtype=object)
    present = ranking.targets > 0
    columns = {
        "user": _arrow(user_ids[ranking.users]),
        "history_length": pa.array(ranking.history_lengths, pa.int64()),
        **_columns(ranking, item_ids),
        "targets": _ragged(item_ids[ranking.targets], present),
        "target_actions": _ragged(names[ranking.target_actions], present, pa.string()),
    }
    if kept is not None:
        columns |= {f"kept_{name}": column for name, column in _columns(kept, item_ids).items()}
    metadata = {
        "schema": LISTS_VERSION,
        "pool": ranking.pool,
        "actions": list(ranking.actions),
        "length": ranking.items.shape[1],
        "kept_length": None if kept is None else kept.items.shape[1],
    }
    return pa.table(columns).replace_schema_metadata({"grbench": json.dumps(metadata)})


def read_lists(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table at `path`, or those of the columns that it has; raises RunError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_expansion(path, file.metadata)
            present = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            return file.read(present)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: the lists cannot be read ({first_line(error)}); {RUN_AGAIN}") from error


def _check_expansion(path: Path, metadata: Any) -> None:
    """Raises RunError where a small file says that it holds very many values, as one does that is made to fill the
    memory of whoever reads it. metadata: of the parquet file."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
    if values > max(MOST_VALUES_PER_BYTE * path.stat().st_size, FEW_VALUES):
        raise RunError(
            f"{path}: the lists cannot be read (they say to hold {values:,} values in {path.stat().st_size:,} bytes); "
            f"{RUN_AGAIN}"
        )


def column_names(path: Path) -> list[str]:
    """The columns of the table at `path`; raises RunError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: the lists cannot be read ({first_line(error)}); {RUN_AGAIN}") from error
    return names


def rankings_from(table: pa.Table, split: Split, where: Path) -> tuple[Ranking, Ranking | None]:
    """(the scored lists, the longer lists or None), equal to the rankings that `lists_table` was called with.

    split: the split that they were ranked for. Raises RunError, naming the file `where`, where users, items or targets
    differ from the split's, or columns are missing or of other types.
    """
    import pyarrow as pa

    try:
        return _rankings_from(table, split, where)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        MemoryError,
        pa.ArrowException,
    ) as error:
        raise RunError(f"{where}: the lists are damaged ({first_line(error)}); {RUN_AGAIN}") from error


def _rankings_from(table: pa.Table, split: Split, where: Path) -> tuple[Ranking, Ranking | None]:
    metadata = json.loads((table.schema.metadata or {}).get(b"grbench", b"{}"))
    queries, training = split.test, split.training
    rows = _ItemRows(training.catalogue.item_ids)
    present = queries.targets > 0
    if (
        metadata.get("schema") != LISTS_VERSION
        or not np.array_equal(_flat(table["user"]), np.asarray(training.catalogue.user_ids[queries.users]))
        or not np.array_equal(rows.find(_flat(table["targets"])), queries.targets[present])
        or (rows.find(_flat(table["items"])) < 0).any()
    ):
        raise RunError(f"{where}: these lists are not from this dataset and split; {RUN_AGAIN}")

    def padded(column: str, length: int, values: np.ndarray, padding: Any) -> np.ndarray:
        """values: all values of the column's Q lists -> [Q, length]."""
        offsets = table[column].combine_chunks().offsets.to_numpy()
        array = np.full((len(queries), length), padding, values.dtype)
        array[np.arange(length) < np.diff(offsets)[:, None]] = values
        return array

    def ranks(column: str) -> np.ndarray:
        array = np.zeros(queries.targets.shape, np.int64)
        array[present] = _flat(table[column])
        return array

    length, kept_length = metadata["length"], metadata["kept_length"]
    if not all(0 <= each <= len(split.candidates) for each in (length, kept_length or 0)):
        raise ValueError(f"lists of {length} and {kept_length} items of {len(split.candidates)} candidates")
    ranking = Ranking(
        users=queries.users,
        items=padded("items", length, rows.find(_flat(table["items"])), 0),
        scores=padded("scores", length, _flat(table["scores"]), -np.inf),
        targets=queries.targets,
        target_actions=queries.target_actions,
        ranks=ranks("ranks"),
        actions=tuple(metadata["actions"]),
        pool=metadata["pool"],
        history_lengths=queries.histories.lengths,
        training=training,
        histories=queries.histories,
        target_times=queries.target_times,
    )
    if kept_length is None:
        return ranking, None
    return ranking, replace(
        ranking,
        items=padded("kept_items", kept_length, rows.find(_flat(table["kept_items"])), 0),
        scores=padded("kept_scores", kept_length, _flat(table["kept_scores"]), -np.inf),
        ranks=ranks("kept_ranks"),
    )


def _columns(ranking: Ranking, item_ids: np.ndarray) -> dict[str, pa.LargeListArray]:
    found = ranking.items > 0
    return {
        "items": _ragged(item_ids[ranking.items], found),
        "scores": _ragged(ranking.scores.astype(np.float32), found),
        "ranks": _ragged(ranking.ranks.astype(np.int32), ranking.targets > 0),
    }


def _ragged(values: np.ndarray, present: np.ndarray, kind: pa.DataType | None = None) -> pa.LargeListArray:
    """values, present: [Q, K] -> Q lists of the values where `present` is true, in order."""
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1), dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), _arrow(values[present], kind))


def _arrow(values: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    """values: [n]; arrow releases older than numpy's StringDType read text as Python objects."""
    import pyarrow as pa

    return pa.array(values.astype(object) if values.dtype.kind == "T" else values, type=kind)


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    """All values of a column, or of its lists, in one array, in order."""
    array = column.combine_chunks()
    return _ids((array.flatten() if hasattr(array, "offsets") else array).to_numpy(zero_copy_only=False))


def _ids(values: np.ndarray) -> np.ndarray:
    """Text of any kind as numpy's StringDType."""
    return values.astype(np.dtypes.StringDType()) if values.dtype.kind in "UO" else values


class _ItemRows:
    """Finds items' rows by their ids in the source. ids: [N+1], row 0 = padding."""

    def __init__(self, ids: np.ndarray) -> None:
        items = _ids(np.asarray(ids[1:]))
        self._order = np.argsort(items)
        self._sorted = items[self._order]

    def find(self, ids: np.ndarray) -> np.ndarray:
        """ids [n] -> rows [n] int64; -1 where no item has the id."""
        positions = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        return np.where(self._sorted[positions] == ids, self._order[positions] + 1, -1).astype(np.int64)
