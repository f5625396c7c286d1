"""What tokenizers that give codes to item vectors level by level have in common: sources of vectors, collisions, items
without a vector, reports. What differs is how the levels are learnt.

Shapes: N items, n of them with a vector, L levels, K_l codes of level l.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from grbench.data.store_writer import no_progress
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Tokenizer
from grbench.registry.option_types import DataFile, OptionGroup, Seed
from grbench.types import Codes, Progress
from grbench_reference.codes.code_levels import Assignment, CodeLevels, Level
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
from grbench_reference.codes.random_k import as_tensors, self_neighbours
from grbench_reference.tokenizers.cooccurrence import cooccurrence_vectors, neighbour_means, num_cooccurring
from grbench_reference.tokenizers.kmeans import nearest_to_each

ASSUMED_COLLISIONS = 256
"""Size of the extra level that is assumed before the tokenizer is fitted."""

Source = Literal["embeddings", "cooccurrence", "file"]
Collision = Literal["none", "extra_level", "next_nearest"]
Missing = Literal["own_code", "neighbours"]


@dataclass(frozen=True)
class Learnt:
    """levels: that give items their codes; report: what goes into the record; tensors: those of `Codes`."""

    levels: CodeLevels
    report: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VectorTokenizerOptions(OptionGroup):
    """Vectors of items, and what their codes are to be like.

    Args:
        source: embeddings = the dataset's content embeddings; cooccurrence = SVD of item co-occurrence (PPMI) in
            training histories; file = an .npy file, such as the tracker item_vectors writes for a trained cell.
        embeddings: which content embeddings; each is scaled to unit length, and they are concatenated.
        vectors: the .npy file for `source: file`: [items + 1, width] in the order of the store, row 0 padding, a row
            of zeros = no vector.
        width: dimensions of the co-occurrence vectors.
        window: largest distance in events at which two items co-occur.
        svd: dimensions that the vectors are reduced to first; null = no reduction.
        sizes: number of codes of each level, first level first.
        collision: none = items may share a code; extra_level = one more level numbers the items that share a code;
            next_nearest = the item nearest to the centre keeps the code, the others get the next nearest free code of
            the last level; where a prefix is full, the items farthest from its centre get the next nearest prefix that
            has room (reported as spilled_items). With the last two no items share a code.
        missing: what items without a vector get: own_code = additional first-level codes after the learnt ones, a
            different code for each item (with `collision: none` one code for all); neighbours = the mean vector of
            their neighbours in training histories, or own_code where they have no neighbours.
        random_k: in training, input codes are replaced at random by one of the k codes with the nearest centres; 1 =
            never.
        seed: of all that is random in fitting; the same for all cells, whatever the cell's own.
    """

    source: Source = "embeddings"
    embeddings: EmbeddingNames = "all"
    vectors: DataFile | None = None
    width: PositiveInt = 128
    window: PositiveInt = 5
    svd: PositiveInt | None = None
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 256, 256)
    collision: Collision = "next_nearest"
    missing: Missing = "own_code"
    random_k: PositiveInt = 1
    seed: Seed = 0


class VectorTokenizer(Tokenizer):
    """Semantic IDs of item vectors, level by level."""

    def __init__(self, options: VectorTokenizerOptions) -> None:
        self.source, self.embeddings, self.vectors_file = options.source, options.embeddings, options.vectors
        self.width, self.window, self.svd, self.sizes = options.width, options.window, options.svd, options.sizes
        self.collision, self.missing = options.collision, options.missing
        self.random_k, self.seed = options.random_k, options.seed
        if (self.source == "file") != (self.vectors_file is not None):
            raise SuiteError("tokenizer.vectors: name an .npy file where source is file, and only there")
        if self.random_k > min(self.sizes):
            raise SuiteError(f"tokenizer.random_k: {self.random_k} is more than the {min(self.sizes)} codes of a level")

    @abstractmethod
    def learn(self, data: TrainingData, vectors: VectorSource, progress: Progress) -> Learnt:
        """The levels, learnt from the vectors."""

    @abstractmethod
    def left_by(
        self, levels: Any, assigned: Assignment, vectors: VectorSource, items: np.ndarray
    ) -> tuple[float, float]:
        """The sum of the squared distances of the items' vectors from what their codes stand for: with the last level's
        nearest codes, and with the codes as placed. levels: those that `learn` gave; items: [n]."""

    def check_training_items(self, count: int | None) -> None:
        """Raises SuiteError where a sample of so many items (None = all) has fewer than a level has codes."""
        if count is not None and count < max(self.sizes):
            raise SuiteError(
                f"tokenizer.training_items: a level of {max(self.sizes)} codes cannot be learnt from {count} items"
            )

    def fit(self, data: TrainingData) -> Codes:
        """Raises SuiteError where the sizes cannot hold the items, DataError where a vector is not finite."""
        return self.fit_reporting(data, no_progress)

    def fit_reporting(self, data: TrainingData, progress: Progress) -> Codes:
        """Raises as `fit` does."""
        started = time.perf_counter()
        progress("reading vectors", 0, None)
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
        learnt = self.learn(data, vectors, progress)
        levels = learnt.levels
        progress("codes of all items", 0, None)
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
            **learnt.report,
            "seconds": time.perf_counter() - started,
        }
        tensors = dict(learnt.tensors)
        if self.random_k > 1:
            tensors |= as_tensors(self._neighbours(levels.levels, sizes))
        codes = Codes(torch.from_numpy(table), sizes, report, tensors)
        report.update(code_quality(codes, data, vectors=vectors))
        return codes

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
        """Raises SuiteError unless `with_vector` of `num_items` items suffice for the largest level, and each can have
        a code of its own where `next_nearest` is to give it one."""
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
        """For each level [K_l, k]: the codes with the nearest centres."""
        tables = []
        for number, size in enumerate(sizes):
            learnt = torch.empty((0, self.random_k), dtype=torch.int64)
            if number < len(levels):
                learnt = torch.from_numpy(nearest_to_each(levels[number].compared, self.random_k))
            tables.append(torch.cat([learnt, self_neighbours(size - len(learnt), self.random_k, len(learnt))]))
        return tuple(tables)
