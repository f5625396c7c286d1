"""Residual k-means: each level's code is the centre nearest to what the levels before have left of an item's vector.

OneRec's tokenizer (Deng et al. 2025), which the challenge's first and second place used, the second on reduced vectors;
the innovation award's `next_nearest` against shared codes (paper, section 7).

Shapes: N items, n of them with a vector, L levels, K_l codes of level l, D width.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Tokenizer
from grbench.registry.option_types import DataFile
from grbench.types import Codes
from grbench_reference.codes.collisions import Placement, count_out, number_within, place, prefix_keys
from grbench_reference.codes.item_vectors import (
    EmbeddingNames,
    EmbeddingVectors,
    FilledVectors,
    VectorSource,
    check_and_measure,
    check_width,
    in_blocks,
    read_rows,
    read_vectors_file,
    reduce_width,
    sample_items,
)
from grbench_reference.codes.quality import inspect
from grbench_reference.codes.random_k import RandomKCodes, only_itself
from grbench_reference.kernels.faiss_library import load_faiss
from grbench_reference.tokenizers.cooccurrence import cooccurrence_vectors, neighbour_means, num_cooccurring

faiss = load_faiss("the tokenizer rq_kmeans")

SHARING = 256
"""Items taken to share a code at most, before it is known."""


class RQKMeans(Tokenizer):
    """Semantic ids by residual k-means over item vectors, on every GPU that Faiss sees, else on the CPU.

    Args:
        source: embeddings = the dataset's content embeddings; cooccurrence = singular vectors of which items stand
            together in training histories; file = an .npy file, such as the tracker item_vectors writes of a trained
            cell.
        embeddings: which content embeddings, each made unit length and put side by side.
        vectors: the .npy file of `source: file`: [items + 1, width] in the order of the store, row 0 padding, a row
            of zeros = no vector.
        width: dimensions of the co-occurrence vectors.
        window: how many events apart two items may stand to count as together.
        svd: dimensions that the vectors are reduced to first (the second place's); null keeps them all.
        sizes: codes of each level, the first level's first.
        normalise_residuals: what a level leaves of each vector is made unit length before the next level.
        iterations: of k-means, at each level.
        max_points_per_centroid: k-means learns from at most so many vectors a code, drawn at random; null = from all.
        collision: none = items may share a code; extra_level = a further level numbers the items that share one;
            next_nearest = the nearest keeps the code, the others take the next nearest free one of the last level;
            where a prefix is full, those farthest from it take the next nearest prefix that is not (counted as
            spilled). Neither of the last two leaves a shared code.
        missing: items without a vector. own_code = first-level codes of their own, behind the learnt ones (as many as
            it takes to number them, one for all with `collision: none`); neighbours = the mean vector of the items
            next to them in training histories, own_code for those that have none there either.
        random_k: in training, codes read may be replaced by one of the k whose centres are nearest (1 = never).
        seed: of k-means, samples and singular vectors; the same for every cell, whatever the cell's own seed.
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
        sizes: Annotated[list[PositiveInt], Field(min_length=1)] = [256, 256, 256],  # noqa: B006 - read, never written
        normalise_residuals: bool = False,
        iterations: PositiveInt = 25,
        max_points_per_centroid: PositiveInt | None = 256,
        collision: Literal["none", "extra_level", "next_nearest"] = "next_nearest",
        missing: Literal["own_code", "neighbours"] = "own_code",
        random_k: PositiveInt = 1,
        seed: NonNegativeInt = 0,
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
        """Raises SuiteError where the sizes cannot hold the items, DataError where a vector holds NaN."""
        started = time.perf_counter()
        catalogue = data.catalogue
        vectors = self._vectors(data)
        self._check_sizes(int(vectors.present.sum()), catalogue.num_items)
        variance = check_and_measure(vectors, catalogue)
        if self.svd is not None:
            vectors = reduce_width(vectors, self.svd, self.seed)
        lacking = int(catalogue.num_items - vectors.present.sum())
        if self.missing == "neighbours" and lacking:
            vectors = FilledVectors(vectors, *neighbour_means(data, vectors))
            self._check_sizes(int(vectors.present.sum()), catalogue.num_items)
        if self.svd is not None or self.missing == "neighbours":
            variance = check_and_measure(vectors, catalogue)
        items = np.flatnonzero(vectors.present)
        levels = self._train(vectors)
        codes, fitted = self._assign(levels, vectors, items, variance)

        others = np.flatnonzero(~vectors.present[1:]) + 1
        own = self._codes_of_their_own(len(others))
        sizes = (max(self.sizes[0], int(own[:, 0].max(initial=-1)) + 1), *self.sizes[1:])
        table = np.zeros((catalogue.num_items + 1, len(sizes)), np.int64)
        table[items], table[others] = codes, own
        if self.collision == "extra_level":
            numbers = number_within(prefix_keys(table[1:], sizes))
            table = np.column_stack([table, np.append(0, numbers)])
            sizes = (*sizes, int(numbers.max()) + 1)
        report = {
            "source": vectors.name,
            "vector_width": vectors.width,
            "items_without_vector": lacking,
            "items_with_vector_of_neighbours": lacking - len(others),
            **fitted,
            "device": "gpu" if faiss.get_num_gpus() else "cpu",
            "seconds": time.perf_counter() - started,
        }
        made = Codes(torch.from_numpy(table), sizes, report)
        report.update(inspect(made, data, vectors=vectors))
        if self.random_k == 1:
            return made
        return RandomKCodes(made.table, made.sizes, made.report, neighbours=self._neighbours(levels, sizes))

    def stand_in(self, data: TrainingData) -> Codes:
        """Codes drawn at random: learnt ones have the same shape, but for how many items share one.

        Raises SuiteError where the sizes cannot hold the items, as far as it is known which of them have a vector,
        DataError where a vector of the file holds NaN.
        """
        if self.source == "cooccurrence":
            self._check_sizes(num_cooccurring(data, self.width), data.catalogue.num_items)
        else:
            vectors = self._vectors(data)
            check_width(vectors, self.svd)
            if self.missing != "neighbours":
                self._check_sizes(int(vectors.present.sum()), data.catalogue.num_items)
            if self.source == "file":  # a dataset's own vectors were looked at when its store was made
                check_and_measure(vectors, data.catalogue)
        sizes = (*self.sizes, SHARING) if self.collision == "extra_level" else self.sizes
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
        shape, room = " x ".join(map(str, self.sizes)), math.prod(self.sizes)
        if with_vector < max(self.sizes):
            raise SuiteError(
                f"tokenizer.sizes: a level of {max(self.sizes)} codes cannot be learnt from the {with_vector} items "
                f"(of {num_items}) that have a vector; make its levels smaller"
            )
        if room < with_vector and self.collision != "extra_level":
            raise SuiteError(
                f"tokenizer.sizes: {shape} makes {room} codes, which cannot hold the {with_vector} items that have a "
                "vector; make levels larger or add one, or number those that share a code with collision: extra_level"
            )

    def _train(self, vectors: VectorSource) -> list[Any]:
        """The k-means of each level, learnt from what the levels before leave of a sample."""
        limit = self.max_points_per_centroid
        items = sample_items(vectors.present, limit and limit * max(self.sizes), self.seed)
        points = read_rows(vectors, items)
        levels = []
        for level, size in enumerate(self.sizes):
            if level and self.normalise_residuals:
                _normalise(points)
            kmeans = faiss.Kmeans(
                vectors.width,
                size,
                niter=self.iterations,
                seed=self.seed + level,
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
        """[n, L] codes, level by level over all items in blocks, and what the report says of them."""
        codes = np.zeros((len(items), len(levels)), np.int64)
        prefixes = np.zeros(len(items), np.int64)
        spilled = np.zeros(len(items), bool)
        for level, kmeans in enumerate(levels):
            nearest = self._nearest(levels, level, codes, vectors, items)
            placed = nearest
            if self.collision == "next_nearest":

                def residuals(rows: np.ndarray, level: int = level) -> np.ndarray:
                    return self._residuals(levels, level, codes[rows], vectors, items[rows])[0]

                room = math.prod(self.sizes[level + 1 :])
                placed = place(prefixes, nearest, kmeans.centroids, residuals, capacity=room)
            codes[:, level] = placed.codes
            if level + 1 < len(levels):
                spilled |= placed.moved
                prefixes = np.unique(prefixes * self.sizes[level] + placed.codes, return_inverse=True)[1]
        scales = self._scales(levels, codes, vectors, items)
        return codes, {
            "relative_residual": float((nearest.distances * scales).sum(dtype=np.float64)) / max(variance, 1e-30),
            "relative_residual_as_placed": float((placed.distances * scales).sum(dtype=np.float64))
            / max(variance, 1e-30),
            "moved_items": int((placed.moved & ~spilled).sum()),
            "spilled_items": int(spilled.sum()),
        }

    def _nearest(
        self, levels: list[Any], level: int, codes: np.ndarray, vectors: VectorSource, items: np.ndarray
    ) -> Placement:
        codes_of, distances_of = np.empty(len(items), np.int64), np.empty(len(items), np.float32)
        for block in in_blocks(len(items), vectors.width):
            left, _ = self._residuals(levels, level, codes[block], vectors, items[block])
            distances, found = levels[level].index.search(left, 1)
            codes_of[block], distances_of[block] = found[:, 0], np.maximum(distances[:, 0], 0)
        return Placement(codes_of, distances_of, moved=np.zeros(len(items), bool))

    def _residuals(
        self, levels: list[Any], level: int, codes: np.ndarray, vectors: VectorSource, items: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is left of the vectors before `level` [n, D], and by how much it was shortened to unit length [n]."""
        left = vectors.rows(items)
        scales = np.ones(len(items), np.float32)
        for earlier in range(level):
            left -= levels[earlier].centroids[codes[:, earlier]]
            if self.normalise_residuals:
                scales *= _normalise(left)
        return left, scales

    def _scales(
        self, levels: list[Any], codes: np.ndarray, vectors: VectorSource, items: np.ndarray
    ) -> np.ndarray | float:
        """What squared distances at the last level are multiplied by to be those of the vectors themselves."""
        if not self.normalise_residuals:
            return 1.0
        scales = np.empty(len(items), np.float32)
        for block in in_blocks(len(items), vectors.width):
            scales[block] = self._residuals(levels, len(levels) - 1, codes[block], vectors, items[block])[1]
        return scales**2

    def _codes_of_their_own(self, count: int) -> np.ndarray:
        """[count, L] codes of items without a vector: one for all where codes may be shared, else one each."""
        if self.collision == "none":
            return np.repeat(count_out(self.sizes[0], 1, self.sizes), count, axis=0)
        return count_out(self.sizes[0], count, self.sizes)

    def _neighbours(self, levels: list[Any], sizes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        tables = []
        for level, size in enumerate(sizes):
            learnt = torch.empty((0, self.random_k), dtype=torch.int64)
            if level < len(levels):
                centres = levels[level].centroids
                index = faiss.IndexFlatL2(centres.shape[1])
                index.add(centres)
                learnt = torch.from_numpy(index.search(centres, self.random_k)[1])
            tables.append(torch.cat([learnt, only_itself(size - len(learnt), self.random_k, len(learnt))]))
        return tuple(tables)


def _normalise(rows: np.ndarray) -> np.ndarray:
    """Makes rows [n, D] unit length, in place; returns their lengths [n]. A row of zeros stays."""
    lengths: np.ndarray = np.linalg.norm(rows, axis=1)
    np.divide(rows, lengths[:, None], out=rows, where=lengths[:, None] > 0)
    return lengths
