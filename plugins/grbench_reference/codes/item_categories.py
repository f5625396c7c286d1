"""The categorical fields of items that a coder reads, and the categories that some of them make up, by depth.

Shapes: N items, F fields, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grbench.data.store import Catalogue, Field
from grbench.errors import SuiteError
from grbench.types import FIRST_VALUE
from grbench_reference.codes.collisions import extend_prefixes
from grbench_reference.codes.parallel_coder import CoderOptions


@dataclass(frozen=True)
class ItemCategories:
    """sizes: numbers of feature codes of the F fields that are inputs; fields: [N+1, F] int32 feature codes;
    categories: [N+1, L] int64, each item's category at each level, -1 = none."""

    sizes: tuple[int, ...]
    fields: np.ndarray
    categories: np.ndarray


def item_categories(catalogue: Catalogue, options: CoderOptions, levels: int, where: str) -> ItemCategories:
    """Raises SuiteError, naming `where` (tokenizer or encoder), for a field that items lack or that has several
    values."""
    table = catalogue.item_features
    single = {field.name: field for field in table.fields if field.width == 1}

    def chosen(names: Sequence[str | int], option: str) -> list[Field]:
        for name in map(str, names):
            if name not in single:
                raise SuiteError(
                    f"{where}.{option}: no item field {name!r} of one value in this dataset; it has "
                    f"{', '.join(single) or 'none'}"
                )
        return [single[str(name)] for name in names]

    if isinstance(options.coder_fields, bool):
        inputs = list(single.values()) if options.coder_fields else []
    else:
        inputs = chosen(options.coder_fields, "coder_fields")
    if options.categories is None:
        tree = sorted(inputs, key=lambda field: field.size)
    else:
        tree = chosen(options.categories, "categories")
    return ItemCategories(
        tuple(field.size for field in inputs),
        table.values[:, [field.start for field in inputs]].astype(np.int32),
        _categories(table.values, tree, levels),
    )


def _categories(values: np.ndarray, tree: Sequence[Field], levels: int) -> np.ndarray:
    """values [N+1, C], fields coarse first -> [N+1, L], numbered anew at each level."""
    categories = np.full((len(values), levels), -1, np.int64)
    known = np.ones(len(values), bool)
    known[0] = False
    keys, read = np.zeros(len(values), np.int64), 0
    for level in range(levels if tree else 0):
        until = math.ceil((level + 1) * len(tree) / levels)
        for field in tree[read:until]:
            codes = values[:, field.start].astype(np.int64)
            keys, known = extend_prefixes(keys, codes, field.size), known & (codes >= FIRST_VALUE)
        read = until
        categories[:, level] = np.where(known, keys, -1)
    return categories
