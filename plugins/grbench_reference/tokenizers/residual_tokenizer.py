"""What tokenizers that quantise item vectors level by level have in common: sources of vectors, collisions, items
without a vector, reports. What differs is how the levels are learnt.

Shapes: N items, n of them with a vector, L levels, K_l codes of level l.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Tokenizer
from grbench.types import Codes
from grbench_reference.codes.collisions import enumerate_codes, number_within_groups, prefix_keys
from grbench_reference.codes.item_vectors import (
    EmbeddingNames,
    EmbeddingVectors,
    ImputedVectors,
    VectorSource,
    check_svd_width,
    project_svd,
    read_vectors_file,
    total_variance,
)
from grbench_reference.codes.quality import code_quality
from grbench_reference.codes.random_k import RandomKCodes, self_neighbours
from grbench_reference.codes.residual_levels import Assignment, Level, ResidualLevels
from grbench_reference.tokenizers.cooccurrence import cooccurrence_vectors, neighbour_means, num_cooccurring
from grbench_reference.tokenizers.kmeans import nearest_to_each

ASSUMED_COLLISIONS = 256
"""Size of the extra level that is assumed before the tokenizer is fitted."""

Source = Literal["embeddings", "cooccurrence", "file"]
Collision = Literal["none", "extra_level", "next_nearest"]
Missing = Literal["own_code", "neighbours"]


class ResidualTokenizer(Tokenizer):
    """Semantic IDs by residual quantisation of item vectors. The options are those of `RQKMeans`."""

    def __init__(
        self,
        *,
        source: Source,
        embeddings: EmbeddingNames,
        vectors: Path | None,
        width: int,
        window: int,
        svd: int | None,
        sizes: Sequence[int],
        collision: Collision,
        missing: Missing,
        random_k: int,
        seed: int,
    ) -> None:
        self.source, self.embeddings, self.vectors_file = source, embeddings, vectors
        self.width, self.window, self.svd, self.sizes = width, window, svd, tuple(sizes)
        self.collision, self.missing, self.random_k, self.seed = collision, missing, random_k, seed
        if (source == "file") != (vectors is not None):
            raise SuiteError("tokenizer.vectors: name an .npy file where source is file, and only there")
        if random_k > min(self.sizes):
            raise SuiteError(f"tokenizer.random_k: {random_k} is more than the {min(self.sizes)} codes of a level")

    @abstractmethod
    def learn(self, vectors: VectorSource) -> tuple[ResidualLevels, dict[str, Any]]:
        """The levels, learnt from the vectors, and what of it goes into the report."""

    @abstractmethod
    def left_by(
        self, levels: ResidualLevels, assigned: Assignment, vectors: VectorSource, items: np.ndarray
    ) -> tuple[float, float]:
        """The sum of the squared distances of the items' vectors from what their codes stand for: with the last level's
        nearest codes, and with the codes as placed. items: [n]."""

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
        levels, learnt = self.learn(vectors)
        assigned = levels.assign(items, next_nearest=self.collision == "next_nearest")
        nearest, placed = self.left_by(levels, assigned, vectors, items)

        others = np.flatnonzero(~vectors.present[1:]) + 1
        own = self._own_codes(len(others))
        sizes = (max(self.sizes[0], int(own[:, 0].max(initial=-1)) + 1), *self.sizes[1:])
        table = np.zeros((catalogue.num_items + 1, len(sizes)), np.int64)
        table[items], table[others] = assigned.codes, own
        if self.collision == "extra_level":
            numbers = number_within_groups(prefix_keys(table[1:], sizes))
            table = np.column_stack([table, np.append(0, numbers)])
            sizes = (*sizes, int(numbers.max()) + 1)
        report = {
            "source": vectors.name,
            "vector_width": vectors.width,
            "items_without_vector": lacking,
            "items_with_vector_of_neighbours": lacking - len(others),
            "relative_residual": nearest / max(variance, 1e-30),
            "relative_residual_as_placed": placed / max(variance, 1e-30),
            **assigned.counts(),
            **learnt,
            "seconds": time.perf_counter() - started,
        }
        fitted_codes = Codes(torch.from_numpy(table), sizes, report)
        report.update(code_quality(fitted_codes, data, vectors=vectors))
        if self.random_k == 1:
            return fitted_codes
        return RandomKCodes(fitted_codes.table, sizes, report, neighbours=self._neighbours(levels.levels, sizes))

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

    def _own_codes(self, count: int) -> np.ndarray:
        """[count, L] codes of items without a vector: one for all where items may share codes, else one for each."""
        if self.collision == "none":
            return np.repeat(enumerate_codes(self.sizes[0], 1, self.sizes), count, axis=0)
        return enumerate_codes(self.sizes[0], count, self.sizes)

    def _neighbours(self, levels: Sequence[Level], sizes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """For each level [K_l, k]: the codes with the nearest centres, for RandomKCodes."""
        tables = []
        for number, size in enumerate(sizes):
            learnt = torch.empty((0, self.random_k), dtype=torch.int64)
            if number < len(levels):
                learnt = torch.from_numpy(nearest_to_each(levels[number].compared, self.random_k))
            tables.append(torch.cat([learnt, self_neighbours(size - len(learnt), self.random_k, len(learnt))]))
        return tuple(tables)
