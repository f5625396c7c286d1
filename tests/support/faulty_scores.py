"""Metrics and slices with one fault each."""

from __future__ import annotations

import numpy as np
from faulty_parts import fails

from grbench.interfaces import Slice
from grbench.testing.checks.plain_parts import PlainMetric

# --- metrics


@fails("metrics", "interface")
class NameWithoutK(PlainMetric):
    def __init__(self, *, k: int = 5) -> None:
        super().__init__(k=k)
        self.name = "hits"


@fails("metrics", "one_value_a_query")
class Mean(PlainMetric):
    def __call__(self, ranking):
        return super().__call__(ranking).mean()


@fails("metrics", "no_queries")
class DividesByTheLargest(PlainMetric):
    def __call__(self, ranking):
        return super().__call__(ranking) / max(1, ranking.ranks.max())


@fails("metrics", "lists_that_are_not_full")
class MeanScore(PlainMetric):
    def __call__(self, ranking):
        return super().__call__(ranking) + ranking.scores[:, : self.k].mean(1)


@fails("metrics", "several_targets")
class FirstTargetOnly(PlainMetric):
    def __call__(self, ranking):
        return 1.0 * ((ranking.ranks > 0) & (ranking.ranks <= self.k)).reshape(-1)


@fails("metrics", "worst_case")
class RankIsZero(PlainMetric):
    def __call__(self, ranking):
        return 1.0 * (ranking.ranks <= self.k).any(axis=1)


@fails("metrics", "perfect_case")
class FromZero(PlainMetric):
    def __call__(self, ranking):
        return 1.0 * ((ranking.ranks > 1) & (ranking.ranks <= self.k)).any(axis=1)


@fails("metrics", "earlier_is_not_worse")
class LikesTheThird(PlainMetric):
    def __call__(self, ranking):
        return (
            super().__call__(ranking) + 0.5 * (ranking.ranks == 3).any(axis=1) - 0.5 * (ranking.ranks == 2).any(axis=1)
        )


@fails("metrics", "only_the_first_k_count")
class WholeList(PlainMetric):
    def __call__(self, ranking):
        return 1.0 * (ranking.ranks > 0).any(axis=1)


@fails("metrics", "a_query_alone")
class ShareOfAll(PlainMetric):
    def __call__(self, ranking):
        hits = super().__call__(ranking)
        return hits / max(hits.sum(), 1)


@fails("metrics", "pure")
class SortsTheLists(PlainMetric):
    def __call__(self, ranking):
        ranking.items.sort(axis=1)
        return super().__call__(ranking)


# --- slices


class Parity(Slice):
    """Whether the history has an even number of events."""

    name = "parity"

    def __call__(self, ranking):
        return np.where(ranking.history_lengths % 2, "odd", "even")

    def order(self, ranking):
        return ("even", "odd")


@fails("slices", "interface")
class NameWithSpaces(Parity):
    name = "parity of the history"


@fails("slices", "one_group_a_query")
class Numbers(Parity):
    def __call__(self, ranking):
        return ranking.history_lengths % 2


@fails("slices", "lists_have_no_influence")
class ByRank(Parity):
    def __call__(self, ranking):
        return np.where(ranking.ranks[:, 0] > 0, "odd", "even")


@fails("slices", "a_query_alone")
class ByPlace(Parity):
    def __call__(self, ranking):
        return np.where(np.arange(len(ranking.users)) % 4 < 2, "odd", "even")


@fails("slices", "order_names_every_group")
class NamesOne(Parity):
    def order(self, ranking):
        return ("even",)


@fails("slices", "unknown_is_no_error")
class TakesTimesForGranted(Parity):
    def __call__(self, ranking):
        return np.where(ranking.target_times[:, 0] % 2, "odd", "even")


@fails("slices", "no_queries")
class DividesByAll(Parity):
    def __call__(self, ranking):
        return np.where(ranking.history_lengths % 2 + 0 * ranking.history_lengths.max(), "odd", "even")


@fails("slices", "pure")
class SortsTargets(Parity):
    def __call__(self, ranking):
        ranking.targets.sort(axis=0)
        return super().__call__(ranking)
