"""Parquet files with one list per row, such as the file of lists beside a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grbench.errors import RunError, cut, first_line
from grbench.ranking_files.formats import TIED_BEYOND
from grbench.ranking_files.given_lists import GivenLists, ListCollector
from grbench.ranking_files.id_rows import IdRows
from grbench.types import Progress

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1 << 16
MOST_VALUES_PER_BYTE, FEW_VALUES = 50, 10_000_000
"""A file of lists holds about one value per byte; where it says that it holds many more, they are no lists."""


def read_parquet(path: Path, users: IdRows, items: IdRows, report: Progress) -> GivenLists:
    """Columns `user`, `items` (lists, best first), and where they are there `scores` (lists) and `tied_beyond`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = ListCollector()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            wanted = [name for name in ("user", "items", "scores", TIED_BEYOND) if name in names]
            for name in {"user": 0, "items": 0} | dict.fromkeys(wanted):
                if names.count(name) != 1:
                    raise RunError(f"{path}: should have one column {name!r}; it has {cut(', '.join(names), 300)}")
            _check_expansion(path, file.metadata)
            total, done = file.metadata.num_rows, 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted):
                columns = {name: batch.column(name) for name in wanted}
                append_lists(lists, columns, path, users, items)
                done += len(batch)
                report(f"reading {path.name}", done, total)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: cannot be read as parquet ({first_line(error)})") from error
    return lists.lists(have_scores="scores" in wanted)


def _check_expansion(path: Path, metadata: Any) -> None:
    """Raises RunError where a small file says that it holds very many values, which would fill the memory. metadata: of
    the parquet file."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
    size = path.stat().st_size
    if values > max(MOST_VALUES_PER_BYTE * size, FEW_VALUES):
        raise RunError(f"{path}: cannot be read (it says to hold {values:,} values in {size:,} bytes)")


def append_lists(
    lists: ListCollector,
    columns: dict[str, Any],
    path: Path,
    users: IdRows,
    items: IdRows,
    *,
    zero_is_none: bool = False,
) -> None:
    """Takes in lists from arrow columns `user`, `items`, and where they are there `scores` and `tied_beyond`.

    zero_is_none: items 0 at the end of a list stand for no item, where the dataset has no such id.
    """
    found = _lists_of(columns["items"], "items", path)
    lengths = np.diff(found[0])
    entries, keep = found[1], None
    if zero_is_none and not items.has("0"):
        keep = _before_trailing_zeros(entries, lengths)
    lists.users.append(users.find(columns["user"], path))
    given = entries if keep is None else entries.filter(_arrow_mask(keep))
    lists.items.append(items.find(given, path))
    if "scores" in columns:
        offsets, values = _lists_of(columns["scores"], "scores", path)
        if not np.array_equal(np.diff(offsets), lengths):
            raise RunError(f"{path}: scores: each list should have one score per item")
        scores = _numbers(values, path)
        lists.scores.append(scores if keep is None else scores[keep])
    tied = columns.get(TIED_BEYOND)
    lists.tied_beyond.append(np.zeros(len(lengths), bool) if tied is None else _flags(tied, path))
    lists.lengths.append(lengths if keep is None else _sums(keep, lengths))


def _lists_of(column: pa.Array, name: str, path: Path) -> tuple[np.ndarray, pa.Array]:
    """(offsets [n+1] from 0, values of all lists)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise RunError(f"{path}: {name} should hold a list per user; it holds {kind}")
    if column.null_count:
        raise RunError(f"{path}: {name}: {column.null_count:,} lists are missing (null)")
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.concatenate([[0], np.cumsum(lengths)]), column.flatten()


def _numbers(values: pa.Array, path: Path) -> np.ndarray:
    import pyarrow as pa

    kind = values.type
    numeric = pa.types.is_floating(kind) or pa.types.is_integer(kind) or len(values) == 0
    if not numeric or values.null_count:
        raise RunError(f"{path}: scores should be numbers; they are {kind}{', some missing' * bool(values.null_count)}")
    if not len(values):
        return np.zeros(0)
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def _flags(column: pa.Array, path: Path) -> np.ndarray:
    import pyarrow as pa

    if not pa.types.is_boolean(column.type) or column.null_count:
        raise RunError(f"{path}: {TIED_BEYOND} should be true or false for each list")
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)


def _before_trailing_zeros(values: pa.Array, lengths: np.ndarray) -> np.ndarray | None:
    """[E] bool: False for the zeros at the end of a list; None where there are none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_string(values.type)):
        return None
    zero = pc.equal(values, pa.scalar("0" if pa.types.is_string(values.type) else 0, values.type))
    something = np.flatnonzero(~zero.to_numpy(zero_copy_only=False))
    if len(something) == len(values):
        return None
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    last = np.full(len(lengths), -1, np.int64)
    last[row_of[something]] = something  # of equal rows, the last assignment stays
    return np.asarray(np.arange(len(values)) <= last[row_of])


def _arrow_mask(mask: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(mask)


def _sums(mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """mask [E] -> [L]: how many are True in each list."""
    before = np.concatenate([[0], np.cumsum(mask)])
    ends = np.cumsum(lengths)
    return np.asarray(before[ends] - before[ends - lengths], np.int64)
