"""Metrics that are computed from kept lists give what they give when the lists are searched for, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grbench.data.histories import Histories
from grbench.data.split import Queries, Split
from grbench.data.training_data import TrainingData
from grbench.errors import RunError
from grbench.evaluation.ranking import Ranker
from grbench.evaluation.scoring import score, score_lists
from grbench.results.lists import lists_table, rankings_from
from grbench.testing import tiny_store
from grbench.types import Batch, Codes, Ranking, TopK
from grbench_reference.metrics.coverage import Coverage
from grbench_reference.metrics.hit_rate import HitRate
from grbench_reference.metrics.mrr import MRR
from grbench_reference.metrics.ndcg import NDCG
from grbench_reference.metrics.score import Score
from grbench_reference.metrics.weighted_hit_rate import WeightedHitRate
from grbench_reference.metrics.weighted_ndcg import WeightedNDCG

CODES = Codes(torch.zeros((1, 1), dtype=torch.int64), (1,))
FACTORIES: list[Any] = [HitRate, NDCG, MRR, Coverage, Score, WeightedHitRate, WeightedNDCG]


class TableOfScores:
    """An encoder that has each user's score of each item: [U, N+1]."""

    history_length = 2

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores


class Sorting:
    """Ranks by the encoder's scores, the lower item first among equals, and finds `most` items at most."""

    needs: ClassVar[tuple[type, ...]] = ()

    def __init__(self, most: int) -> None:
        self.most = most

    def index(self, encoder: TableOfScores, candidates: Tensor, codes: Codes) -> None:
        self.candidates = candidates

    def search(self, encoder: TableOfScores, batch: Batch, k: int) -> TopK:
        scores, order = encoder.scores[batch.users][:, self.candidates].sort(descending=True, stable=True)
        items = self.candidates[order]
        items[:, self.most :], scores[:, self.most :] = 0, -torch.inf
        return TopK(items[:, :k], scores[:, :k])


def world(folder: Path, seed: int, filters: list[str]) -> Any:
    """A function that searches for lists of k, and longer ones where asked, in a world full of ties."""
    rng = np.random.default_rng(seed)
    users, pool, actions = int(rng.integers(1, 6)), int(rng.integers(6, 15)), ("exposure", "click", "conversion")
    histories = [
        [(int(item), 0, 1) for item in rng.integers(1, pool + 1, size=rng.integers(1, 4))] for _ in range(users)
    ]
    store = tiny_store(folder, histories, num_items=pool, actions=actions)
    visible = Histories(store, np.arange(users), store.offsets[:-1], store.offsets[1:])
    targets = np.stack([rng.permutation(pool)[:3] + 1 for _ in range(users)])
    targets[np.arange(3) >= rng.integers(1, 4, size=(users, 1))] = 0
    tokens = np.where(targets > 0, rng.integers(2, 5, size=targets.shape), 0)
    training = TrainingData(store.catalogue, visible)
    split = Split(training, None, Queries(visible, targets, tokens, next_action=3), np.arange(1, pool + 1))
    encoder = TableOfScores(torch.from_numpy(rng.integers(4, size=(users, pool + 1)).astype(np.float32)))
    most = int(rng.integers(4, pool + 1))

    def search(k: int, longer: int | None = None) -> tuple[Ranking, Ranking | None]:
        ranker = Ranker(Sorting(most), encoder, split, CODES, k=k, filters=filters)
        return ranker.rank(split.test), None if longer is None else ranker.rank_longer(split.test, longer)

    return split, search


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), filters=st.sampled_from([[], ["history"], ["no_training_event"]]))
def test_scores_from_kept_lists_are_those_of_a_search_for_these_metrics(
    tmp_path_factory: pytest.TempPathFactory, seed: int, filters: list[str]
) -> None:
    split, search = world(tmp_path_factory.mktemp("world"), seed, filters)
    pool = (
        len(split.candidates)
        if "no_training_event" not in filters
        else int((split.training.item_counts()[1:] > 0).sum())
    )
    scored_length, kept_length = (pool + 1) // 2, pool
    catalogue = split.training.catalogue
    scored, kept = search(scored_length, kept_length)
    lists = lists_table(scored, catalogue.user_ids, catalogue.item_ids, kept)
    scored, kept = rankings_from(lists, split, Path("lists"))
    for k in range(1, pool + 1):
        metrics = [factory(k=k) for factory in FACTORIES]
        found = score_lists(metrics, [k] * len(metrics), k, scored, kept)
        directly = score(metrics, search(k)[0])
        for name, values in directly.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)


class Looks:
    """Says how long the lists are that it is shown."""

    higher_is_better = True

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, ranking: Ranking) -> np.ndarray:
        return np.full(len(ranking.users), ranking.items.shape[1], np.float64)


def test_each_metric_sees_the_lists_that_are_just_long_enough(tmp_path: Path) -> None:
    _, search = world(tmp_path, 0, [])
    scored, kept = search(3, 5)

    def shown(cutoffs: list[int | None], length: int, kept: Ranking | None) -> list[float]:
        metrics = [Looks(str(place)) for place in range(len(cutoffs))]
        return [values[0] for values in score_lists(metrics, cutoffs, length, scored, kept).values()]

    assert shown([2, 3, None], 3, kept) == [3, 3, 3]
    assert shown([2, None], 2, kept) == [2, 2]  # a search for these metrics would not give more
    assert shown([2, None, 4], 4, kept) == [3, 3, 4]  # longer lists are not for those that the scored ones suffice
    with pytest.raises(RunError, match=r"metric 0: the recorded lists have fewer than 4 items"):
        shown([4], 4, None)
