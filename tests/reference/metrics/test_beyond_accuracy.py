"""Novelty, diversity and Gini: worlds worked out by hand, and properties."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import everything, featured, training_data

from grbench.data.training_data import TrainingData
from grbench.errors import DataError, RunError, SuiteError
from grbench.testing import tiny_store
from grbench.types import Ranking
from grbench_reference.metrics.diversity import Diversity
from grbench_reference.metrics.gini import Gini
from grbench_reference.metrics.novelty import Novelty

LOG2_3 = math.log2(3)


def ranking_of(items: list[list[int]], training: TrainingData | None, *, pool: int = 9) -> Ranking:
    lists = np.array(items, np.int64)
    queries, none = np.arange(len(lists)), np.zeros((len(lists), 1), np.int64)
    scores = np.tile(-np.arange(lists.shape[1], dtype=np.float32), (len(lists), 1))
    return Ranking(queries, lists, scores, none, none, none, ("click",), pool, queries, training)


@pytest.fixture
def four_users(tmp_path: Path) -> TrainingData:
    """Item 1 is known by all four users, by five events of eight; item 2 by two, item 3 by one, item 4 by nobody."""
    one = (1, 0, 1)
    return training_data(tmp_path, [[one, one, (2, 0, 2)], [one, (2, 0, 2)], [one, (3, 0, 2)], [one]], num_items=4)


def test_novelty_by_hand(four_users: TrainingData) -> None:
    ranking = ranking_of([[1, 2], [2, 3], [3, 4], [2, 0], [0, 0]], four_users)
    # -log2 of 4/4, 2/4 and 1/4; nobody counts as one user; places without an item are left out.
    np.testing.assert_allclose(Novelty(k=2)(ranking), [0.5, 1.5, 2, 1, 0])
    np.testing.assert_allclose(Novelty(k=1)(ranking), [0, 1, 2, 1, 0])
    # -log2 of 5/8, 2/8 and 1/8.
    first = 3 - math.log2(5)
    np.testing.assert_allclose(Novelty(k=2, by="events")(ranking), [(first + 2) / 2, 2.5, 3, 2, 0])


def test_diversity_by_features_by_hand(tmp_path: Path) -> None:
    data = featured(tmp_path)
    # color 0, 1, -, 1, 2, 0 and tags {0, 1}, {2}, -, {1}, {3, 0}, {0}: items 1 and 6 share two of three values, 2 and
    # 4 one (the color) of three, 1 and 5 one of five, 6 and 5 one of four; item 3 has none.
    ranking = ranking_of([[1, 6], [2, 4], [1, 5], [1, 3], [3, 0]], data)
    np.testing.assert_allclose(Diversity(k=2)(ranking), [1 / 3, 2 / 3, 1 - 1 / 5, 0, 0])
    np.testing.assert_allclose(Diversity(k=2, features=["color"])(ranking), [0, 0, 1, 0, 0])
    three = ranking_of([[1, 6, 3], [1, 6, 5]], data)
    pairs = [1 / 3, 4 / 5, 3 / 4]
    np.testing.assert_allclose(Diversity(k=3)(three), [1 / 3, np.mean(pairs)])


def test_diversity_by_embedding_by_hand(tmp_path: Path) -> None:
    data = featured(tmp_path)
    # (1, 0), (0, 1), missing, (.5, .5), (0, -1), missing
    ranking = ranking_of([[1, 2], [2, 5], [1, 4], [1, 3], [4, 4]], data)
    for metric in (Diversity(k=2, by="embedding"), Diversity(k=2, by="embedding", embedding="81")):
        np.testing.assert_allclose(metric(ranking), [1, 2, 1 - math.sqrt(0.5), 0, 0], atol=1e-6)


def test_diversity_by_cooccurrence_by_hand(four_users: TrainingData) -> None:
    # Users of item 1: all; of 2: two of them; of 3: another one; of 4: nobody.
    ranking = ranking_of([[1, 2], [2, 3], [1, 3], [1, 4], [1, 1]], four_users)
    expected = [1 - 2 / math.sqrt(4 * 2), 1, 1 - 1 / 2, 0, 0]
    np.testing.assert_allclose(Diversity(k=2, by="cooccurrence")(ranking), expected, atol=1e-12)


def test_gini_by_hand() -> None:
    # Exposures 2, 1, 1 of four candidates: sorted 0, 1, 1, 2 -> (-3*0 - 1*1 + 1*1 + 3*2) / (4 * 4).
    ranking = ranking_of([[1, 2], [1, 3]], None, pool=4)
    values = Gini(k=2)(ranking)
    assert values.mean() == pytest.approx(6 / 16)
    assert values[0] == values[1]  # items 2 and 3 are shown equally often
    assert Gini(k=2)(ranking_of([[1, 2], [3, 4]], None, pool=4)).mean() == pytest.approx(0)
    # All places go to one of ten candidates: 1 - 1 / 10.
    assert Gini(k=1)(ranking_of([[1, 2], [1, 3]], None, pool=10)).mean() == pytest.approx(0.9)
    assert Gini(k=2)(ranking_of([[0, 0]], None)).tolist() == [0]
    assert not Gini.higher_is_better


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (Novelty(k=10), "novelty@10"),
        (Novelty(k=10, by="events"), "novelty@10,by=events"),
        (Gini(k=3), "gini@3"),
        (Diversity(k=5), "diversity@5"),
        (Diversity(k=5, features=["a", "b"]), "diversity@5,features=a+b"),
        (Diversity(k=5, by="embedding", embedding="81"), "diversity@5,by=embedding,embedding=81"),
    ],
)
def test_a_name_tells_what_was_computed(metric: Any, name: str) -> None:
    assert metric.name == name


def test_what_items_cannot_be_compared_by_is_refused(four_users: TrainingData, tmp_path: Path) -> None:
    data = featured(tmp_path / "featured")
    plain, rich = ranking_of([[1, 2]], four_users), ranking_of([[1, 2]], data)
    for options, ranking, said in (
        ({}, plain, r"diversity@2: this dataset's items have no features; compare them by: cooccurrence$"),
        ({"by": "embedding"}, plain, r"has no embeddings .*; compare items by: cooccurrence"),
        ({"features": ["colour"]}, rich, r"items have no feature 'colour'; they have color, tags"),
        ({"by": "embedding", "embedding": "82"}, rich, r"there is no '82'; there are 81"),
    ):
        with pytest.raises(DataError, match=said):
            Diversity(k=2, **options)(ranking)  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="embedding: has an effect with by: embedding only"):
        Diversity(k=2, embedding="81")
    for metric in (Novelty(k=3), Gini(k=3), Diversity(k=3)):
        with pytest.raises(RunError, match=r"has 2 items per query.*k=3"):
            metric(plain)


@pytest.mark.parametrize("factory", [Novelty, Gini, lambda k: Diversity(k=k, by="cooccurrence")])
def test_no_query_gives_no_value(four_users: TrainingData, factory: Any) -> None:
    one = ranking_of([[1, 2]], four_users)
    per_query = ("users", "items", "scores", "targets", "target_actions", "ranks", "history_lengths")
    values = factory(k=2)(dataclasses.replace(one, **{name: getattr(one, name)[:0] for name in per_query}))
    assert (values.shape, values.dtype) == ((0,), np.float64)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Thirty items with features and embeddings, and twenty users."""
    rng = np.random.default_rng(0)
    store = tiny_store(
        tmp_path_factory.mktemp("world"),
        [[(int(item), 0, 1) for item in rng.integers(1, 25, size=8)] for _ in range(20)],
        num_items=30,
        item_features={
            "one": [*map(int, rng.integers(4, size=30))],
            "many": [[*map(int, rng.integers(6, size=rng.integers(1, 4)))] for _ in range(30)],
        },
        embeddings={"81": rng.normal(size=(30, 4))},
    )
    return everything(store)


METRICS: list[Any] = [
    Novelty(k=6),
    Novelty(k=6, by="events"),
    Diversity(k=6),
    Diversity(k=6, by="embedding"),
    Diversity(k=6, by="cooccurrence"),
    Gini(k=6),
]
BOUNDS = [math.log2(20), math.log2(160), 1, 2, 1, 1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_and_that_order_within_and_of_lists_does_not_matter(world: TrainingData, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(30)[:6] + 1 for _ in range(int(rng.integers(1, 8)))])
    lists[rng.random(lists.shape) < 0.2] = 0
    ranking = ranking_of(lists.tolist(), world, pool=30)
    within = ranking_of([rng.permutation(row).tolist() for row in lists], world, pool=30)
    order = rng.permutation(len(lists))
    among = ranking_of(lists[order].tolist(), world, pool=30)
    for metric, most in zip(METRICS, BOUNDS, strict=True):
        values = metric(ranking)
        assert values.shape == (len(lists),)
        assert -1e-9 <= values.mean() <= most + 1e-9
        if not isinstance(metric, Gini):
            assert values.min() >= -1e-6
            assert values.max() <= most + 1e-6
        np.testing.assert_allclose(metric(within), values, atol=1e-6)
        np.testing.assert_allclose(metric(among), values[order], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_gini_is_half_the_relative_mean_difference_of_exposures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = int(rng.integers(6, 15))
    lists = np.stack([rng.permutation(pool)[:6] + 1 for _ in range(int(rng.integers(1, 8)))])
    exposures = np.bincount(lists.ravel(), minlength=pool + 1)[1:]
    expected = np.abs(exposures[:, None] - exposures).sum() / (2 * pool**2 * exposures.mean())
    ranking = ranking_of(lists.tolist(), None, pool=pool)
    assert Gini(k=6)(ranking).mean() == pytest.approx(expected)
