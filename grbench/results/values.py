"""Each evaluated user's value of each metric: columns `metric:<name>` of the parquet file of lists.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grbench.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "metric:"


def with_values(lists: pa.Table, values: Mapping[str, np.ndarray]) -> pa.Table:
    """The table of lists with one column for each metric. values: {metric: [Q] float64}, in the order of the lists;
    columns of the same metrics are replaced, those of other metrics removed."""
    import pyarrow as pa

    kept = lists.select([name for name in lists.column_names if not name.startswith(PREFIX)])
    for metric, each in values.items():
        kept = kept.append_column(f"{PREFIX}{metric}", pa.array(each, pa.float64()))
    return kept


def read_values(path: Path, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(users [Q], ids in the source; the metric's values [Q] float64) of the lists at `path`, reading these two columns
    only. None where there is no such file, or it has no values of the metric, as with files of earlier versions. Raises
    RunError where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return None
    try:
        with pq.ParquetFile(path) as file:
            if f"{PREFIX}{metric}" not in file.schema_arrow.names:
                return None
            table = file.read(["user", f"{PREFIX}{metric}"])
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: the lists cannot be read ({error})") from error
    users, values = (table[name].to_numpy() for name in table.column_names)
    return users, values
