"""Each evaluated user's group by each slice: columns `slice:<name>` of the parquet file of lists.

Shapes: Q queries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grbench.errors import RunError, cut, first_line
from grbench.interfaces import Slice, optional
from grbench.results.lists import RUN_AGAIN, column_names, read_lists

if TYPE_CHECKING:
    import pyarrow as pa

    from grbench.types import Ranking

PREFIX = "slice:"
MAX_GROUPS = 100
"""Of one slice: each is a column of a table."""
MAX_LABEL = 60
"""Characters of a group's name."""
ORDER = b"order"
"""Key of a column's metadata: all groups in the order of a table's columns, a JSON list."""


@dataclass(frozen=True)
class Grouping:
    """The queries' groups by one slice. codes: [Q] int64, each query's index into `groups`, -1 = in no group; groups:
    names in the order of a table's columns."""

    codes: np.ndarray
    groups: tuple[str, ...]

    def members(self) -> dict[str, np.ndarray]:
        """{group: indices of its queries} of the groups that have any, in order."""
        return {name: rows for code, name in enumerate(self.groups) if len(rows := np.flatnonzero(self.codes == code))}


def grouping(part: Slice, ranking: Ranking) -> Grouping:
    """The groups of a ranking's queries by the slice `part`. Raises RunError where it does not give one text for each
    query, or more than MAX_GROUPS groups, and what the slice raises."""
    import pyarrow as pa

    labels = np.asarray(part(ranking))
    if labels.shape != (len(ranking.users),):
        raise RunError(
            f"slice {part.name}: returned shape {labels.shape}; it should return one group per query, "
            f"({len(ranking.users)},)"
        )
    try:
        encoded = pa.array(labels.astype(object), pa.string()).dictionary_encode()
    except (pa.ArrowException, TypeError) as error:
        raise RunError(
            f'slice {part.name}: groups should be text, or None or "" for none ({first_line(error)})'
        ) from error
    found = encoded.dictionary.to_pylist()
    order = dict.fromkeys([*optional(part, Slice.order)(ranking), *sorted(found)])
    groups = tuple(name for name in order if name != "")
    if len(groups) > MAX_GROUPS:
        raise RunError(f"slice {part.name}: has {len(groups):,} groups; it should have at most {MAX_GROUPS}")
    for name in groups:
        if not isinstance(name, str) or len(name) > MAX_LABEL or not name.isprintable():
            raise RunError(
                f"slice {part.name}: {cut(repr(name))} is no name of a group: it should be text of at most "
                f"{MAX_LABEL} printable characters"
            )
    return Grouping(_codes(encoded, groups), groups)


def with_slice(lists: pa.Table, name: str, grouping: Grouping) -> pa.Table:
    """The table of lists with the groups by one slice, in place of those that it has by a slice of this name."""
    import pyarrow as pa

    column = PREFIX + name
    kept = lists.drop_columns([column]) if column in lists.column_names else lists
    codes = pa.array(grouping.codes, pa.int32(), mask=grouping.codes < 0)
    array = pa.DictionaryArray.from_arrays(codes, pa.array(grouping.groups, pa.string()))
    return kept.append_column(pa.field(column, array.type, metadata={ORDER: json.dumps(grouping.groups)}), array)


def read_slices(path: Path, names: Sequence[str] | None = None) -> dict[str, Grouping]:
    """{slice's name: the queries' groups} of those of the slices (None = of all) that there are groups of beside the
    lists at `path`, of which no other column is read. Raises RunError where the file cannot be read or is damaged."""
    columns = [name for name in column_names(path) if name.startswith(PREFIX)]
    if names is not None:
        columns = [column for column in columns if column.removeprefix(PREFIX) in names]
    table = read_lists(path, columns)
    return {name.removeprefix(PREFIX): _read(table, name, path) for name in columns}


def _read(table: pa.Table, column: str, path: Path) -> Grouping:
    """The groups in a column of the table at `path`."""
    import pyarrow as pa

    try:
        groups = json.loads((table.schema.field(column).metadata or {})[ORDER])
        encoded = table[column].cast(pa.string()).combine_chunks().dictionary_encode()
        named = isinstance(groups, list) and all(isinstance(name, str) for name in groups)
        if named and set(encoded.dictionary.to_pylist()) <= set(groups):
            return Grouping(_codes(encoded, groups), tuple(groups))
    except (KeyError, ValueError, AttributeError, pa.ArrowException):
        named = False
    raise RunError(f"{path}: the lists are damaged (column {column} should hold names of groups); {RUN_AGAIN}")


def _codes(encoded: Any, groups: Sequence[str]) -> np.ndarray:
    """encoded: Q texts as a dictionary array -> [Q] int64, the index of each into groups; -1 = empty or null."""
    place = {name: code for code, name in enumerate(groups)}
    places = [place.get(name, -1) for name in encoded.dictionary.to_pylist()]
    codes: np.ndarray = np.array([*places, -1], np.int64)[encoded.indices.fill_null(-1).to_numpy()]
    return codes
