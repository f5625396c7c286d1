"""The file of every user's lists that lies beside a record: one row a query, in the source's ids.

Columns: user; items and scores (best first, without the places that stayed empty); targets, ranks (1 = first, 0 = not
in the list) and target_actions, a value a target. Where longer lists were kept: kept_items, kept_scores, kept_ranks,
of a search of their own, so that the lists that were scored are not always their beginning. Lengths, pool size and
action names are the table's metadata.

Shapes: Q queries, K list length, G targets a query, U users, N items.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grbench.errors import RunError
from grbench.types import Ranking

if TYPE_CHECKING:
    import pyarrow as pa

    from grbench.data.split import Split

LISTS_VERSION = 2
"""2: `length`, `kept_length` and the columns of kept lists."""

RUN_AGAIN = "remove its record, so that the cell is run again"


def lists_table(ranking: Ranking, user_ids: np.ndarray, item_ids: np.ndarray, kept: Ranking | None = None) -> pa.Table:
    """The file's content. ranking: the lists that are scored; kept: longer ones; user_ids [U], item_ids [N+1]."""
    import pyarrow as pa

    names = np.array([None, None, *ranking.actions], dtype=object)
    present = ranking.targets > 0
    columns = {
        "user": pa.array(user_ids[ranking.users]),
        **_columns(ranking, item_ids),
        "targets": _ragged(item_ids[ranking.targets], present),
        "target_actions": _ragged(names[ranking.target_actions], present, pa.string()),
    }
    if kept is not None:
        columns |= {f"kept_{name}": column for name, column in _columns(kept, item_ids).items()}
    described = {
        "schema": LISTS_VERSION,
        "pool": ranking.pool,
        "actions": list(ranking.actions),
        "length": ranking.items.shape[1],
        "kept_length": None if kept is None else kept.items.shape[1],
    }
    return pa.table(columns).replace_schema_metadata({"grbench": json.dumps(described)})


def read_lists(path: Path) -> pa.Table:
    """The table at `path`; raises RunError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: the lists cannot be read ({error}); {RUN_AGAIN}") from error


def rankings_of(table: pa.Table, split: Split, where: Path) -> tuple[Ranking, Ranking | None]:
    """The lists as they were when they were searched for: those that are scored, and the longer ones where there are.

    split: of the data that they were made of. Raises RunError, naming `where`, where users, items or targets are others
    than the split's.
    """
    described = json.loads((table.schema.metadata or {}).get(b"grbench", b"{}"))
    queries, training = split.test, split.training
    rows = _Rows(training.catalogue.item_ids)
    present = queries.targets > 0
    if (
        described.get("schema") != LISTS_VERSION
        or not np.array_equal(_flat(table["user"]), np.asarray(training.catalogue.user_ids[queries.users]))
        or not np.array_equal(rows.of(_flat(table["targets"])), queries.targets[present])
        or (rows.of(_flat(table["items"])) < 0).any()
    ):
        raise RunError(f"{where}: these lists are not of this data; {RUN_AGAIN}")

    def filled(column: str, length: int, values: np.ndarray, empty: Any) -> np.ndarray:
        """Q ragged lists -> [Q, length]."""
        offsets = table[column].combine_chunks().offsets.to_numpy()
        array = np.full((len(queries), length), empty, values.dtype)
        array[np.arange(length) < np.diff(offsets)[:, None]] = values
        return array

    def ranks(column: str) -> np.ndarray:
        array = np.zeros(queries.targets.shape, np.int64)
        array[present] = _flat(table[column])
        return array

    length, kept_length = described["length"], described["kept_length"]
    ranking = Ranking(
        users=queries.users,
        items=filled("items", length, rows.of(_flat(table["items"])), 0),
        scores=filled("scores", length, _flat(table["scores"]), -np.inf),
        targets=queries.targets,
        target_actions=queries.target_actions,
        ranks=ranks("ranks"),
        actions=tuple(described["actions"]),
        pool=described["pool"],
        history_lengths=queries.histories.lengths,
        training=training,
    )
    if kept_length is None:
        return ranking, None
    return ranking, replace(
        ranking,
        items=filled("kept_items", kept_length, rows.of(_flat(table["kept_items"])), 0),
        scores=filled("kept_scores", kept_length, _flat(table["kept_scores"]), -np.inf),
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
    """values, present: [Q, K] -> Q lists of the values that are present, in order."""
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1), dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values[present], type=kind))


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    """All values of a column, or of the lists in it, in order."""
    array = column.combine_chunks()
    flat: np.ndarray = (array.flatten() if hasattr(array, "offsets") else array).to_numpy(zero_copy_only=False)
    return flat.astype(str) if flat.dtype == object else flat


class _Rows:
    """Rows of items by their ids. ids: [N+1], row 0 = padding."""

    def __init__(self, ids: np.ndarray) -> None:
        self._order = np.argsort(ids[1:])
        self._sorted = np.asarray(ids[1:])[self._order]

    def of(self, ids: np.ndarray) -> np.ndarray:
        """[n] int64; -1 where no item has the id."""
        places = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        return np.where(self._sorted[places] == ids, self._order[places] + 1, -1).astype(np.int64)
