"""The rows of a frame that `--rows` chooses, in its order and under its labels."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from grbench.report.compared import ComparedRows
from grbench.report.selection import Pick, check_picks, chosen


def check_rows(compared: ComparedRows, wanted: Sequence[Pick]) -> None:
    """Raises RunError where a row is chosen that there is not."""
    check_picks(wanted, [(row.name,) for row in compared.rows], "--rows")


def selected(frame: pd.DataFrame, wanted: Sequence[Pick]) -> pd.DataFrame:
    """The frame's lines of the chosen rows (all where `wanted` is empty), row by row in the chosen order, with a column
    `label`: what the row is called. Nothing is computed anew: intervals and p stay those over all rows."""
    names = list(dict.fromkeys(frame["row"]))
    places = chosen(wanted, [(name,) for name in names])
    labels = {names[place]: names[place] if label is None else label for place, label in places}
    order = {name: position for position, name in enumerate(labels)}
    kept = frame[frame["row"].isin(order)]
    kept = kept.iloc[kept["row"].map(order).argsort(kind="stable")]
    return kept.assign(label=kept["row"].map(labels)).reset_index(drop=True)


def label_of(name: str, wanted: Sequence[Pick]) -> str:
    """What a row is called."""
    return next((pick.shown for pick in wanted if pick.name == name), name)
