"""Semantic IDs made elsewhere, read from a file such as `Beauty.index.json` of LETTER (arXiv 2405.07314)."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, PositiveInt

from grbench.data.training_data import TrainingData
from grbench.errors import DataError, SuiteError
from grbench.interfaces import Tokenizer
from grbench.registry.option_types import DataFile
from grbench.types import Codes
from grbench_reference.codes.collisions import number_within_groups, prefix_keys
from grbench_reference.codes.quality import code_quality

MOST_DIGITS = 9
"""The most digits of a code. The largest code of a level decides how many embeddings the level needs."""


class CodesFile(Tokenizer):
    """The codes in a JSON file {item: [code, code, ...]}, with the item ids of the dataset's source.

    A code is a number, or text that ends in one, such as `<a_12>`. All items have the same number of codes; the level
    of a code is its position in the list, whatever its letter. Items that the dataset lacks are ignored.

    Args:
        path: the JSON file.
        sizes: number of codes of each level; null = the largest code of the dataset's items + 1.
        collision: none = items may share a code; extra_level = one more level numbers the items that share a code.
    """

    def __init__(
        self,
        *,
        path: DataFile,
        sizes: Annotated[list[PositiveInt], Field(min_length=1)] | None = None,
        collision: Literal["none", "extra_level"] = "none",
    ) -> None:
        self.path, self.sizes, self.collision = Path(path), sizes, collision

    def fit(self, data: TrainingData) -> Codes:
        """Raises DataError where the file cannot be read or lacks items, SuiteError where `sizes` are too small."""
        codes = self.stand_in(data)
        return Codes(codes.table, codes.sizes, {**codes.report, **code_quality(codes, data)})

    def stand_in(self, data: TrainingData) -> Codes:
        """The codes themselves, as there is nothing to learn."""
        content = self._read()
        # Ids are compared as text, because JSON keys are text.
        items = pd.Index(data.catalogue.item_ids[1:].astype(np.dtypes.StringDType()).astype(object))
        rows = pd.Index(list(content)).get_indexer(items)
        absent = items[rows < 0]
        if len(absent):
            raise DataError(
                f"tokenizer.path: {self.path}: lacks {len(absent)} of the dataset's {len(items)} items, such as "
                f"{', '.join(absent[:3])}; it names {len(content)} items, such as {', '.join([*content][:3])}"
            )
        table = self._codes(content)[rows]
        sizes = self._sizes(table)
        if self.collision == "extra_level":
            numbers = number_within_groups(prefix_keys(table, sizes))
            table, sizes = np.column_stack([table, numbers]), (*sizes, int(numbers.max()) + 1)
        padded = np.concatenate([np.zeros((1, len(sizes)), np.int64), table])
        report = {"file": self.path.name, "items_left_out": len(content) - len(items)}
        return Codes(torch.from_numpy(padded), sizes, report)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_bytes())
        except OSError as error:
            raise DataError(f"tokenizer.path: {self.path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"tokenizer.path: {self.path}: is not JSON ({error})") from error
        if not isinstance(content, dict) or not content:
            raise DataError(f"tokenizer.path: {self.path}: should be a mapping of items to lists of codes")
        return content

    def _codes(self, content: dict[str, Any]) -> np.ndarray:
        """[items of the file, L] int64 codes."""
        items, rows = list(content), list(content.values())
        lengths = np.array([len(row) if isinstance(row, list) else 0 for row in rows])
        if not lengths[0] or (lengths != lengths[0]).any():
            item = items[int(np.argmax((lengths != lengths[0]) | (lengths == 0)))]
            raise DataError(
                f"tokenizer.path: {self.path}: item {item}: should be a list of {lengths[0] or 'some'} codes, as for "
                f"the others, not {json.dumps(content[item])}"
            )
        tokens = pd.Series(list(chain.from_iterable(rows)), dtype=object).astype(str)
        numbers = tokens.str.extract(r"^(?:<?[A-Za-z]+_)?(\d+)>?$", expand=False)
        invalid = numbers.isna() | (numbers.str.len() > MOST_DIGITS)
        if invalid.any():
            wrong = int(invalid.to_numpy().argmax())
            raise DataError(
                f"tokenizer.path: {self.path}: item {items[wrong // lengths[0]]}: {tokens[wrong]!r} is not a code; "
                f"a code is a number from 0, of {MOST_DIGITS} digits at most, or text such as <a_12>"
            )
        return numbers.to_numpy(np.int64).reshape(-1, lengths[0])

    def _sizes(self, table: np.ndarray) -> tuple[int, ...]:
        """Raises SuiteError where the option `sizes` does not fit the codes."""
        largest = table.max(axis=0)
        if self.sizes is None:
            return tuple(int(code) + 1 for code in largest)
        if len(self.sizes) != len(largest) or (largest >= self.sizes).any():
            raise SuiteError(
                f"tokenizer.sizes: {self.sizes} cannot hold the codes of {self.path}, whose largest codes "
                f"per level are {largest.tolist()}"
            )
        return tuple(self.sizes)
