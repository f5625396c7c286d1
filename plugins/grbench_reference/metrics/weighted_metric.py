"""What the weighted metrics share: their options and their name."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt

from grbench.interfaces import Metric
from grbench_reference.metrics.gains import CONVERSION_WEIGHT, Average, metric_name


class WeightedMetric(Metric):
    """A metric whose targets are weighted by action: exposure 0, click 1, conversion alpha.

    Args:
        k: length of the list that is scored.
        alpha: weight of a conversion, where a click has weight 1.
        average: user = all users count the same, as in the paper; weight = a user counts by its targets' weights.
    """

    base_name: ClassVar[str]
    higher_is_better = True

    def __init__(
        self, *, k: PositiveInt, alpha: NonNegativeFloat = CONVERSION_WEIGHT, average: Average = "user"
    ) -> None:
        options = {"alpha": (alpha, CONVERSION_WEIGHT), "average": (average, "user")}
        self.name = metric_name(self.base_name, k, **options)
        self.k, self.alpha, self.average = k, alpha, average
