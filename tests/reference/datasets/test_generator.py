"""Synthetic releases: the public layout to the letter, the paper's numbers, the same data from the same options."""

from __future__ import annotations

import errno
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import SAMPLE, needs_sample
from synthetic_world import World, read

from grbench.data.store_writer import build_store
from grbench.errors import DataError
from grbench_reference.datasets.synthetic import generator
from grbench_reference.datasets.synthetic import users as generator_users
from grbench_reference.datasets.synthetic.ads import AdCatalogue, hash_uniform
from grbench_reference.datasets.synthetic.dataset import TencentGRSynthetic
from grbench_reference.datasets.synthetic.generator import estimated_bytes, generate, last_positives
from grbench_reference.datasets.synthetic.schema import (
    AD_FEATURES,
    RELEASES,
    USER_FEATURES,
    num_values,
    pool_size,
)
from grbench_reference.datasets.synthetic.tables import PartWriter
from grbench_reference.datasets.synthetic.users import Population, UserBlock
from grbench_reference.datasets.tencentgr.dataset import TencentGR

USERS, ITEMS = 1500, 2000
QUIET = 1_748_620_800  # 2025-05-31 in Beijing


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("synthetic") / "two"
    generate(folder, users=USERS, items=ITEMS, seed=1, workers=2)
    return read(folder)


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("synthetic") / "three"
    generate(folder, users=USERS, items=ITEMS, actions=3, seed=1)
    return read(folder)


def fingerprint(folder: Path) -> str:
    """One digest over the values of every part, and over the other files' bytes."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            digest.update(f"{path.relative_to(folder)} {pq.read_table(path).to_pylist()}".encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


# The layout.


def test_the_folders_are_those_of_the_public_release(world: World) -> None:
    assert sorted(path.name for path in world.folder.iterdir()) == [
        "README.md", "candidate", "indexer.pkl", "item_feat", "mm_emb", "seq", "user_feat",
    ]  # fmt: skip
    assert [path.name for path in (world.folder / "mm_emb").iterdir()] == ["emb_81_32_parquet"]
    parts = {name: len(list((world.folder / name).iterdir())) for name in ("seq", "item_feat", "user_feat")}
    assert parts == {"seq": 2, "item_feat": 2, "user_feat": 2}


@needs_sample
@pytest.mark.parametrize("name", ["seq", "item_feat", "user_feat", "mm_emb/emb_81_32_parquet"])
def test_every_column_has_the_real_samples_name_and_type(world: World, name: str) -> None:
    real = pq.read_schema(next((SAMPLE / name).iterdir()))
    ours = pq.read_schema(min((world.folder / name).iterdir()))
    assert ours.names == real.names
    assert [str(kind) for kind in ours.types] == [str(kind) for kind in real.types]


def test_the_candidate_table_has_the_public_spelling(world: World) -> None:
    schema = world.candidates.schema
    assert schema.names == ["item_id", "retrieval_id", *(feature.name for feature in AD_FEATURES)]
    assert schema.field("item_id").type == pa.int64()
    assert str(schema.field("121").type) == "struct<cold_start: int64, feature_value: string>"
    assert world.candidates["retrieval_id"].to_pylist() == list(range(1, len(world.candidates) + 1))


def test_ids_fit_together(world: World) -> None:
    ids = world.indexer["i"]
    assert sorted(ids.values()) == list(range(1, ITEMS + 1))
    assert sorted(world.indexer["u"].values()) == list(range(1, USERS + 1))
    assert world.ads["item_id"].to_pylist() == list(range(1, ITEMS + 1))
    assert world.users["user_id"].to_pylist() == list(range(1, USERS + 1))
    assert 1 <= world.items.min() <= world.items.max() <= ITEMS
    candidates = world.candidates["item_id"].to_pylist()
    assert len(set(candidates)) == len(candidates)
    assert min(*ids, *candidates) > 2**31
    described = world.embeddings["anonymous_cid"].to_pylist()
    assert len(set(described)) == len(described)
    assert set(map(int, described)) <= set(ids) | set(candidates)


def test_the_indexer_needs_nothing_but_dictionaries(world: World) -> None:
    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> type:
            assert (module, name) in {("collections", "defaultdict"), ("builtins", "dict")}
            return super().find_class(module, name)

    with (world.folder / "indexer.pkl").open("rb") as file:
        indexer = Restricted(file).load()
    assert set(indexer) == {"i", "u", "f", "a"}
    assert set(indexer["f"]) == {feature.name for feature in (*AD_FEATURES, *USER_FEATURES)}
    assert indexer["a"].keys() == {0, 1}


def test_every_value_is_one_the_indexer_knows(world: World) -> None:
    for feature in AD_FEATURES:
        largest = len(world.indexer["f"][feature.name])
        values = world.ads[feature.name].drop_null().to_numpy()
        assert 1 <= values.min() <= values.max() <= largest
    for feature in USER_FEATURES:
        column = world.users[feature.name].combine_chunks().drop_null()
        values = (column if feature.width == 1 else column.flatten()).to_numpy()
        assert 1 <= values.min() <= values.max() <= len(world.indexer["f"][feature.name])


def test_a_known_candidate_has_its_catalogue_features_and_a_new_value_is_flagged(world: World) -> None:
    pool = world.pool
    known = np.flatnonzero(pool)
    for feature in AD_FEATURES:
        cells = world.candidates[feature.name].to_pylist()
        catalogue = world.ads[feature.name].to_pylist()
        for row in known:
            cell, value = cells[row], catalogue[pool[row] - 1]
            assert (cell is None) == (value is None)
            assert cell is None or cell == {"cold_start": 0, "feature_value": str(value)}
        for cell in filter(None, cells):
            vocabulary = world.indexer["f"][feature.name]
            number = int(cell["feature_value"])
            assert (number not in vocabulary) if cell["cold_start"] else (1 <= number <= len(vocabulary))
    new = sum(cell["cold_start"] for cell in world.candidates["121"].to_pylist())
    assert new / (pool == 0).sum() == pytest.approx(0.58, abs=0.1)


def test_embeddings_are_unit_vectors_with_a_few_nulls(world: World) -> None:
    lists = world.embeddings["emb"].combine_chunks()
    assert 0 < lists.null_count < 0.01 * len(lists)
    vectors = lists.drop_null().flatten().to_numpy().reshape(-1, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    known = {int(name) for name in world.embeddings["anonymous_cid"].to_pylist()} & set(world.indexer["i"])
    assert len(known) / ITEMS == pytest.approx(0.9916, abs=0.01)


# The paper's numbers.


def test_lengths_and_shares_follow_table_1(world: World, conversions: World) -> None:
    for read_back, mean, shares in (
        (world, 91.06, [0.9019, 0.0981]),
        (conversions, 97.29, [0.9463, 0.0285, 0.0252]),
    ):
        lengths = np.diff(read_back.offsets)
        assert lengths.max() == 100
        assert lengths.min() >= 1
        assert lengths.mean() == pytest.approx(mean, abs=1.5)
        known = read_back.actions[read_back.actions >= 0]
        counted = np.bincount(known) / len(known)
        np.testing.assert_allclose(counted, shares, rtol=0.08)
        assert 0 < (read_back.actions < 0).mean() < 0.01


def test_the_last_days_of_three_actions_hold_exposures_only(world: World, conversions: World) -> None:
    assert not (conversions.actions[conversions.times >= QUIET] > 0).any()
    assert (conversions.times >= QUIET).mean() > 0.05
    assert (world.actions[world.times >= QUIET] > 0).any()


def test_coverage_follows_table_2(world: World) -> None:
    for features, table in ((AD_FEATURES, world.ads), (USER_FEATURES, world.users)):
        for feature in features:
            wanted, have = feature.coverage[0], 1 - table[feature.name].null_count / len(table)
            spread = np.sqrt(wanted * (1 - wanted) / len(table))
            assert abs(have - wanted) <= 4 * spread + 1e-9, feature.name


def test_features_that_go_together_are_missing_together(world: World) -> None:
    missing = {name: world.ads[name].is_null().to_numpy() for name in ("112", "117", "118", "119")}
    assert missing["112"].any()
    np.testing.assert_array_equal(missing["112"], missing["117"])
    assert missing["119"][missing["118"]].all()


def test_full_size_has_the_papers_cardinalities() -> None:
    for actions, values in ((2, 90_709), (3, 173_463)):
        release = RELEASES[actions]
        by_name = {feature.name: num_values(feature, release.ads, release) for feature in AD_FEATURES}
        assert by_name == {feature.name: feature.values[release.number] for feature in AD_FEATURES}
        assert by_name["102"] == values
        assert pool_size(release.ads, release) == release.pool


@pytest.mark.parametrize(("name", "counted"), [("102", 11_136), ("118", 745), ("119", 1745), ("115", 187)])
def test_at_the_samples_size_the_cardinalities_are_the_samples(name: str, counted: int) -> None:
    feature = next(feature for feature in AD_FEATURES if feature.name == name)
    assert num_values(feature, 58_734, RELEASES[2]) == pytest.approx(counted, rel=0.02)


def test_a_fifth_of_the_pool_is_cold_and_most_targets_are_in_it(world: World) -> None:
    events = np.bincount(world.items, minlength=ITEMS + 1)
    events[0] = 0  # RID 0 stands for candidates without one
    assert (events[world.pool] == 0).mean() == pytest.approx(0.226, abs=0.002)
    assert len(world.pool) == pool_size(ITEMS, RELEASES[2])
    last = world.last_positives
    share = np.isin(world.items[last[last >= 0]], world.pool).mean()
    assert 0.79 < share < 0.85


# Determinism.


def test_workers_do_not_change_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_users, "BLOCK", 64)
    for workers in (1, 3):
        generate(tmp_path / str(workers), users=300, items=200, workers=workers)
    assert fingerprint(tmp_path / "1") == fingerprint(tmp_path / "3")
    generate(tmp_path / "other", users=300, items=200, seed=1)
    assert fingerprint(tmp_path / "other" / "seq") != fingerprint(tmp_path / "1" / "seq")


def test_more_users_leave_the_first_ones_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_users, "BLOCK", 500)
    catalogue = AdCatalogue(200, 10, RELEASES[2], 0)
    few, many = (Population(catalogue, size, RELEASES[2], 0) for size in (500, 3 * 10**7))
    np.testing.assert_array_equal(few.block(0).ads, many.block(0).ads)


@given(st.integers(50, 3000), st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_draws_equal_a_binary_search(num_ads: int, shares: list[float], seed: int) -> None:
    catalogue = AdCatalogue(num_ads, 5, RELEASES[2], seed)
    at = np.array(shares) * catalogue.cumulative_popularity[-1]
    expected = (np.searchsorted(catalogue.cumulative_popularity, at, side="right") - 1).clip(0, num_ads - 1)
    # Where the guide's own rounding puts a draw on the other side of a boundary, it is off by one at the most.
    boundary = np.isclose(at, catalogue.cumulative_popularity[expected], rtol=1e-12) | np.isclose(
        at, catalogue.cumulative_popularity[expected + 1], rtol=1e-12
    )
    assert (np.abs(catalogue.ads_at(at) - expected)[boundary] <= 1).all()
    np.testing.assert_array_equal(catalogue.ads_at(at)[~boundary], expected[~boundary])


def test_hashed_chance_is_even_and_independent() -> None:
    keys = np.arange(100_000)
    one, other = hash_uniform(keys, 0, 1), hash_uniform(keys, 0, 2)
    np.testing.assert_allclose(np.histogram(one, bins=10, range=(0, 1))[0], 10_000, rtol=0.05)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    np.testing.assert_array_equal(one[500:600], hash_uniform(keys[500:600], 0, 1))


def test_last_positives_by_hand() -> None:
    #        user 0: click on 11 is the last | user 1: none      | user 2: conversion on 16 | user 3: null only
    ads = [10, 11, 12, 13, 14, 15, 16, 17]
    actions = [1, 1, 0, 0, 0, 1, 2, -1]
    block = UserBlock(
        first=0,
        lengths=np.array([3, 2, 2, 1]),
        ads=np.array(ads, np.int32),
        actions=np.array(actions, np.int8),
        times=np.zeros(8, np.int64),
        interests=np.zeros((4, 4), np.int32),
    )
    assert last_positives(block).tolist() == [11, 16]


def test_parts_are_cut_wherever_the_pieces_end(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    with PartWriter(tmp_path / "seq", schema, 7) as parts:
        for piece in ([0, 1, 2], [3, 4, 5, 6]):
            parts.write(pa.table({"n": piece}, schema=schema))
    found = [pq.read_table(path)["n"].to_pylist() for path in sorted((tmp_path / "seq").iterdir())]
    assert found == [[0, 1, 2, 3], [4, 5, 6]]


# As a dataset.


def test_the_dataset_is_the_release_in_a_store(tmp_path: Path) -> None:
    generate(tmp_path / "release", users=60, items=100, seed=4)
    released = build_store(TencentGR(path=str(tmp_path / "release")), name="release", cache=tmp_path / "cache")
    dataset = TencentGRSynthetic(users=60, items=100, seed=4)
    store = build_store(dataset, name="synthetic", cache=tmp_path / "cache")
    for name in ("offsets", "items", "actions", "times", "candidates"):
        np.testing.assert_array_equal(getattr(store, name), getattr(released, name), err_msg=name)
    np.testing.assert_array_equal(store.catalogue.item_features.values, released.catalogue.item_features.values)
    np.testing.assert_array_equal(store.catalogue.embeddings["81"].values, released.catalogue.embeddings["81"].values)
    assert store.catalogue.actions == ("exposure", "click")
    assert not list(store.path.glob("release-*"))


def test_a_datasets_digest_is_that_of_its_options() -> None:
    assert TencentGRSynthetic(seed=1).digest() == TencentGRSynthetic(seed=1).digest()
    options = ({}, {"seed": 1}, {"users": 4001}, {"items": 5001}, {"actions": 3}, {"embeddings": []})
    assert len({TencentGRSynthetic(**given).digest() for given in options}) == len(options)


# What is refused.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"users": 9}, "users: 9; a synthetic release needs at least 10"),
        ({"items": 49}, "items: 49; a synthetic release needs at least 50"),
        ({"actions": 4}, "actions: 4; a synthetic release has 2"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        generate(tmp_path / "out", **({"users": 20, "items": 60} | wrong))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(DataError, match="already exists"):
        generate(tmp_path, users=20, items=60)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    generate(tmp_path, users=20, items=60)
    assert (tmp_path / "indexer.pkl").is_file()


def test_a_disk_without_room_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = generator.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(generator.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="GB are free there"):
        generate(tmp_path / "out", users=20, items=60)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(generator.tables, "write_indexer", full)
    with pytest.raises(DataError, match="No space left"):
        generate(tmp_path / "out", users=20, items=60)
    assert not list(tmp_path.iterdir())


def test_the_estimate_covers_what_is_written(world: World) -> None:
    written = sum(path.stat().st_size for path in world.folder.rglob("*") if path.is_file())
    assert written < estimated_bytes(USERS, ITEMS, RELEASES[2]) < 3 * written
