"""Metrics: four-row worlds worked out by hand, an independent judge (trec_eval), and properties."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from grbench.errors import DataError, RunError, SuiteError
from grbench.types import Ranking
from grbench_reference.metrics.coverage import Coverage
from grbench_reference.metrics.hit_rate import HitRate
from grbench_reference.metrics.mrr import MRR
from grbench_reference.metrics.ndcg import NDCG
from grbench_reference.metrics.score import Score
from grbench_reference.metrics.weighted_hit_rate import WeightedHitRate
from grbench_reference.metrics.weighted_ndcg import WeightedNDCG

EXPOSURE, CLICK, CONVERSION = 2, 3, 4
ACTIONS = ("exposure", "click", "conversion")
METRICS: list[Any] = [HitRate, NDCG, WeightedHitRate, WeightedNDCG, Score, MRR, Coverage]


def ranking_of(
    items: list[list[int]],
    targets: list[list[int]],
    target_actions: list[list[int]] | None = None,
    *,
    actions: tuple[str, ...] = ACTIONS,
    pool: int = 100,
) -> Ranking:
    """A ranking without ties: ranks are where the targets stand."""
    lists, wanted = np.array(items, np.int64), np.array(targets, np.int64)
    tokens = np.where(wanted > 0, CLICK, 0) if target_actions is None else np.array(target_actions, np.int64)
    here = (lists[:, None, :] == wanted[:, :, None]) & (wanted[:, :, None] > 0)
    ranks = np.where(here.any(axis=2), here.argmax(axis=2) + 1, 0)
    scores = np.tile(-np.arange(lists.shape[1], dtype=np.float32), (len(lists), 1))
    queries = np.arange(len(lists))
    # None of these metrics looks at the training data.
    return Ranking(queries, lists, scores, wanted, tokens, ranks, actions, pool, queries, None)


LOG3 = 1 / math.log2(3)

# Rows: hit first, hit third, hit fourth (beyond k=3), no hit.
ONE_TARGET = ranking_of([[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4], [1, 2, 3, 4]], [[1], [7], [4], [9]], pool=10)

# Rows: click first and conversion missed; both found, the click first; exposures only; click and conversion beyond k=2.
MANY_TARGETS = ranking_of(
    [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]],
    [[1, 9], [1, 2], [1, 0], [3, 8]],
    [[CLICK, CONVERSION], [CLICK, CONVERSION], [EXPOSURE, 0], [CLICK, CONVERSION]],
)


def test_hit_rate_by_hand() -> None:
    assert HitRate(k=3)(ONE_TARGET).tolist() == [1, 1, 0, 0]
    assert HitRate(k=4)(ONE_TARGET).tolist() == [1, 1, 1, 0]
    assert HitRate(k=2)(MANY_TARGETS).tolist() == [0.5, 1, 1, 0]


def test_ndcg_by_hand() -> None:
    np.testing.assert_allclose(NDCG(k=3)(ONE_TARGET), [1, 0.5, 0, 0])
    np.testing.assert_allclose(NDCG(k=2)(MANY_TARGETS), [1 / (1 + LOG3), 1, 1, 0])


def test_weighted_metrics_by_hand() -> None:
    np.testing.assert_allclose(WeightedHitRate(k=2)(MANY_TARGETS), [1 / 3.5, 1, 0, 0])
    np.testing.assert_allclose(WeightedHitRate(k=3)(MANY_TARGETS), [1 / 3.5, 1, 0, 1 / 3.5])
    ideal = 2.5 + LOG3
    np.testing.assert_allclose(WeightedNDCG(k=2)(MANY_TARGETS), [1 / ideal, (1 + 2.5 * LOG3) / ideal, 0, 0])
    np.testing.assert_allclose(WeightedNDCG(k=2, alpha=1)(MANY_TARGETS), [1 / (1 + LOG3), 1, 0, 0])


def test_averaging_by_weight_makes_the_mean_weighted() -> None:
    by_weight = WeightedHitRate(k=2, average="weight")(MANY_TARGETS)
    assert by_weight.mean() == pytest.approx((1 + 3.5 + 0 + 0) / (3.5 * 3))
    values, weights = WeightedNDCG(k=2)(MANY_TARGETS), np.array([3.5, 3.5, 0, 3.5])
    by_weight = WeightedNDCG(k=2, average="weight")(MANY_TARGETS)
    assert by_weight.mean() == pytest.approx(np.average(values, weights=weights))


def test_with_one_target_a_user_weights_cancel_unless_averaged_by_weight() -> None:
    ranking = ranking_of([[1, 2], [1, 2], [1, 2]], [[1], [2], [9]], [[CONVERSION], [CLICK], [CLICK]])
    np.testing.assert_allclose(WeightedHitRate(k=2)(ranking), HitRate(k=2)(ranking))
    np.testing.assert_allclose(WeightedNDCG(k=2)(ranking), NDCG(k=2)(ranking))
    assert WeightedHitRate(k=2, average="weight")(ranking).mean() == pytest.approx(3.5 / 4.5)


def test_score_by_hand() -> None:
    wide = ranking_of([[*range(1, 11)], [*range(1, 11)]], [[1], [3]])
    np.testing.assert_allclose(Score()(wide), [1.0, 0.31 + 0.69 * 0.5])
    np.testing.assert_allclose(
        Score(k=2, weighted=True)(MANY_TARGETS),
        0.31 * WeightedHitRate(k=2)(MANY_TARGETS) + 0.69 * WeightedNDCG(k=2)(MANY_TARGETS),
    )


def test_mrr_by_hand() -> None:
    np.testing.assert_allclose(MRR(k=3)(ONE_TARGET), [1, 1 / 3, 0, 0])
    np.testing.assert_allclose(MRR(k=3)(MANY_TARGETS), [1, 1, 1, 1 / 3])


def test_coverage_by_hand() -> None:
    # k=2 shows 1, 2, 5, 6 out of 10; items 1 and 2 are shown by three queries, 5 and 6 by one.
    np.testing.assert_allclose(Coverage(k=2)(ONE_TARGET), [4 / 30 * 2, 4 / 10 * 2, 4 / 30 * 2, 4 / 30 * 2])
    short = ranking_of([[1, 0], [1, 2]], [[1], [2]], pool=4)
    assert Coverage(k=2)(short).mean() == pytest.approx(2 / 4)


def test_a_tied_target_counts_by_its_rank_not_by_its_place() -> None:
    ranking = ranking_of([[1, 2, 3]], [[1]])
    tied = dataclasses.replace(ranking, ranks=np.array([[2]]))
    assert HitRate(k=1)(tied).tolist() == [0]
    np.testing.assert_allclose(NDCG(k=3)(tied), [LOG3])


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (HitRate(k=5), "hit_rate@5"),
        (NDCG(k=10), "ndcg@10"),
        (MRR(k=20), "mrr@20"),
        (Coverage(k=1), "coverage@1"),
        (WeightedHitRate(k=10), "weighted_hit_rate@10"),
        (WeightedNDCG(k=10, alpha=3.0, average="weight"), "weighted_ndcg@10,alpha=3.0,average=weight"),
        (Score(), "score"),
        (Score(k=100), "score@100"),
        (Score(weighted=True), "weighted_score"),
    ],
)
def test_a_name_tells_what_was_computed(metric: Any, name: str) -> None:
    assert (metric.name, metric.higher_is_better) == (name, True)


@pytest.mark.parametrize("factory", METRICS)
def test_no_query_gives_no_value(factory: Any) -> None:
    one = ranking_of([[1] * 10], [[1]])
    per_query = ("users", "items", "scores", "targets", "target_actions", "ranks", "history_lengths")
    values = factory(k=10)(dataclasses.replace(one, **{name: getattr(one, name)[:0] for name in per_query}))
    assert (values.shape, values.dtype) == ((0,), np.float64)


@pytest.mark.parametrize("factory", METRICS)
def test_a_list_shorter_than_k_is_refused(factory: Any) -> None:
    with pytest.raises(RunError, match=r"has 4 items per query.*k=5"):
        factory(k=5)(ONE_TARGET)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(SuiteError, match="ndcg@0: k must be at least 1"):
        NDCG(k=0)


@pytest.mark.parametrize("actions", [(), ("exposure",), ("view", "click")])
def test_weights_of_unknown_actions_are_refused(actions: tuple[str, ...]) -> None:
    ranking = dataclasses.replace(ONE_TARGET, actions=actions)
    with pytest.raises(DataError, match="weights are defined for the actions exposure, click and conversion"):
        WeightedNDCG(k=2)(ranking)


def random_ranking(seed: int, *, queries: int = 60, length: int = 20, targets: int = 4) -> Ranking:
    """Random lists over 40 items; 1 to `targets` different targets a query, a click among them."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(40)[:length] + 1 for _ in range(queries)])
    wanted = np.stack([rng.permutation(40)[:targets] + 1 for _ in range(queries)])
    tokens = rng.integers(EXPOSURE, CONVERSION + 1, size=wanted.shape)
    tokens[:, 0] = CLICK
    wanted[np.arange(targets) >= rng.integers(1, targets + 1, size=(queries, 1))] = 0
    tokens[wanted == 0] = 0
    return ranking_of(items.tolist(), wanted.tolist(), tokens.tolist())


def judged(ranking: Ranking, measure: str, grades: dict[int, int]) -> np.ndarray:
    """[Q]: the value trec_eval gives, targets graded by action token (trec_eval wants whole numbers: 2 and 5)."""
    relevant = {
        str(query): {str(item): grades[action] for item, action in zip(*row, strict=True) if item}
        for query, row in enumerate(zip(ranking.targets.tolist(), ranking.target_actions.tolist(), strict=True))
    }
    shown = {
        str(query): {str(item): float(-place) for place, item in enumerate(row)}
        for query, row in enumerate(ranking.items.tolist())
    }
    results = pytrec_eval.RelevanceEvaluator(relevant, {measure}).evaluate(shown)
    key = measure.replace(".", "_")
    return np.array([results[str(query)][key] for query in range(len(ranking.items))])


EQUAL = {EXPOSURE: 1, CLICK: 1, CONVERSION: 1}
GRADED = {EXPOSURE: 0, CLICK: 2, CONVERSION: 5}


@pytest.mark.parametrize("k", [1, 5, 10, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_trec_eval_agrees(k: int, seed: int) -> None:
    ranking = random_ranking(seed)
    np.testing.assert_allclose(HitRate(k=k)(ranking), judged(ranking, f"recall.{k}", EQUAL))
    np.testing.assert_allclose(NDCG(k=k)(ranking), judged(ranking, f"ndcg_cut.{k}", EQUAL))
    np.testing.assert_allclose(WeightedNDCG(k=k)(ranking), judged(ranking, f"ndcg_cut.{k}", GRADED))
    cut = dataclasses.replace(ranking, items=ranking.items[:, :k])
    np.testing.assert_allclose(MRR(k=k)(ranking), judged(cut, "recip_rank", EQUAL))
    single = random_ranking(seed, targets=1)
    np.testing.assert_allclose(HitRate(k=k)(single), judged(single, f"success.{k}", EQUAL))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 19))
def test_bounds_and_growth_with_k(seed: int, k: int) -> None:
    ranking = random_ranking(seed, queries=8)
    for factory in METRICS:
        values, more = factory(k=k)(ranking), factory(k=k + 1)(ranking)
        assert np.all(values >= 0)
        assert values.mean() <= 1 + 1e-12
        if factory is not Coverage:
            assert np.all(values <= 1 + 1e-12)
        if factory in (HitRate, WeightedHitRate, MRR):
            assert np.all(more >= values - 1e-12)
        if factory is Coverage:
            assert more.mean() >= values.mean() - 1e-12
    single = random_ranking(seed, queries=8, targets=1)
    assert np.all(NDCG(k=k + 1)(single) >= NDCG(k=k)(single))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_queries_does_not_matter(seed: int) -> None:
    ranking = random_ranking(seed, queries=12)
    order = np.random.default_rng(seed).permutation(12)
    shuffled = dataclasses.replace(
        ranking,
        **{name: getattr(ranking, name)[order] for name in ("users", "items", "targets", "target_actions", "ranks")},
    )
    for factory in METRICS:
        np.testing.assert_allclose(factory(k=10)(shuffled), factory(k=10)(ranking)[order])
