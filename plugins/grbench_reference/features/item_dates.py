"""The first and the last day of an item's events as item features: when an ad was shown first and last.

Six categorical fields as in OnePiece (shuoyang2/OnePiece, dataset.py): year, month and day of the month, of either day.
Differs: only training events are read, while OnePiece reads all, those that a hold-out tests included; days are UTC's,
while OnePiece's are of the time zone of the machine that it runs on.

Shapes: M items, N items, W field width.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from grbench.data.store import FeatureTable, Field
from grbench.data.training_data import TrainingData
from grbench.types import FIRST_VALUE, MISSING, PADDING
from grbench_reference.features.parts import FusedFields
from grbench_reference.features.time_features import DAY, check_has_times

_DATED: WeakKeyDictionary[TrainingData, ItemDays] = WeakKeyDictionary()
"""Days of a split, shared by all encoders that are built for it, as when a suite is planned."""


@dataclass(frozen=True)
class ItemDays:
    """first, last: [N+1] int64, the UTC days of each item's oldest and newest training event, counted from 1970-01-01;
    undefined for items without one."""

    first: np.ndarray
    last: np.ndarray


def item_days(data: TrainingData) -> ItemDays:
    """Reads the training events once, a block at a time. Raises SuiteError where the dataset has no times.

    90 M synthetic events of 4.8 M items: 6 s of one core, and 16 bytes an item are kept.
    """
    if data not in _DATED:
        _DATED[data] = _read(data)
    return _DATED[data]


def _read(data: TrainingData) -> ItemDays:
    check_has_times(data, "item_dates")
    limits = np.iinfo(np.int64)
    first = np.full(data.catalogue.num_items + 1, limits.max)
    last = np.full(data.catalogue.num_items + 1, limits.min)
    for events in data.stream():
        days = events.times // DAY
        np.minimum.at(first, events.items, days)
        np.maximum.at(last, events.items, days)
    return ItemDays(first, last)


class ItemDates(FusedFields):
    """items [M] -> [M, 6 * W]: the embeddings of first year, month and day, and last year, month and day.

    Items without a training event have the missing value in all six, which starts at zero: no step may ever train it.

    trained: [N+1] bool. Raises SuiteError where the dataset has no times.
    """

    def __init__(
        self, data: TrainingData, trained: np.ndarray, *, width: int, dropout: float = 0.0, sparse: bool = False
    ) -> None:
        table = date_table(item_days(data), trained)
        super().__init__(table, table.fields, trained, width=width, dropout=dropout, sparse=sparse)
        with torch.no_grad():
            self.table.weight[self.first_rows] = 0  # a field's rows start with that of the missing value


def date_table(days: ItemDays, trained: np.ndarray) -> FeatureTable:
    """Six fields of one column each; years count from the first training event's."""
    columns: list[np.ndarray] = []
    for name in ("first", "last"):
        dates = getattr(days, name)[trained].astype("datetime64[D]")
        years, months = dates.astype("datetime64[Y]"), dates.astype("datetime64[M]")
        columns += [years.astype(np.int64), (months - years).astype(np.int64), (dates - months).astype(np.int64)]
    first_year = columns[0].min() if trained.any() else 0
    last_year = columns[3].max() if trained.any() else 0
    values = np.full((len(trained), len(columns)), MISSING, np.int32)
    values[0] = PADDING
    values[trained] = np.stack(columns, axis=1) - [first_year, 0, 0] * 2 + FIRST_VALUE
    sizes = [int(last_year - first_year) + 1, 12, 31] * 2
    names = [f"{which} {part}" for which in ("first", "last") for part in ("year", "month", "day")]
    named = enumerate(zip(names, sizes, strict=True))
    return FeatureTable(tuple(Field(name, size + FIRST_VALUE, column) for column, (name, size) in named), values)
