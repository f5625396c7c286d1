"""Training curves: losses and validation scores of each epoch, by seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from grbench.report.choice import selection_metric
from grbench.report.compared import ComparedRows
from grbench.results.record import Record

COLUMNS = ("row", "seed", "status", "stage", "epoch", "step", "seconds", "name", "value", "validation", "kept")
_NO_VALUES = ("stage", "epoch", "step", "users_per_second", "events_per_second")


def curves_frame(compared: ComparedRows) -> pd.DataFrame:
    """One row for each cell, epoch and value of the epoch, in the table's order; cells that failed have those of their
    epochs that were done.

    row, seed, status: the cell; stage: missing where there is one only; epoch: 1 = the first, counted over all stages;
    step, seconds: updates and seconds of training, without validation, until the end of the epoch (`_places`), NaN
    where the record does not say; name: of a metric, a term of the loss, or `loss`, their weighted sum in the epoch's
    mean; value; validation: whether it is a metric of validation; kept: whether training ended in this epoch's state,
    as the best.

    Losses of different methods are different quantities; validation scores can be compared. Those of rows that were
    not chosen on validation are here too: only their test scores are not shown.
    """
    records: list[dict[str, Any]] = []
    for row in compared.rows:
        for record in row.records:
            places = _places(record)
            best = record.counts.get("best_epoch")
            for epoch, place in zip(record.curve, places, strict=True):
                cell = {"row": row.name, "seed": record.seed, "status": record.status, "stage": epoch.get("stage")}
                records += [
                    {
                        **cell,
                        **place,
                        "name": name,
                        "value": float(value),
                        "validation": name in record.metrics,
                        "kept": best is not None and epoch.get("epoch") == best,
                    }
                    for name, value in epoch.items()
                    if name not in _NO_VALUES and isinstance(value, int | float) and not isinstance(value, bool)
                ]
    return pd.DataFrame(records, columns=list(COLUMNS))


def default_value(compared: ComparedRows) -> str:
    """The metric of validation by which most of the cells' training chose its state; `loss` without validation."""
    chosen = [selection_metric(record) for record in compared.records if record.validation]
    found = pd.Series([metric for metric in chosen if metric], dtype=object)
    return "loss" if found.empty else str(found.mode()[0])


def _places(record: Record) -> list[dict[str, float]]:
    """{epoch, step, seconds} of each row of the record's curve.

    step: where training had a single stage and its steps divide evenly among the epochs. seconds: the clock that rates
    are computed from runs without the first steps, the warm-up, so that at the end of epoch e it is users(e) / rate(e),
    and users(e) is proportional to the steps after the warm-up; what else training took is counted before these steps.
    """
    epochs = np.array([row.get("epoch", place) for place, row in enumerate(record.curve, 1)], np.int64)
    rates = np.array([row.get("users_per_second") for row in record.curve], np.float64)  # None becomes NaN
    step = np.full(len(epochs), np.nan)
    seconds = step.copy()
    steps = record.counts.get("steps_run") or 0
    if steps and len({row.get("stage") for row in record.curve}) == 1 and steps % len(epochs) == 0:
        step = epochs * float(steps // len(epochs))
        train = record.cost.get("phases", {}).get("train", {})
        rate, warm_up = train.get("steps_per_second"), train.get("warm_up_steps", 0)
        if rate and train.get("seconds") and steps > warm_up:
            clock = (steps - warm_up) / rate
            share = np.maximum(step - warm_up, 0) / (steps - warm_up)
            seconds = train["seconds"] - clock + clock * share * rates[-1] / rates
    places = zip(epochs.tolist(), step.tolist(), seconds.tolist(), strict=True)
    return [{"epoch": epoch, "step": at, "seconds": passed} for epoch, at, passed in places]
