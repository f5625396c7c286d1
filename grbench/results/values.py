"""What is recorded beside each evaluated user's list: the value of each metric, columns `metric:<name>` of the parquet
file of lists, and the groups that slices divide the users into (`slices.py`).

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grbench.errors import RunError
from grbench.results.lists import RUN_AGAIN, read_lists
from grbench.results.slices import PREFIX as SLICE_PREFIX
from grbench.results.slices import Grouping, with_slice

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "metric:"


def with_values(
    lists: pa.Table, values: Mapping[str, np.ndarray], groupings: Mapping[str, Grouping] | None = None
) -> pa.Table:
    """The table of lists with one column for each metric, and one for each slice.

    values: {metric: [Q] float64}, in the order of the lists; columns of the same metrics are replaced, those of other
    metrics removed. groupings: {slice's name: its groups}, in the same way; None = columns of slices stay as they are.
    """
    removed = (PREFIX,) if groupings is None else (PREFIX, SLICE_PREFIX)
    kept = lists.select([name for name in lists.column_names if not name.startswith(removed)])
    for name, grouping in (groupings or {}).items():
        kept = with_slice(kept, name, grouping)
    return with_further_values(kept, values)


def with_further_values(lists: pa.Table, values: Mapping[str, np.ndarray]) -> pa.Table:
    """Like `with_values`, but columns of other metrics stay."""
    import pyarrow as pa

    columns = {f"{PREFIX}{metric}": pa.array(each, pa.float64()) for metric, each in values.items()}
    kept = lists.select([name for name in lists.column_names if name not in columns])
    for name, column in columns.items():
        kept = kept.append_column(name, column)
    return kept


def read_values(path: Path, metrics: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """(users [Q], ids in the source; {metric: its values [Q] float64} of those metrics that there are values of) of the
    lists at `path`, of which no other column is read. None where there is no such file. Raises RunError where it is
    damaged."""
    import pyarrow as pa

    if not path.exists():
        return None
    table = read_lists(path, ["user", *(f"{PREFIX}{metric}" for metric in metrics)])
    if "user" not in table.column_names:
        raise RunError(f"{path}: the lists are damaged (no column user); {RUN_AGAIN}")
    values = {}
    for name in table.column_names[1:]:
        column = table[name]
        if column.type != pa.float64() or column.null_count or not np.isfinite(each := column.to_numpy()).all():
            raise RunError(f"{path}: the lists are damaged (column {name} should hold finite numbers); {RUN_AGAIN}")
        values[name.removeprefix(PREFIX)] = each
    return table["user"].to_numpy(), values
