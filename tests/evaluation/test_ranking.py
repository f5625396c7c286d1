"""Ranking and scoring in worlds small enough to work out by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grbench.cost.meter import Meter
from grbench.data.histories import Histories
from grbench.data.split import Queries, Split
from grbench.data.training_data import TrainingData
from grbench.errors import DataError, RunError, SuiteError
from grbench.evaluation.ranking import Ranker, target_ranks
from grbench.evaluation.scoring import check_metrics, score, validation_scores
from grbench.testing import tiny_store
from grbench.types import Batch, Codes, Ranking, TopK

NO_CODES = Codes(torch.zeros((1, 1), dtype=torch.int64), (1,))
INF = np.inf

# Three users; the last event of each is its target: 4, 1, 6. Items 5 and 7 have no training event.
HISTORIES = [
    [(1, 0, 1), (2, 1, 2), (3, 0, 3), (2, 0, 4), (4, 1, 5)],
    [(6, 0, 1), (1, 1, 2)],
    [(3, 1, 1), (6, 0, 2), (6, 1, 3)],
]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    store = tiny_store(tmp_path, HISTORIES, num_items=7)
    users, starts, stops = np.arange(3), np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
    queries = Queries(
        Histories(store, users, starts, stops - 1),
        np.array([[4], [1], [6]]),
        np.array([[3], [3], [3]]),
        next_action=3,
    )
    first_two = dataclasses.replace(
        queries, histories=queries.histories.select(users[:2]), targets=np.array([[4], [1]])
    )
    training = TrainingData(store.catalogue, Histories(store, users, starts, stops))
    return Split(training, first_two, queries, candidates=np.array([1, 2, 3, 4, 5, 6]))


class Scores(nn.Module):
    """The same score of each item for everyone; looks at how it is called."""

    history_length = 2

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = torch.tensor([0.0, *scores])
        self.frozen, self.trained = nn.Dropout().eval(), nn.Dropout()
        self.modes: list[tuple[bool, bool]] = []
        self.seen: list[list[list[int]]] = []

    def look(self, batch: Batch) -> None:
        self.modes.append((self.training, torch.is_grad_enabled()))
        self.seen.append(batch.items.tolist())


class Sorting:
    """Ranks by the encoder's scores, the lower item first among equals."""

    needs: ClassVar[tuple[type, ...]] = ()

    def index(self, encoder: Scores, candidates: Tensor, codes: Codes) -> None:
        self.candidates = candidates

    def search(self, encoder: Scores, batch: Batch, k: int) -> TopK:
        encoder.look(batch)
        scores = encoder.scores[self.candidates]
        order = scores.argsort(descending=True, stable=True)[:k]
        rows = len(batch.users)
        return TopK(self.candidates[order].expand(rows, -1), scores[order].expand(rows, -1))


class HitAt1:
    name, higher_is_better = "hit_rate@1", True

    def __call__(self, ranking: Ranking) -> np.ndarray:
        return (ranking.ranks == 1).any(axis=1).astype(np.float64)


def rank(retriever: Any, encoder: Any, queries: Queries, split: Split, codes: Codes, **options: Any) -> Ranking:
    return Ranker(retriever, encoder, split, codes, **options).rank(queries)


def ranked(split: Split, scores: list[float], k: int, **options: Any) -> Ranking:
    return rank(Sorting(), Scores(scores), split.test, split, NO_CODES, k=k, **options)


def test_lists_scores_and_ranks(split: Split) -> None:
    ranking = ranked(split, [1, 2, 3, 4, 5, 6, 7], 4, batch_size=2)
    assert ranking.items.tolist() == [[6, 5, 4, 3]] * 3  # item 7 is no candidate
    assert ranking.scores.tolist() == [[6, 5, 4, 3]] * 3
    assert ranking.ranks.tolist() == [[3], [0], [1]]
    assert (ranking.pool, ranking.actions) == (6, ("exposure", "click"))
    assert ranking.users.tolist() == [0, 1, 2]
    assert ranking.target_actions.tolist() == [[3]] * 3
    assert (ranking.items.dtype, ranking.scores.dtype, ranking.ranks.dtype) == (np.int64, np.float32, np.int64)


@pytest.mark.filterwarnings("error")
def test_candidates_of_a_store_are_read_only(split: Split) -> None:
    split.candidates.flags.writeable = False
    assert ranked(split, [1, 2, 3, 4, 5, 6, 7], 1).items.tolist() == [[6]] * 3


def test_a_ranking_knows_the_history_lengths_and_the_training_data(split: Split) -> None:
    ranking = ranked(split, [1, 2, 3, 4, 5, 6, 7], 4)
    assert ranking.history_lengths.tolist() == [4, 1, 2]  # what is visible, and not only what is encoded
    assert ranking.training.item_counts().tolist() == [0, 2, 2, 2, 1, 0, 3, 0]


def test_longer_lists_are_kept_in_a_phase_of_their_own(split: Split) -> None:
    meter = Meter()
    ranker = Ranker(Sorting(), Scores([1, 2, 3, 4, 5, 6, 7]), split, NO_CODES, k=2, meter=meter)
    assert ranker.rank(split.test).items.tolist() == [[6, 5]] * 3
    kept = ranker.rank_longer(split.test, 4)
    assert (kept.items.tolist(), kept.ranks.tolist()) == ([[6, 5, 4, 3]] * 3, [[3], [0], [1]])
    assert ranker.rank_longer(split.test, 100).items.shape == (3, 6)  # the whole pool
    assert list(meter.costs()) == ["index", "search", "keep"]
    assert meter.costs()["search"]["runs"] == 1


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_do_not_change_the_result(split: Split, batch_size: int) -> None:
    expected = ranked(split, [2, 2, 1, 4, 4, 0, 9], 3, filters=["history"], batch_size=3)
    ranking = ranked(split, [2, 2, 1, 4, 4, 0, 9], 3, filters=["history"], batch_size=batch_size)
    for name in ("items", "scores", "ranks"):
        np.testing.assert_array_equal(getattr(ranking, name), getattr(expected, name))


def test_ties_count_against_the_target(split: Split) -> None:
    ranking = ranked(split, [5, 1, 1, 7, 7, 5, 0], 3)
    assert ranking.items[0].tolist() == [4, 5, 1]
    # 4 shares the top with 5: second. 1 and 6 share places 3 and 4, past the end of the list.
    assert ranking.ranks.tolist() == [[2], [0], [0]]
    assert ranked(split, [5, 1, 1, 7, 7, 5, 0], 4).ranks.tolist() == [[2], [4], [4]]


def test_a_collapsed_model_finds_nothing(split: Split) -> None:
    assert ranked(split, [1.0] * 7, 5).ranks.tolist() == [[0], [0], [0]]
    assert ranked(split, [1.0] * 7, 6).ranks.tolist() == [[6], [6], [6]]  # the whole pool: each is the last


def test_the_history_filter_looks_at_the_whole_history(split: Split) -> None:
    # User 0 has seen 1, 2, 3, 2, of which the encoder reads only the last two; user 2 has seen its target.
    ranking = ranked(split, [9, 8, 7, 1, 2, 3, 0], 3, filters=["history"])
    assert ranking.items.tolist() == [[6, 5, 4], [1, 2, 3], [1, 2, 5]]
    assert ranking.scores.tolist() == [[3, 2, 1], [9, 8, 7], [9, 8, 2]]
    assert ranking.ranks.tolist() == [[3], [1], [0]]


def test_the_history_filter_can_end_a_list_early(split: Split) -> None:
    ranking = ranked(split, [9, 8, 7, 1, 2, 3, 0], 5, filters=["history"])
    assert ranking.items.tolist() == [[6, 5, 4, 0, 0], [1, 2, 3, 5, 4], [1, 2, 5, 4, 0]]
    assert ranking.scores[0].tolist() == [3, 2, 1, -INF, -INF]


def test_a_filter_of_the_pool_restricts_what_is_indexed(split: Split) -> None:
    ranking = ranked(split, [1, 2, 3, 4, 5, 6, 7], 3, filters=["no_training_event"])
    assert ranking.items.tolist() == [[6, 4, 3]] * 3
    assert ranking.pool == 6  # the pool of the protocol: coverage is compared across methods


def test_queries_are_asked_in_eval_mode_without_gradients_and_modes_come_back(split: Split) -> None:
    encoder = Scores([1.0] * 7).train()
    encoder.frozen.eval()
    rank(Sorting(), encoder, split.test, split, NO_CODES, k=2, batch_size=2)
    assert encoder.modes == [(False, False)] * 2
    assert (encoder.training, encoder.trained.training, encoder.frozen.training) == (True, True, False)
    assert encoder.seen == [[[3, 2], [0, 6]], [[3, 6]]]


@pytest.mark.parametrize(
    ("k", "filters", "error", "message"),
    [
        (7, [], SuiteError, r"k=7 is larger than the pool of 6 candidates \(filters: none\); use a smaller k"),
        (6, ["no_training_event"], SuiteError, r"pool of 5 candidates \(filters: no_training_event\); use"),
        (0, [], SuiteError, "k=0; k must be"),
        (1, ["colds"], SuiteError, "unknown filter 'colds'; there are history, not_indexed, no_training_event"),
    ],
)
def test_what_cannot_be_ranked_is_said_before_anything_is_encoded(
    split: Split, k: int, filters: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rank(None, None, split.test, split, NO_CODES, k=k, filters=filters)  # type: ignore[arg-type]


def test_an_empty_pool_is_refused(split: Split) -> None:
    only_cold = dataclasses.replace(split, candidates=np.array([5, 7]))
    with pytest.raises(DataError, match=r"no candidates to rank \(filters: no_training_event\)"):
        ranked(only_cold, [1.0] * 7, 1, filters=["no_training_event"])


@pytest.mark.parametrize(
    ("items", "scores", "message"),
    [
        ([[1, 2]], [[1.0, np.nan]], "user row 0 has NaN"),
        ([[1, 2]], [[1.0, 2.0]], "is not sorted"),
        ([[1, 1]], [[2.0, 1.0]], "holds an item twice"),
        ([[1, 7]], [[2.0, 1.0]], "holds an item not in the pool"),
        ([[1, -3]], [[2.0, 1.0]], "holds an item not in the pool"),
        ([[1, 99]], [[2.0, 1.0]], "holds an item not in the pool"),
        ([[1, 0]], [[2.0, 1.0]], "score -inf where"),
        ([[1]], [[2.0]], r"returned items \(3, 1\).*should be \(3, 2\)"),
    ],
)
def test_what_is_no_ranking_of_the_pool_is_refused(
    split: Split, items: list[list[int]], scores: list[list[float]], message: str
) -> None:
    class Wrong(Sorting):
        def search(self, encoder: Scores, batch: Batch, k: int) -> TopK:
            return TopK(torch.tensor(items).expand(3, -1), torch.tensor(scores).expand(3, -1))

    with pytest.raises(RunError, match=message):
        rank(Wrong(), Scores([1.0] * 7), split.test, split, NO_CODES, k=1)


def test_costs_and_progress(split: Split) -> None:
    meter, heard = Meter(), []

    def report(event: str, **values: Any) -> None:
        heard.append((event, values.get("done"), values.get("total")))

    ranked(split, [1.0] * 7, 2, batch_size=1, meter=meter, report=report)
    assert heard == [("index", None, None), ("search", 1, 3), ("search", 2, 3), ("search", 3, 3)]
    costs = meter.costs()
    assert list(costs) == ["index", "search"]
    assert (costs["search"]["queries"], costs["search"]["batch_size"], costs["search"]["warm_up_batches"]) == (3, 1, 1)
    assert costs["search"]["queries_per_second"] > 0
    assert costs["search"]["p99_ms"] >= costs["search"]["p50_ms"] > 0
    json.dumps(costs, allow_nan=False)


def test_a_single_batch_is_its_own_measurement(split: Split) -> None:
    meter = Meter()
    ranked(split, [1.0] * 7, 2, meter=meter)
    assert meter.costs()["search"]["warm_up_batches"] == 0
    assert meter.costs()["search"]["queries_per_second"] > 0


def test_validation_has_its_own_queries_and_its_own_phase(split: Split) -> None:
    meter = Meter()
    with meter.phase("train"):
        scores = [0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0]
        values = validation_scores(Sorting(), Scores(scores), split, NO_CODES, [HitAt1()], k=1, meter=meter)
    assert values == {HitAt1().name: 0.5}
    assert list(meter.costs()) == ["train", "validate"]
    (one,) = validation_scores(Sorting(), Scores(scores), split, NO_CODES, [HitAt1()], k=1, users=1).values()
    assert one in (0.0, 1.0)  # of two users, one of whom is hit
    none = dataclasses.replace(split, validation=None)
    with pytest.raises(SuiteError, match="holds out no validation users"):
        validation_scores(Sorting(), Scores([0.0] * 7), none, NO_CODES, [HitAt1()], k=1)


def test_scores_are_one_value_a_query(split: Split) -> None:
    ranking = ranked(split, [0, 0, 0, 9, 0, 0, 0], 2)
    assert {name: values.tolist() for name, values in score([HitAt1()], ranking).items()} == {"hit_rate@1": [1, 0, 0]}
    with pytest.raises(SuiteError, match="listed twice"):
        score([HitAt1(), HitAt1()], ranking)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.float64(0.5), r"returned shape \(\); it should return one value"),
        (np.array([1.0, np.nan, 1.0]), "user row 1 is not finite"),
    ],
)
def test_a_metric_that_misbehaves_is_named(split: Split, returned: Any, message: str) -> None:
    class Wrong(HitAt1):
        def __call__(self, ranking: Ranking) -> np.ndarray:
            return np.asarray(returned)

    with pytest.raises(RunError, match=f"metric hit_rate@1: .*{message}"):
        score([Wrong()], ranked(split, [1.0] * 7, 2))


def test_a_metric_that_does_not_fit_the_dataset_is_heard_of_early(split: Split) -> None:
    class OnlyConversions(HitAt1):
        def __call__(self, ranking: Ranking) -> np.ndarray:
            if "conversion" not in ranking.actions:
                raise DataError("no conversions here")
            return super().__call__(ranking)

    check_metrics([HitAt1()], split, 10)
    with pytest.raises(DataError, match="no conversions here"):
        check_metrics([OnlyConversions()], split, 10)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pool=st.integers(1, 12),
    k=st.integers(1, 12),
    levels=st.integers(1, 6),
)
def test_ranks_equal_those_of_the_worst_order_of_the_whole_pool(seed: int, pool: int, k: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, pool)
    scores = rng.integers(levels, size=pool).astype(np.float32)
    items = rng.permutation(pool) + 1
    order = np.lexsort((items, -scores))
    targets = np.append(rng.choice(items, size=min(3, pool), replace=False), [0, 99])
    shown = order[: k + 1]
    ranks = target_ranks(items[shown][None], scores[shown][None], targets[None], k)[0]
    for target, found in zip(targets, ranks, strict=True):
        worst = int((scores >= scores[items == target][0]).sum()) if target in items else 0
        assert found == (worst if worst <= k else 0)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), pool=st.integers(2, 12), levels=st.integers(1, 6), history=st.booleans())
def test_a_list_that_is_cut_is_the_one_that_a_shorter_search_gives(
    tmp_path_factory: pytest.TempPathFactory, seed: int, pool: int, levels: int, history: bool
) -> None:
    rng = np.random.default_rng(seed)
    histories = [[(int(item), 0, 1) for item in rng.integers(1, pool + 1, size=rng.integers(1, 4))] for _ in range(4)]
    store = tiny_store(tmp_path_factory.mktemp("cut"), histories, num_items=pool)
    visible = Histories(store, np.arange(4), np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:]))
    targets = np.stack([rng.choice(pool, size=2, replace=False) + 1 for _ in range(4)])
    queries = Queries(visible, targets, targets * 0 + 2, next_action=2)
    split = Split(TrainingData(store.catalogue, visible), None, queries, candidates=np.arange(1, pool + 1))
    scores = rng.integers(levels, size=pool).astype(float).tolist()
    length = int(rng.integers(2, pool + 1))
    filters = ["history"] if history else []
    longer = ranked(split, scores, length, filters=filters)
    for k in range(1, length + 1):
        shorter, cut = ranked(split, scores, k, filters=filters), longer.cut(k)
        for name in ("items", "scores", "ranks"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(shorter, name))
