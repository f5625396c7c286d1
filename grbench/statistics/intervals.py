"""Confidence intervals of a method's mean, and of the difference between two methods, over users and seeds.

The variance of a mean over S seeds and U users is var(user means) / U + var(b) / S, with var(b), that between seeds,
pooled over the methods (`SeedVariance`). Quantiles are Student's with Satterthwaite's degrees of freedom. Where the
pooled variance has too few degrees of freedom, intervals are over users only, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from grbench.statistics.scores import ENOUGH_DEGREES, Scores, SeedVariance

Over = Literal["users and seeds", "users"]


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means. error: its standard error; degrees: Satterthwaite's degrees of freedom; over:
    what the interval stands for; least_p: the smallest p that it can have."""

    value: float
    error: float
    degrees: float
    over: Over
    least_p: float = 0.0

    def half_width(self, level: float = 0.95) -> float:
        """Half the width of the confidence interval."""
        from scipy.stats import t

        return float(t.ppf((1 + level) / 2, self.degrees)) * self.error

    @property
    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the true value is 0."""
        from scipy.stats import t

        if self.error == 0:
            return 1.0 if self.value == 0 else self.least_p
        return max(float(2 * t.sf(abs(self.value) / self.error, self.degrees)), self.least_p)


def interval_of_mean(scores: Scores, seeds: SeedVariance) -> Estimate:
    """The method's mean over users and seeds."""
    return _estimate(scores.by_user, [scores], seeds)


def interval_of_difference(first: Scores, second: Scores, seeds: SeedVariance) -> Estimate:
    """first's mean minus second's, paired over users. Seeds of two methods are independent: that both have a seed 0
    makes no draw of theirs the same.

    Of n users for whom the two differ, the exact sign-flip test gives at least 2 / 2^n, where all differ in one
    direction. Student's t would go below it where n is small, as for a few hits of many users, so p is at least that.
    """
    difference = first.by_user - second.by_user
    least = 2.0 ** (1 - max(int(np.count_nonzero(difference)), 1))
    return replace(_estimate(difference, [first, second], seeds), least_p=least)


def _estimate(by_user: np.ndarray, methods: list[Scores], seeds: SeedVariance) -> Estimate:
    """by_user: [U], each user's value, whose mean is estimated; methods: whose seeds it depends on."""
    users = len(by_user)
    of_users = float(by_user.var(ddof=1)) / users if users > 1 else 0.0
    random = [scores for scores in methods if not scores.is_deterministic]
    if random and seeds.degrees < ENOUGH_DEGREES:
        return Estimate(float(by_user.mean()), of_users**0.5, max(users - 1, 1), "users")
    share = sum(1 / scores.num_seeds for scores in random)
    variance = of_users + seeds.between * share
    parts = [(of_users, users - 1), (seeds.means * share, seeds.degrees)]
    spread = sum(part**2 / degrees for part, degrees in parts if degrees > 0)
    degrees = max(variance**2 / spread, 1.0) if spread > 0 else max(users - 1, 1)
    return Estimate(float(by_user.mean()), variance**0.5, degrees, "users and seeds")
