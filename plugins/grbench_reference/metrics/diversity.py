"""Diversity@K: how unlike each other the items of a list are (intra-list diversity; Ziegler, McNee, Konstan and Lausen,
WWW 2005; as a mean of distances, Castells, Hurley and Vargas, Recommender Systems Handbook, 2nd edition).

Shapes: Q queries, K list length, n pairs of items.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Metric
from grbench.types import Ranking
from grbench_reference.metrics.dissimilarity import CoOccurrence, Dissimilarity, EmbeddingDistance, FeatureDistance
from grbench_reference.metrics.gains import metric_name, ratio, require_length

PAIRS_AT_ONCE = 1 << 15


class Diversity(Metric):
    """The mean dissimilarity of all pairs of the first k items.

    Items are compared by their categorical features (1 - the Jaccard index of their values), by a content embedding
    (1 - cosine), or by the training users they share (1 - |both| / sqrt(|one| |other|), the cosine of their columns in
    the matrix of users and items), which every dataset has. An item of which nothing is known there is left out with
    its pairs; a list with fewer than two known items gets 0.

    Args:
        k: length of the list that is scored.
        by: features = by the items' categorical features; embedding = by a content embedding; cooccurrence = by the
            training users that items share.
        features: with `by: features`, the features to compare; null = all.
        embedding: with `by: embedding`, its name; null = the dataset's only one.
    """

    higher_is_better = True

    def __init__(
        self,
        *,
        k: Annotated[int, Field(ge=2)],
        by: Literal["features", "embedding", "cooccurrence"] = "features",
        features: list[str] | None = None,
        embedding: str | None = None,
    ) -> None:
        chosen = "+".join(features or [])
        options = {"by": (by, "features"), "features": (chosen, ""), "embedding": (embedding, None)}
        self.name = metric_name("diversity", k, **options)
        for option, value in (("features", features), ("embedding", embedding)):
            if value is not None and by != option:
                raise SuiteError(f"metrics: {self.name}: {option}: has an effect with by: {option} only")
        self.k, self.by, self.features, self.embedding = k, by, features, embedding
        self._known: tuple[TrainingData, Dissimilarity] | None = None

    def __call__(self, ranking: Ranking) -> np.ndarray:
        """-> [Q] float64; 0 to 1 by features or users, 0 to 2 by an embedding. Raises DataError where the dataset lacks
        what items are compared by."""
        require_length(ranking, self.k, self.name)
        compare, items = self._dissimilarity(ranking.training), ranking.items[:, : self.k]
        rows = max(1, PAIRS_AT_ONCE // self.k)
        parts = [_mean_over_pairs(items[first : first + rows], compare) for first in range(0, len(items), rows)]
        return np.concatenate([np.zeros(0), *parts])

    def _dissimilarity(self, training: TrainingData) -> Dissimilarity:
        """Kept, because validation asks for that of the same training data again."""
        if self._known is None or self._known[0] is not training:
            found: Dissimilarity
            if self.by == "features":
                found = FeatureDistance(training.catalogue, self.features, self.name)
            elif self.by == "embedding":
                found = EmbeddingDistance(training.catalogue, self.embedding, self.name)
            else:
                found = CoOccurrence(training)
            self._known = training, found
        return self._known[1]


def _mean_over_pairs(items: np.ndarray, compare: Dissimilarity) -> np.ndarray:
    """items [Q, K] -> [Q], the mean over the pairs of known items in a list, 0 where there is none."""
    total, pairs = np.zeros(len(items)), np.zeros(len(items))
    for distance in range(1, items.shape[1]):  # of the two places in the list
        one, other = items[:, :-distance], items[:, distance:]
        values, known = compare(one.ravel(), other.ravel())
        known &= (one.ravel() > 0) & (other.ravel() > 0)
        total += np.where(known, values, 0.0).reshape(one.shape).sum(axis=1)
        pairs += known.reshape(one.shape).sum(axis=1)
    return ratio(total, pairs)
