"""Residual k-means: the code of each level is the nearest centre to the residual of the item's vector.

The tokenizer of OneRec (Deng et al., arXiv 2502.18965), which the challenge's first and second place used, the second
on vectors reduced by SVD. The collision policy `next_nearest` is the innovation award's (challenge paper, section 7).

Shapes: N items, n of them with a vector, L levels, K_l codes of level l, D width.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from grbench.registry.option_types import DataFile, Seed
from grbench_reference.codes.item_vectors import (
    EmbeddingNames,
    VectorSource,
    in_blocks,
    normalise,
    read_vectors,
    sample_items,
)
from grbench_reference.codes.residual_levels import Assignment, Level, ResidualLevels
from grbench_reference.tokenizers.kmeans import has_gpu, train_kmeans
from grbench_reference.tokenizers.residual_tokenizer import Collision, Missing, ResidualTokenizer, Source


class RQKMeans(ResidualTokenizer):
    """Semantic IDs by residual k-means over item vectors, on all GPUs that Faiss can use, else on the CPU.

    Args:
        source: embeddings = the dataset's content embeddings; cooccurrence = SVD of item co-occurrence (PPMI) in
            training histories; file = an .npy file, such as the tracker item_vectors writes for a trained cell.
        embeddings: which content embeddings; each is scaled to unit length, and they are concatenated.
        vectors: the .npy file for `source: file`: [items + 1, width] in the order of the store, row 0 padding, a row
            of zeros = no vector.
        width: dimensions of the co-occurrence vectors.
        window: largest distance in events at which two items co-occur.
        svd: dimensions that the vectors are reduced to first, as the second place did; null = no reduction.
        sizes: number of codes of each level, first level first.
        normalise_residuals: scale each residual to unit length before the next level.
        iterations: k-means iterations at each level.
        max_points_per_centroid: size of the random sample that k-means is trained on, per code; null = all vectors.
        collision: none = items may share a code; extra_level = one more level numbers the items that share a code;
            next_nearest = the item nearest to the centre keeps the code, the others get the next nearest free code of
            the last level; where a prefix is full, the items farthest from its centre get the next nearest prefix that
            has room (reported as spilled_items). With the last two no items share a code.
        missing: what items without a vector get: own_code = additional first-level codes after the learnt ones, a
            different code for each item (with `collision: none` one code for all); neighbours = the mean vector of
            their neighbours in training histories, or own_code where they have no neighbours.
        random_k: in training, input codes are replaced at random by one of the k codes with the nearest centres; 1 =
            never.
        seed: of k-means, samples and SVD; the same for all cells, whatever the cell's own seed.
    """

    def __init__(
        self,
        *,
        source: Source = "embeddings",
        embeddings: EmbeddingNames = "all",
        vectors: DataFile | None = None,
        width: PositiveInt = 128,
        window: PositiveInt = 5,
        svd: PositiveInt | None = None,
        sizes: Annotated[list[PositiveInt], Field(min_length=1)] = [256, 256, 256],  # noqa: B006 - never modified
        normalise_residuals: bool = False,
        iterations: PositiveInt = 25,
        max_points_per_centroid: PositiveInt | None = 256,
        collision: Collision = "next_nearest",
        missing: Missing = "own_code",
        random_k: PositiveInt = 1,
        seed: Seed = 0,
    ) -> None:
        super().__init__(
            source=source,
            embeddings=embeddings,
            vectors=vectors,
            width=width,
            window=window,
            svd=svd,
            sizes=sizes,
            collision=collision,
            missing=missing,
            random_k=random_k,
            seed=seed,
        )
        self.normalise_residuals = normalise_residuals
        self.iterations, self.max_points_per_centroid = iterations, max_points_per_centroid

    def learn(self, vectors: VectorSource) -> tuple[ResidualLevels, dict[str, Any]]:
        """The k-means of each level, trained on the residuals of a sample of items."""
        limit = self.max_points_per_centroid
        items = sample_items(vectors.present, limit and limit * max(self.sizes), self.seed)
        points = read_vectors(vectors, items)
        levels = []
        for number, size in enumerate(self.sizes):
            if number and self.normalise_residuals:
                normalise(points)
            kmeans = train_kmeans(
                points, size, iterations=self.iterations, seed=self.seed + number, max_points_per_centroid=limit
            )
            levels.append(Level(kmeans.centroids, kmeans.centroids, kmeans.index))
            if number + 1 < len(self.sizes):
                for block in in_blocks(len(points), vectors.width):
                    points[block] -= kmeans.centroids[kmeans.index.search(points[block], 1)[1][:, 0]]
        return ResidualLevels(vectors, levels, normalise_residuals=self.normalise_residuals), {
            "device": "gpu" if has_gpu() else "cpu"
        }

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
