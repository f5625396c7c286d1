"""Residual k-means: the code of each level is the nearest centre to the residual of the item's vector.

The tokenizer of OneRec (Deng et al., arXiv 2502.18965), which the challenge's first and second place used, the second
on vectors reduced by SVD. The collision policy `next_nearest` is the innovation award's (challenge paper, section 7).

Shapes: N items, n of them with a vector, L levels, K_l codes of level l, D width.
"""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from grbench.data.training_data import TrainingData
from grbench.types import Progress
from grbench_reference.codes.code_levels import Assignment, Level
from grbench_reference.codes.item_vectors import (
    VectorSource,
    in_blocks,
    normalise,
    read_vectors,
    sample_items,
)
from grbench_reference.codes.residual_levels import ResidualLevels
from grbench_reference.tokenizers.kmeans import has_gpu, train_kmeans
from grbench_reference.tokenizers.vector_tokenizer import Learnt, VectorTokenizer, VectorTokenizerOptions


class RQKMeans(VectorTokenizer):
    """Semantic IDs by residual k-means over item vectors, on all GPUs that Faiss can use, else on the CPU.

    Args:
        svd: dimensions that the vectors are reduced to first, as the second place did; null = no reduction.
        normalise_residuals: scale each residual to unit length before the next level.
        iterations: k-means iterations at each level.
        max_points_per_centroid: size of the random sample that k-means is trained on, per code; null = all vectors.
    """

    def __init__(
        self,
        *,
        options: VectorTokenizerOptions = VectorTokenizerOptions(),
        normalise_residuals: bool = False,
        iterations: PositiveInt = 25,
        max_points_per_centroid: PositiveInt | None = 256,
    ) -> None:
        super().__init__(options)
        self.normalise_residuals = normalise_residuals
        self.iterations, self.max_points_per_centroid = iterations, max_points_per_centroid

    def learn(
        self,
        data: TrainingData,  # noqa: ARG002 - the vectors are all that it reads
        vectors: VectorSource,
        progress: Progress,
    ) -> Learnt:
        """The k-means of each level, trained on the residuals of a sample of items."""
        limit = self.max_points_per_centroid
        items = sample_items(vectors.present, limit and limit * max(self.sizes), self.seed)
        points = read_vectors(vectors, items)
        levels = []
        for number, size in enumerate(self.sizes):
            progress("k-means of each level", number, len(self.sizes))
            if number and self.normalise_residuals:
                normalise(points)
            kmeans = train_kmeans(
                points, size, iterations=self.iterations, seed=self.seed + number, max_points_per_centroid=limit
            )
            levels.append(Level(kmeans.centroids, kmeans.centroids, kmeans.index))
            if number + 1 < len(self.sizes):
                for block in in_blocks(len(points), vectors.width):
                    points[block] -= kmeans.centroids[kmeans.index.search(points[block], 1)[1][:, 0]]
        fitted = ResidualLevels(vectors, levels, normalise_residuals=self.normalise_residuals)
        return Learnt(fitted, {"device": "gpu" if has_gpu() else "cpu"})

    def left_by(
        self,
        levels: ResidualLevels,
        assigned: Assignment,
        vectors: VectorSource,  # noqa: ARG002 - they are those of the levels
        items: np.ndarray,
    ) -> tuple[float, float]:
        """What the last level's centres leave of the residuals."""
        scales = levels.scales(assigned.codes, items)
        nearest, placed = assigned.nearest.distances, assigned.placed.distances
        return float((nearest * scales).sum(dtype=np.float64)), float((placed * scales).sum(dtype=np.float64))
