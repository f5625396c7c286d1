"""What synthetic data has planted in it: a method that looks closer finds more."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from synthetic_world import World, read

from grbench_reference.datasets.synthetic.generator import generate

USERS, ITEMS = 1500, 2000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("synthetic") / "release"
    generate(folder, users=USERS, items=ITEMS, seed=1)
    return read(folder)


def test_time_runs_forward_with_ties_and_few_repeats(world: World) -> None:
    user = np.repeat(np.arange(USERS), np.diff(world.offsets))
    same_user = user[1:] == user[:-1]
    steps = np.diff(world.times)[same_user]
    assert (steps >= 0).all()
    assert (steps == 0).any()
    events = np.unique(user * (ITEMS + 1) + world.items)
    assert 0.5 < len(events) / len(world.items) < 1


def test_ads_live_for_a_short_time(world: World) -> None:
    popular = np.argsort(-np.bincount(world.items))[:50]
    spans = [np.ptp(np.percentile(world.times[world.items == item], [2, 98])) / 86_400 for item in popular]
    assert np.median(spans) < 25  # of 60 days
    early = world.items[world.times < np.percentile(world.times, 10)]
    late = world.items[world.times > np.percentile(world.times, 90)]
    assert np.isin(late, early).mean() < 0.2


def hit_rate(lists: np.ndarray, targets: np.ndarray) -> float:
    return float((lists == targets[:, None]).any(axis=1).mean())


def test_history_says_what_comes_next(world: World) -> None:
    """Ten recent ads of the category that the history ended with, against the ten most popular ads."""
    last = world.last_positives
    users = np.flatnonzero((last > world.offsets[:-1]) & np.isin(world.items[last], world.pool))
    targets = world.items[last[users]]
    candidate = np.zeros(ITEMS + 1, bool)
    candidate[world.pool[world.pool > 0]] = True

    def top(score: np.ndarray) -> np.ndarray:
        return np.argsort(-np.where(candidate, score, -1), kind="stable")[:10]

    everything = np.bincount(world.items, minlength=ITEMS + 1)
    recent = np.bincount(world.items[world.times > world.times.max() - 3 * 86_400], minlength=ITEMS + 1)
    most_popular = hit_rate(np.tile(top(everything), (len(users), 1)), targets)
    category = np.append(0, world.ads["112"].fill_null(0).to_numpy())
    lists = {value: top(np.where(category == value, recent, -1)) for value in np.unique(category)}
    informed = hit_rate(np.stack([lists[category[world.items[last[user] - 1]]] for user in users]), targets)
    assert 0 < most_popular < 0.15
    assert informed > 2 * most_popular


def test_clicks_fall_on_the_users_interests(world: World) -> None:
    category = np.append(0, world.ads["112"].fill_null(0).to_numpy())
    user = np.repeat(np.arange(USERS), np.diff(world.offsets))
    pairs = user * 10_000 + category[world.items]
    visits = np.unique(pairs, return_inverse=True, return_counts=True)
    familiar = visits[2][visits[1].ravel()] >= 10
    clicked = world.actions > 0
    assert clicked[familiar].mean() > 1.3 * clicked[~familiar].mean()


def test_likeness_shows_in_features_and_embeddings(world: World) -> None:
    rid = np.array([world.indexer["i"].get(int(name), 0) for name in world.embeddings["anonymous_cid"].to_pylist()])
    lists = world.embeddings["emb"].combine_chunks()
    kept = lists.is_valid().to_numpy(zero_copy_only=False) & (rid > 0)
    vectors = lists.filter(pa.array(kept)).flatten().to_numpy().reshape(-1, 32)
    category = world.ads["117"].fill_null(0).to_numpy()[rid[kept] - 1]
    alike = (category[:, None] == category) & (category > 0)
    np.fill_diagonal(alike, False)
    cosine = vectors @ vectors.T
    assert cosine[alike].mean() > 0.6
    assert cosine[~alike].mean() < 0.3


def test_user_features_tell_of_interests(world: World) -> None:
    """Users who share a value of the long-term interests 106 meet the same ads more often than others do."""
    column = world.users["106"].combine_chunks()
    first = np.array([values[0] if values else 0 for values in column.to_pylist()])
    met = np.zeros((USERS, ITEMS + 1), np.float32)
    met[np.repeat(np.arange(USERS), np.diff(world.offsets)), world.items] = 1
    common = met @ met.T
    np.fill_diagonal(common, np.nan)
    alike = (first[:, None] == first) & (first > 0)
    assert np.nanmean(common[alike]) > 1.1 * np.nanmean(common[~alike])
