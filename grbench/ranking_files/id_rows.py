"""Finds rows of the store by ids in the source, many at once, whatever type a file gives them.

Shapes: n ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grbench.errors import RunError, cut

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 1 << 24
WHOLE_NUMBER = r"^-?[0-9]{1,18}$"


class IdRows:
    """ids: of the source, int64 or text, one per row of the store; kind: user or item; first_row: the row of ids[0].

    What is not found is counted (`unknown`, `first_unknown`), so that it can be said once, when all of a file is read.
    """

    def __init__(self, ids: np.ndarray, kind: str, *, first_row: int) -> None:
        import pyarrow as pa

        values = np.asarray(ids)
        self.kind, self.first_row = kind, first_row
        self.are_text = values.dtype.kind in "TUO"
        kind_of_ids = pa.large_string() if self.are_text else pa.int64()
        self._ids = pa.array(values.astype(object) if self.are_text else values, kind_of_ids)
        self.unknown = 0
        self.first_unknown = ""

    def find(self, given: pa.Array, path: Path) -> np.ndarray:
        """ids [n] of whatever type -> rows [n] int32, -1 where no row has the id. Text that is a whole number is the
        same id as the number. Raises RunError for ids that are missing, or neither whole numbers nor text."""
        import pyarrow as pa

        if given.null_count:
            raise RunError(f"{path}: {given.null_count:,} {self.kind} ids are missing (null)")
        if isinstance(given.type, pa.DictionaryType):
            given = given.cast(given.type.value_type)
        if not (pa.types.is_integer(given.type) or _is_text(given.type) or len(given) == 0):
            raise RunError(
                f"{path}: {self.kind} ids should be {'text' if self.are_text else 'whole numbers'}, as in the dataset; "
                f"these are {given.type}"
            )
        parts = [self._find(given.slice(first, AT_ONCE)) for first in range(0, len(given), AT_ONCE)]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def has(self, text: str) -> bool:
        """Whether an id of the dataset is this one, written as text."""
        import pyarrow as pa

        rows = self._rows(pa.array([text]))
        return bool(rows[0] >= 0)

    def raise_unknown(self, path: Path) -> None:
        """Raises RunError where ids were not found."""
        if self.unknown:
            raise RunError(
                f"{path}: {self.unknown:,} {self.kind} ids are not in the dataset, the first is {self.first_unknown!r}"
            )

    def _find(self, given: pa.Array) -> np.ndarray:
        rows = self._rows(given)
        missing = rows < 0
        if missing.any():
            if not self.unknown:
                self.first_unknown = cut(str(given[int(missing.argmax())].as_py()))
            self.unknown += int(missing.sum())
        return np.where(missing, -1, rows + self.first_row).astype(np.int32)

    def _rows(self, given: pa.Array) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.are_text:
            wanted = given.cast(pa.large_string())
        elif _is_text(given.type):
            whole = pc.match_substring_regex(given, WHOLE_NUMBER)
            wanted = pc.if_else(whole, given, pa.scalar(None, given.type)).cast(pa.int64())
        elif given.type == pa.uint64():
            wanted = pc.if_else(pc.less(given, pa.scalar(1 << 63, pa.uint64())), given, None).cast(pa.int64())
        else:
            wanted = given.cast(pa.int64())
        found = pc.index_in(wanted, value_set=self._ids, skip_nulls=True)
        rows: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False)
        return rows


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
