"""Scores within the groups that a slice divides the evaluated users into."""

from __future__ import annotations

from typing import Any

import pandas as pd

from grbench.errors import RunError
from grbench.report.compared import ComparedRows
from grbench.report.figures.intervals import interval_columns
from grbench.report.slices import recorded_slices, sliced_scores

COLUMNS = ("row", "group", "users", "value", "low", "high", "over", "best", "p", "seeds")


def slices_frame(compared: ComparedRows, name: str | None = None, metric: str | None = None) -> pd.DataFrame:
    """One row for each row of the table and group of users; rows and groups in the table's order, `all` users first.

    name: the slice, None = the first that the records have groups by; metric: None = the first with a value for each
    user. row, group; users: of the group; value, low, high, over: the mean within the group with its 95 % interval,
    NaN where the group's users leave nothing to estimate it by; best: whether it cannot be told from the group's best;
    p: of its difference from the suite's baseline within the group, after Holm's correction over the rows, NaN where
    there is none; seeds: how many are done.

    Raises RunError where there is no such metric or slice, or no users' values.
    """
    metric = compared.metric(metric, of_each_user=True)
    rows = [row for place, row in enumerate(compared.rows) if place not in compared.chosen.hidden and row.done]
    if not rows:
        raise RunError("; ".join(compared.chosen.notes) or f"{compared.title}: no cell has finished")
    sliced = sliced_scores(rows, name or slice_name(compared), metric, compared.first)
    records: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        for group, column in sliced.columns.items():
            score = column[place]
            if score.mean is None:
                continue
            versus = score.versus_baseline
            records.append(
                {
                    "row": row.name,
                    "group": group,
                    "users": sliced.sizes[group],
                    **interval_columns(score.mean, score.estimate),
                    "best": score.best,
                    "p": float("nan") if versus is None else versus.p,
                    "seeds": len(row.done),
                }
            )
    return pd.DataFrame(records, columns=list(COLUMNS))


def slice_name(compared: ComparedRows) -> str:
    """The first slice that the records have groups by. Raises RunError where they have none."""
    names = recorded_slices([record for row in compared.rows for record in row.done])
    if not names:
        raise RunError(
            f"{compared.title}: the records have no groups of users by any slice; grbench rescore RESULTS --slice NAME "
            "adds them"
        )
    return names[0]
