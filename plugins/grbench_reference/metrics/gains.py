"""What the metrics share: hits, weights of targets, discounts of ranks.

Shapes: Q queries, G targets a query, K list length. The formulas are those of the challenge paper, section 6.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from grbench.errors import DataError, RunError, SuiteError
from grbench.types import FIRST_ACTION, Ranking

Average = Literal["user", "weight"]

CONVERSION_WEIGHT = 2.5
"""The paper's alpha: the weight of a conversion, where a click has weight 1."""


def metric_name(base: str, k: int, **options: tuple[object, object]) -> str:
    """`ndcg@10`, followed by the options that differ from their default. options: (value, default) by name."""
    if k < 1:
        raise SuiteError(f"metrics: {base}@{k}: k must be at least 1")
    changed = [f",{key}={value}" for key, (value, default) in options.items() if value != default]
    return f"{base}@{k}" + "".join(changed)


def hits(ranking: Ranking, k: int, name: str) -> np.ndarray:
    """[Q, G] bool: the target is among the first k. Raises RunError where the lists are shorter than k."""
    require_length(ranking, k, name)
    return (ranking.targets > 0) & (ranking.ranks > 0) & (ranking.ranks <= k)


def require_length(ranking: Ranking, k: int, name: str) -> None:
    """Raises RunError where the ranking's lists are shorter than k."""
    length = ranking.items.shape[1]
    if k > length:
        raise RunError(f"{name}: the ranking has {length} items per query, which is too few; rank again with k={k}")


def discounts(ranks: np.ndarray) -> np.ndarray:
    """1 / log2(rank + 1), of the same shape; 0 for rank 0 (not in the list)."""
    discounted = np.zeros(ranks.shape)
    np.divide(1.0, np.log2(ranks + 1.0), out=discounted, where=ranks > 0)
    return discounted


def ideal_gain(weights: np.ndarray, k: int) -> np.ndarray:
    """[Q]: the discounted gain of the ideal list, which starts with the min(k, G) targets of the largest weights.
    weights: [Q, G], 0 = no target."""
    heaviest = -np.sort(-weights, axis=1)[:, :k]
    return np.asarray(heaviest @ discounts(np.arange(1, heaviest.shape[1] + 1)))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 0 where the whole is 0."""
    shares = np.zeros(whole.shape)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def equal_weights(ranking: Ranking) -> np.ndarray:
    """[Q, G] float64: 1 for each target."""
    return (ranking.targets > 0).astype(np.float64)


def action_weights(ranking: Ranking, alpha: float, name: str) -> np.ndarray:
    """[Q, G] float64: exposure 0, click 1, conversion alpha; a target without an action 0.

    Raises DataError where the dataset has other actions, for which no weights are defined.
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
    """[Q] values whose plain mean is the chosen average. values: [Q], each normalised to 0..1; weights: [Q, G].

    user: all queries count the same, as in the paper. weight: a query counts by the sum of its targets' weights: its
    value becomes value * weight * Q / (sum of all weights).
    """
    if average == "user":
        return values
    mass = weights.sum(axis=1)
    return ratio(values * mass * len(mass), np.full(len(mass), mass.sum()))
