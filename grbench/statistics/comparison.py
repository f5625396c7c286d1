"""Paired tests of methods against one of them, corrected for their number.

Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979) holds the chance of any false difference in a
column of a table below the level, whatever the dependence between the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grbench.statistics.intervals import Estimate, interval_of_difference
from grbench.statistics.scores import Scores, SeedVariance

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """A method against another one: difference of the means with its interval; p: two-sided, after Holm's correction
    over the methods that were compared; differs: whether it is below the level."""

    difference: Estimate
    p: float

    @property
    def differs(self) -> bool:
        """Whether the difference is significant at LEVEL."""
        return self.p < LEVEL


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p_values [n] -> [n] float64, adjusted so that each can be compared with the level."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def against(reference: str, methods: Mapping[str, Scores], seeds: SeedVariance) -> dict[str, Comparison]:
    """{method: its comparison with `reference`} of all other methods. The columns of all Scores are the same users;
    seeds: pooled over all methods of the table."""
    found = {
        name: interval_of_difference(scores, methods[reference], seeds)
        for name, scores in methods.items()
        if name != reference
    }
    adjusted = holm([difference.p_value for difference in found.values()])
    return {
        name: Comparison(difference, float(p)) for (name, difference), p in zip(found.items(), adjusted, strict=True)
    }


def best_methods(methods: Mapping[str, Scores], seeds: SeedVariance, *, higher_is_better: bool) -> frozenset[str]:
    """The method with the best mean, and those whose difference from it is not significant at LEVEL. seeds: as
    `against` has it."""
    if not methods:
        return frozenset()
    choose = max if higher_is_better else min
    best = choose(methods, key=lambda name: methods[name].mean)
    return frozenset({best}) | {name for name, found in against(best, methods, seeds).items() if not found.differs}


@dataclass(frozen=True)
class UsersWon:
    """Of a paired comparison: how many users have a better, a worse and the same value with the first method."""

    better: int
    worse: int
    same: int


def users_won(first: Scores, second: Scores, *, higher_is_better: bool) -> UsersWon:
    """Counts users by the sign of the difference of their means over seeds."""
    difference = first.by_user - second.by_user if higher_is_better else second.by_user - first.by_user
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    return UsersWon(better, worse, len(difference) - better - worse)
