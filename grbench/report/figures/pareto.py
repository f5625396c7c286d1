"""Quality against a cost, and the rows that no other row beats in both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from grbench.errors import RunError, cut
from grbench.report.compared import ComparedRows
from grbench.report.costs import Combine, largest, machines_of, row_cost
from grbench.report.figures.intervals import interval_columns
from grbench.report.rows import mean_of_known

COLUMNS = ("row", "value", "low", "high", "over", "best", "cost", "beside", "hardware", "seeds", "on_front")


@dataclass(frozen=True)
class Cost:
    """A cost that quality is shown against. name: in records; label: in the field's words; unit: of the records'
    values; combine: how the seeds' values become one, as in tables."""

    name: str
    label: str
    unit: str
    combine: Combine = mean_of_known


COSTS = {
    cost.name: cost
    for cost in (
        Cost("train_seconds", "Training time", "s"),
        Cost("train_cpu_seconds", "Training CPU time", "s"),
        Cost("peak_process_bytes", "Peak process memory", "B", largest),
        Cost("peak_gpu_bytes", "Peak GPU memory", "B", largest),
        Cost("search_p50_ms", "Median search latency of a batch", "ms"),
        Cost("search_p99_ms", "99th percentile of a batch's search latency", "ms"),
        Cost("parameters", "Parameters", ""),
    )
}


def pareto_frame(compared: ComparedRows, metric: str | None = None, cost: str = "train_seconds") -> pd.DataFrame:
    """One row for each row of the table that has a score, in the table's order.

    row, value, low, high, over, best: the score by `metric` (None = the first with a value for each user) with its 95 %
    interval, and whether it cannot be told from the best, all as in the table; cost: in the unit of COSTS, NaN where
    there is none (a method that is not trained has no training time) or the seeds ran on different machines; beside:
    whether it was measured while other cells ran; hardware: the machines; seeds: how many are done; on_front: whether
    no row that can be compared with it is at least as good and as cheap, and better in one of the two, by the means.
    Costs of different machines, and those measured beside other cells, are compared among themselves only.

    Raises RunError where there is no such metric or cost.
    """
    metric = compared.metric(metric)
    if cost not in COSTS:
        raise RunError(f"--cost {cut(cost)}: no such cost; there are: {', '.join(COSTS)}")
    records = []
    for row, score in zip(compared.rows, compared.scores([metric])[metric], strict=True):
        if score.mean is None:
            continue
        spent = row_cost(row, cost, COSTS[cost].combine)
        records.append(
            {
                "row": row.name,
                **interval_columns(score.mean, score.estimate),
                "best": score.best,
                "cost": float("nan") if spent.value is None else float(spent.value),
                "beside": bool(spent.mark),
                "hardware": "; ".join(machines_of(row)),
                "seeds": len(row.done),
            }
        )
    frame = pd.DataFrame(records, columns=[*COLUMNS[:-1]])
    sign = 1.0 if compared.higher_is_better(metric) else -1.0
    frame["on_front"] = False
    for _, same in frame[frame["cost"].notna()].groupby(["hardware", "beside"], sort=False):
        frame.loc[same.index, "on_front"] = on_front(sign * same["value"].to_numpy(), same["cost"].to_numpy())
    return frame


def on_front(values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """values, costs: [R] of R rows, higher values and lower costs are better -> [R] bool, whether no row is at least as
    good in both and better in one."""
    as_good = (values[:, None] >= values) & (costs[:, None] <= costs)
    better = (values[:, None] > values) | (costs[:, None] < costs)
    unbeaten: np.ndarray = ~np.any(as_good & better, axis=0)
    return unbeaten
