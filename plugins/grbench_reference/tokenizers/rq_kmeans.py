"""Residual k-means: the code of each level is the nearest centre to the residual of the item's vector.

The tokenizer of OneRec (Deng et al., arXiv 2502.18965), which the challenge's first and second place used, the second
on vectors reduced by SVD. The collision policy `next_nearest` is the innovation award's (challenge paper, section 7).

Shapes: N items, n of them with a vector, L levels, K_l codes of level l, D width.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Tokenizer
from grbench.registry.option_types import DataFile, Seed
from grbench.types import Codes
from grbench_reference.codes.collisions import (
    Placement,
    enumerate_codes,
    extend_prefixes,
    number_within_groups,
    place_next_nearest,
    prefix_keys,
)
from grbench_reference.codes.item_vectors import (
    EmbeddingNames,
    EmbeddingVectors,
    ImputedVectors,
    VectorSource,
    check_svd_width,
    in_blocks,
    normalise,
    project_svd,
    read_vectors,
    read_vectors_file,
    sample_items,
    total_variance,
)
from grbench_reference.codes.quality import code_quality
from grbench_reference.codes.random_k import RandomKCodes, self_neighbours
from grbench_reference.kernels.faiss_library import load_faiss
from grbench_reference.tokenizers.cooccurrence import cooccurrence_vectors, neighbour_means, num_cooccurring

faiss = load_faiss("the tokenizer rq_kmeans")

ASSUMED_COLLISIONS = 256
"""Size of the extra level that is assumed before the tokenizer is fitted."""


class RQKMeans(Tokenizer):
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
        source: Literal["embeddings", "cooccurrence", "file"] = "embeddings",
        embeddings: EmbeddingNames = "all",
        vectors: DataFile | None = None,
        width: PositiveInt = 128,
        window: PositiveInt = 5,
        svd: PositiveInt | None = None,
        sizes: Annotated[list[PositiveInt], Field(min_length=1)] = [256, 256, 256],  # noqa: B006 - never modified
        normalise_residuals: bool = False,
        iterations: PositiveInt = 25,
        max_points_per_centroid: PositiveInt | None = 256,
        collision: Literal["none", "extra_level", "next_nearest"] = "next_nearest",
        missing: Literal["own_code", "neighbours"] = "own_code",
        random_k: PositiveInt = 1,
        seed: Seed = 0,
    ) -> None:
        self.source, self.embeddings, self.vectors_file = source, embeddings, vectors
        self.width, self.window, self.svd = width, window, svd
        self.sizes, self.normalise_residuals = tuple(sizes), normalise_residuals
        self.iterations, self.max_points_per_centroid = iterations, max_points_per_centroid
        self.collision, self.missing, self.random_k, self.seed = collision, missing, random_k, seed
        if (source == "file") != (vectors is not None):
            raise SuiteError("tokenizer.vectors: name an .npy file where source is file, and only there")
        if random_k > min(self.sizes):
            raise SuiteError(f"tokenizer.random_k: {random_k} is more than the {min(self.sizes)} codes of a level")

    def fit(self, data: TrainingData) -> Codes:
        """Raises SuiteError where the sizes cannot hold the items, DataError where a vector is not finite."""
        started = time.perf_counter()
        catalogue = data.catalogue
        vectors = self._vectors(data)
        self._check_sizes(int(vectors.present.sum()), catalogue.num_items)
        variance = total_variance(vectors, catalogue)
        if self.svd is not None:
            vectors = project_svd(vectors, self.svd, self.seed)
        lacking = int(catalogue.num_items - vectors.present.sum())
        if self.missing == "neighbours" and lacking:
            vectors = ImputedVectors(vectors, *neighbour_means(data, vectors))
            self._check_sizes(int(vectors.present.sum()), catalogue.num_items)
        if self.svd is not None or self.missing == "neighbours":
            variance = total_variance(vectors, catalogue)
        items = np.flatnonzero(vectors.present)
        levels = self._train(vectors)
        codes, statistics = self._assign(levels, vectors, items, variance)

        others = np.flatnonzero(~vectors.present[1:]) + 1
        own = self._own_codes(len(others))
        sizes = (max(self.sizes[0], int(own[:, 0].max(initial=-1)) + 1), *self.sizes[1:])
        table = np.zeros((catalogue.num_items + 1, len(sizes)), np.int64)
        table[items], table[others] = codes, own
        if self.collision == "extra_level":
            numbers = number_within_groups(prefix_keys(table[1:], sizes))
            table = np.column_stack([table, np.append(0, numbers)])
            sizes = (*sizes, int(numbers.max()) + 1)
        report = {
            "source": vectors.name,
            "vector_width": vectors.width,
            "items_without_vector": lacking,
            "items_with_vector_of_neighbours": lacking - len(others),
            **statistics,
            "device": "gpu" if faiss.get_num_gpus() else "cpu",
            "seconds": time.perf_counter() - started,
        }
        fitted_codes = Codes(torch.from_numpy(table), sizes, report)
        report.update(code_quality(fitted_codes, data, vectors=vectors))
        if self.random_k == 1:
            return fitted_codes
        return RandomKCodes(fitted_codes.table, sizes, report, neighbours=self._neighbours(levels, sizes))

    def stand_in(self, data: TrainingData) -> Codes:
        """Random codes of the shape that `fit` gives, except that the size of an extra level is assumed.

        Raises SuiteError where the sizes cannot hold the items, as far as it is known before fitting which items have a
        vector, DataError where a vector of the file is not finite.
        """
        if self.source == "cooccurrence":
            self._check_sizes(num_cooccurring(data, self.width), data.catalogue.num_items)
        else:
            vectors = self._vectors(data)
            check_svd_width(vectors, self.svd)
            if self.missing != "neighbours":
                self._check_sizes(int(vectors.present.sum()), data.catalogue.num_items)
            if self.source == "file":  # a dataset's vectors were checked when its store was built
                total_variance(vectors, data.catalogue)
        sizes = (*self.sizes, ASSUMED_COLLISIONS) if self.collision == "extra_level" else self.sizes
        rows = data.catalogue.num_items + 1
        table = torch.stack([torch.randint(size, (rows,)) for size in sizes], dim=1)
        table[0] = 0
        return Codes(table, sizes)

    def _vectors(self, data: TrainingData) -> VectorSource:
        if self.source == "embeddings":
            return EmbeddingVectors(data.catalogue, self.embeddings)
        if self.source == "cooccurrence":
            return cooccurrence_vectors(data, width=self.width, window=self.window, seed=self.seed)
        assert self.vectors_file is not None
        return read_vectors_file(self.vectors_file, data.catalogue.num_items)

    def _check_sizes(self, with_vector: int, num_items: int) -> None:
        """Raises SuiteError unless `with_vector` of `num_items` items suffice for k-means, and each can have a code of
        its own where `next_nearest` is to give it one."""
        shape, capacity = " x ".join(map(str, self.sizes)), math.prod(self.sizes)
        if with_vector < max(self.sizes):
            raise SuiteError(
                f"tokenizer.sizes: a level of {max(self.sizes)} codes cannot be learnt from the {with_vector} items "
                f"(of {num_items}) that have a vector; make its levels smaller"
            )
        if capacity < with_vector and self.collision == "next_nearest":
            raise SuiteError(
                f"tokenizer.sizes: {shape} makes {capacity} codes, and collision: next_nearest gives each of the "
                f"{with_vector} items with a vector its own; make levels larger, add a level, or set collision: "
                "extra_level or none"
            )

    def _train(self, vectors: VectorSource) -> list[Any]:
        """The k-means of each level, trained on the residuals of a sample of items."""
        limit = self.max_points_per_centroid
        items = sample_items(vectors.present, limit and limit * max(self.sizes), self.seed)
        points = read_vectors(vectors, items)
        levels = []
        for level, size in enumerate(self.sizes):
            if level and self.normalise_residuals:
                normalise(points)
            kmeans = faiss.Kmeans(
                vectors.width,
                size,
                niter=self.iterations,
                seed=(self.seed + level) % 2**31,  # Faiss takes no larger one
                gpu=faiss.get_num_gpus() > 0,
                min_points_per_centroid=1,  # else Faiss warns on stdout below 39
                max_points_per_centroid=limit or len(items),
            )
            kmeans.train(points)
            levels.append(kmeans)
            if level + 1 < len(self.sizes):
                for block in in_blocks(len(points), vectors.width):
                    points[block] -= kmeans.centroids[kmeans.index.search(points[block], 1)[1][:, 0]]
        return levels

    def _assign(
        self, levels: list[Any], vectors: VectorSource, items: np.ndarray, variance: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """[n, L] codes, level by level over all items in blocks, and statistics for the report."""
        codes = np.zeros((len(items), len(levels)), np.int64)
        prefixes = np.zeros(len(items), np.int64)
        spilled = np.zeros(len(items), bool)
        for level, kmeans in enumerate(levels):
            nearest = self._nearest_centres(levels, level, codes, vectors, items)
            placed = nearest
            if self.collision == "next_nearest":

                def residuals(rows: np.ndarray, level: int = level) -> np.ndarray:
                    return self._residuals(levels, level, codes[rows], vectors, items[rows])[0]

                capacity = math.prod(self.sizes[level + 1 :])
                placed = place_next_nearest(prefixes, nearest, kmeans.centroids, residuals, capacity=capacity)
            codes[:, level] = placed.codes
            if level + 1 < len(levels):
                spilled |= placed.moved
                prefixes = extend_prefixes(prefixes, placed.codes, self.sizes[level])
        scales = self._scales(levels, codes, vectors, items)
        return codes, {
            "relative_residual": float((nearest.distances * scales).sum(dtype=np.float64)) / max(variance, 1e-30),
            "relative_residual_as_placed": float((placed.distances * scales).sum(dtype=np.float64))
            / max(variance, 1e-30),
            "moved_items": int((placed.moved & ~spilled).sum()),
            "spilled_items": int(spilled.sum()),
        }

    def _nearest_centres(
        self, levels: list[Any], level: int, codes: np.ndarray, vectors: VectorSource, items: np.ndarray
    ) -> Placement:
        """Each item's nearest centre at `level`. codes: [n, L], those of the levels before are set."""
        nearest, distances = np.empty(len(items), np.int64), np.empty(len(items), np.float32)
        for block in in_blocks(len(items), vectors.width):
            residuals, _ = self._residuals(levels, level, codes[block], vectors, items[block])
            found_distances, found = levels[level].index.search(residuals, 1)
            nearest[block], distances[block] = found[:, 0], np.maximum(found_distances[:, 0], 0)
        return Placement(nearest, distances, moved=np.zeros(len(items), bool))

    def _residuals(
        self, levels: list[Any], level: int, codes: np.ndarray, vectors: VectorSource, items: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The residuals before `level` [n, D], and the factor by which they were shortened by normalisation [n]."""
        residuals = vectors.rows(items)
        scales = np.ones(len(items), np.float32)
        for earlier in range(level):
            residuals -= levels[earlier].centroids[codes[:, earlier]]
            if self.normalise_residuals:
                scales *= normalise(residuals)[:, 0]
        return residuals, scales

    def _scales(
        self, levels: list[Any], codes: np.ndarray, vectors: VectorSource, items: np.ndarray
    ) -> np.ndarray | float:
        """[n], the factor that converts squared distances at the last level to the scale of the vectors."""
        if not self.normalise_residuals:
            return 1.0
        scales = np.empty(len(items), np.float32)
        for block in in_blocks(len(items), vectors.width):
            scales[block] = self._residuals(levels, len(levels) - 1, codes[block], vectors, items[block])[1]
        return scales**2

    def _own_codes(self, count: int) -> np.ndarray:
        """[count, L] codes of items without a vector: one for all where items may share codes, else one for each."""
        if self.collision == "none":
            return np.repeat(enumerate_codes(self.sizes[0], 1, self.sizes), count, axis=0)
        return enumerate_codes(self.sizes[0], count, self.sizes)

    def _neighbours(self, levels: list[Any], sizes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """For each level [K_l, k]: the codes with the nearest centres, for RandomKCodes."""
        tables = []
        for level, size in enumerate(sizes):
            learnt = torch.empty((0, self.random_k), dtype=torch.int64)
            if level < len(levels):
                centres = levels[level].centroids
                index = faiss.IndexFlatL2(centres.shape[1])
                index.add(centres)
                learnt = torch.from_numpy(index.search(centres, self.random_k)[1])
            tables.append(torch.cat([learnt, self_neighbours(size - len(learnt), self.random_k, len(learnt))]))
        return tuple(tables)
