"""What the metrics share: which targets are in the list, how much each is worth, how ranks are discounted.

Shapes: Q queries, G targets a query, K list length. The formulas are those of the challenge paper, section 6.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from grbench.errors import DataError, RunError, SuiteError
from grbench.types import FIRST_ACTION, Ranking

Average = Literal["user", "weight"]

CONVERSION_WEIGHT = 2.5
"""The paper's alpha: what a conversion is worth when a click is worth 1."""


def metric_name(base: str, k: int, **options: tuple[object, object]) -> str:
    """`ndcg@10`, followed by each option that is not at its default: options are (value, default) pairs."""
    if k < 1:
        raise SuiteError(f"metrics: {base}@{k}: k must be at least 1")
    changed = [f",{key}={value}" for key, (value, default) in options.items() if value != default]
    return f"{base}@{k}" + "".join(changed)


def found(ranking: Ranking, k: int, name: str) -> np.ndarray:
    """[Q, G] bool: the target is among the first k. Raises RunError where the lists are shorter than k."""
    held = ranking.items.shape[1]
    if k > held:
        raise RunError(f"{name}: the ranking holds {held} items a query, which is too few; rank again with k={k}")
    return (ranking.targets > 0) & (ranking.ranks > 0) & (ranking.ranks <= k)


def discounts(ranks: np.ndarray) -> np.ndarray:
    """1 / log2(rank + 1), the same shape; rank 0 (not in the list) gives 0."""
    discounted = np.zeros(ranks.shape)
    np.divide(1.0, np.log2(ranks + 1.0), out=discounted, where=ranks > 0)
    return discounted


def ideal_gain(weights: np.ndarray, k: int) -> np.ndarray:
    """[Q]: the discounted gain when the min(k, G) heaviest targets lead the list. weights: [Q, G], 0 = no target."""
    heaviest = -np.sort(-weights, axis=1)[:, :k]
    return np.asarray(heaviest @ discounts(np.arange(1, heaviest.shape[1] + 1)))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0."""
    shares = np.zeros(whole.shape)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def equal_weights(ranking: Ranking) -> np.ndarray:
    """[Q, G] float64: 1 for each target."""
    return (ranking.targets > 0).astype(np.float64)


def action_weights(ranking: Ranking, alpha: float, name: str) -> np.ndarray:
    """[Q, G] float64: exposure 0, click 1, conversion alpha; a null action is worth 0, as an exposure is.

    Raises DataError where the dataset's actions are others than these: no one has said what they are worth.
    """
    known = {"exposure": 0.0, "click": 1.0, "conversion": alpha}
    unknown = [action for action in ranking.actions if action not in known]
    if unknown or not {"click", "conversion"} & set(ranking.actions):
        has = ", ".join(ranking.actions) or "none"
        raise DataError(
            f"{name}: weights are defined for the actions exposure, click and conversion, and this dataset's actions "
            f"are: {has}; use the metric without weights"
        )
    by_token = np.array([0.0] * FIRST_ACTION + [known[action] for action in ranking.actions])
    return np.where(ranking.targets > 0, by_token[ranking.target_actions], 0.0)


def averaged(values: np.ndarray, weights: np.ndarray, average: Average) -> np.ndarray:
    """The value each query adds to the mean. values: [Q], each normalised to 0..1; weights: [Q, G].

    user: the paper's: every query counts the same. weight: a query counts as much as its targets weigh, by
    value * weight * Q / (sum of all weights), so that the plain mean over queries is the weighted one.
    """
    if average == "user":
        return values
    mass = weights.sum(axis=1)
    return share(values * mass * len(mass), np.full(len(mass), mass.sum()))
