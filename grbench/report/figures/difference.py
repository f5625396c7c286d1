"""Each row's difference from one of them, paired over users."""

from __future__ import annotations

import pandas as pd

from grbench.errors import RunError
from grbench.report.compared import ComparedRows
from grbench.report.figures.intervals import interval_columns
from grbench.report.slices import without_values

COLUMNS = ("row", "value", "low", "high", "over", "p", "differs", "mean", "seeds")


def difference_frame(compared: ComparedRows, metric: str | None = None, against: str | None = None) -> pd.DataFrame:
    """One row for each row of the table but the one that others are compared with, in the table's order.

    metric: None = the first with a value for each user; against: the row that others are compared with, None = the
    suite's baseline. row; value: its mean minus the other's, with its 95 % interval low to high, over users or users
    and seeds (`over`); p: two-sided, after Holm's correction over all rows of the table; differs: whether it is
    significant at 5 %; mean: the row's own; seeds: how many are done.

    Raises RunError where there is no such metric or row, the suite has no baseline and none is named, or a row has no
    users' values.
    """
    metric, against = compared.metric(metric, of_each_user=True), reference(compared, against)
    scores = dict(
        zip((row.name for row in compared.rows), compared.scores([metric], against=against)[metric], strict=True)
    )
    if scores[against].mean is None:
        raise RunError(f"{against}: has no score by {metric} to show, so that nothing is compared with it")
    shown = [(row, scores[row.name]) for row in compared.rows if scores[row.name].mean is not None]
    if without := [row for row, score in shown if score.estimate is None]:
        raise without_values([record for row in without for record in row.records], metric)
    records = [
        {
            "row": row.name,
            **interval_columns(versus.difference.value, versus.difference),
            "p": versus.p,
            "differs": versus.differs,
            "mean": score.mean,
            "seeds": len(row.done),
        }
        for row, score in shown
        if (versus := score.versus_baseline) is not None
    ]
    return pd.DataFrame(records, columns=list(COLUMNS))


def reference(compared: ComparedRows, against: str | None = None) -> str:
    """The name of the row that others are compared with. Raises RunError where there is none."""
    name = compared.first.baseline if against is None else against
    names = [row.name for row in compared.rows]
    if name is None or (against is None and name not in names):
        lacking = "the suite has no baseline" if name is None else f"there is no row of {name}, the suite's baseline,"
        raise RunError(f"{compared.title}: {lacking} to compare with; --against ROW names one of: {', '.join(names)}")
    return compared.row_named(name).name
