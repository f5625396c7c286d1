"""Tokenizers and retrievers with one fault each."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from faulty_parts import fails

from grbench.testing.checks.plain_parts import PlainRetriever, PlainTokenizer
from grbench.types import Codes, TopK

# --- tokenizers


@fails("tokenizers", "codes_within_sizes")
class TooLarge(PlainTokenizer):
    def fit(self, data):
        return Codes(super().fit(data).table, (7, 4))


@fails("tokenizers", "fits_the_same_twice")
class RandomCodes(PlainTokenizer):
    def fit(self, data):
        codes = super().fit(data)
        codes.table[1:] = codes.table[1:][torch.randperm(len(codes.table) - 1)]
        return codes


@fails("tokenizers", "training_events_only")
class ReadsTheWholeStore(PlainTokenizer):
    def fit(self, data):
        counts = np.bincount(data._histories._items, minlength=data.catalogue.num_items + 1)
        table = torch.from_numpy(counts % 7).unsqueeze(1)
        table[0] = 0
        return Codes(table, (7,))


@fails("tokenizers", "report_is_json")
class ReportsAnArray(PlainTokenizer):
    def fit(self, data):
        return dataclasses.replace(super().fit(data), report={"counts": data.item_counts()})


@fails("tokenizers", "stand_in_has_the_same_shape")
class OneLevelBefore(PlainTokenizer):
    def stand_in(self, data):
        codes = self.fit(data)
        return Codes(codes.table[:, :1], codes.sizes[:1])


# --- retrievers


@fails("retrievers", "interface")
class NeedsNothingNamed(PlainRetriever):
    needs = None


@fails("retrievers", "lists_are_rankings")
class WorstFirst(PlainRetriever):
    def search(self, encoder, batch, k):
        found = super().search(encoder, batch, k)
        return TopK(found.items.flip(1), found.scores.flip(1))


@fails("retrievers", "k_larger_than_the_pool")
class NeverFills(PlainRetriever):
    def search(self, encoder, batch, k):
        return super().search(encoder, batch, min(k, len(self.candidates)))


@fails("retrievers", "shorter_lists_are_prefixes")
class LessCareForShortLists(PlainRetriever):
    def search(self, encoder, batch, k):
        found = super().search(encoder, batch, k + 1)
        first = int(k <= 5)
        return TopK(found.items[:, first : first + k], found.scores[:, first : first + k])


@fails("retrievers", "exhaustive_equals_exact")
class HalfOfThem(PlainRetriever):
    def index(self, encoder, candidates, codes):
        super().index(encoder, candidates[::2], codes)


@fails("retrievers", "ties_have_equal_scores")
class SpreadsTies(PlainRetriever):
    def search(self, encoder, batch, k):
        found = super().search(encoder, batch, k)
        return TopK(found.items, found.scores - 1e-3 * torch.arange(k))


@fails("retrievers", "a_user_alone")
class NormsOverTheBatch(PlainRetriever):
    def search(self, encoder, batch, k):
        found = super().search(encoder, batch, k)
        return TopK(found.items, found.scores - found.scores[:, :1].mean())


@fails("retrievers", "indexes_again")
class IndexesOnce(PlainRetriever):
    def index(self, encoder, candidates, codes):
        if not hasattr(self, "vectors"):
            super().index(encoder, candidates, codes)


@fails("retrievers", "searches_the_same_twice")
class RandomNoise(PlainRetriever):
    def index(self, encoder, candidates, codes):
        super().index(encoder, candidates, codes)
        self.vectors = self.vectors + torch.from_numpy(np.random.default_rng().normal(size=(1, 8))).float()


@fails("retrievers", "moves_between_devices")
class KeepsAPenalty(PlainRetriever):
    def __init__(self) -> None:
        self.penalty = torch.zeros(1)

    def search(self, encoder, batch, k):
        found = super().search(encoder, batch, k)
        return TopK(found.items, found.scores - self.penalty)


@fails("retrievers", "report_is_json")
class ReportsATensor(PlainRetriever):
    def report(self):
        return {"candidates": self.candidates}
