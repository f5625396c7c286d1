"""An estimate's interval as columns of a frame."""

from __future__ import annotations

from typing import Any

from grbench.statistics.intervals import Estimate


def interval_columns(value: float | None, estimate: Estimate | None) -> dict[str, Any]:
    """{value, low, high: the ends of the 95 % interval, NaN where it is not known; over: what the interval is over,
    None where there is none}."""
    mean = float("nan") if value is None else value
    width = float("nan") if estimate is None else estimate.half_width()
    over = None if estimate is None else estimate.over
    return {"value": mean, "low": mean - width, "high": mean + width, "over": over}
