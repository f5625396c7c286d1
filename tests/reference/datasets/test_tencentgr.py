"""The store made from a TencentGR release holds what the release holds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tencentgr_release as world
from hypothesis import given
from hypothesis import strategies as st
from real_data import SAMPLE, needs_sample
from tencentgr_release import COLD, HISTORIES, RIDS, VECTORS, A, B, C, D, E, T, write_release

from grbench.data.store import FeatureTable, Store
from grbench.data.store_writer import build_store
from grbench.errors import DataError
from grbench.interfaces import Dataset
from grbench_reference.datasets.tencentgr import embeddings as tencentgr_embeddings
from grbench_reference.datasets.tencentgr import events as tencentgr_events
from grbench_reference.datasets.tencentgr import features as tencentgr_features
from grbench_reference.datasets.tencentgr.dataset import TencentGR
from grbench_reference.datasets.tencentgr.events import EventBlock, EventCounts
from grbench_reference.datasets.tencentgr.indexer import read_indexer


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


def store_of(root: Path, **options: Any) -> Store:
    return build_store(TencentGR(path=str(root), **options), name="test", cache=root.parent / "cache")


def column(table: FeatureTable, name: str) -> list[Any]:
    """A feature's codes: numbers where it is single-valued, else lists."""
    field = next(field for field in table.fields if field.name == name)
    codes = np.asarray(table.values[:, field.start : field.start + field.width])
    return (codes[:, 0] if field.width == 1 else codes).tolist()


def test_is_a_dataset(release: Path) -> None:
    assert isinstance(TencentGR(path=str(release)), Dataset)
    assert TencentGR.recognises(release)
    assert not TencentGR.recognises(release / "seq")
    assert not TencentGR.recognises(release / "nowhere")


def test_events(release: Path) -> None:
    store = store_of(release)

    assert store.catalogue.user_ids.tolist() == [640, 7, 90]  # in file order, whatever their numbers
    assert store.offsets.tolist() == [0, 4, 5, 7]
    assert store.items.tolist() == [3, 1, 1, 5, 2, 4, 2]
    assert store.actions.tolist() == [2, 3, 1, 2, 2, 3, 2]  # null is token 1
    assert store.times.tolist() == [T, T + 5, T + 5, T + 9, T + 1, T, T + 2]
    assert store.catalogue.actions == ("exposure", "click")
    assert store.catalogue.has_times
    assert store.notes["events"]["tokens"] == [0, 1, 4, 2, 0]


def test_raw_ids_keep_all_their_bits(release: Path) -> None:
    catalogue = store_of(release).catalogue

    assert catalogue.item_ids.dtype == np.int64
    assert catalogue.item_ids.tolist() == [0, A, B, C, D, E, COLD]
    assert (catalogue.num_items, catalogue.num_indexed) == (6, 5)


def test_the_store_is_as_large_as_foretold(release: Path) -> None:
    """All but its json and the 128 bytes that each of 11 columns has as a header. Of the three candidates two are in
    the catalogue too, and are counted again: 8 for the id, 13 features, a vector of 3."""
    dataset = TencentGR(path=str(release))
    assert isinstance(dataset, Dataset)
    store = store_of(release)
    columns = [file.stat().st_size - 128 for file in store.path.glob("*.npy")]
    assert len(columns) == 11
    assert dataset.store_bytes() - 2 * (8 + 13 * 4 + 3 * 2 + 1) == sum(columns)


def test_what_the_footers_do_not_say_is_taken_from_rows_and_the_first_part(release: Path) -> None:
    """No statistics: as many items as item_feat has rows, 4 of 5. A list of 5 values is in a second part only."""
    whole = TencentGR(path=str(release)).store_bytes()
    path = next((release / "item_feat").glob("*.parquet"))
    pq.write_table(pq.read_table(path), path, write_statistics=False)
    assert whole - TencentGR(path=str(release)).store_bytes() == 8 + 13 * 4 + 3 * 2 + 1
    world.write_users(release, {90: {"106": [1, 2, 3, 4, 5]}}, part="part-00001.parquet")
    assert whole - TencentGR(path=str(release)).store_bytes() == 8 + 13 * 4 + 3 * 2 + 1


def test_features_are_read_once(release: Path) -> None:
    """But for the lists of users, whose lengths decide upon the columns."""
    begun: list[str] = []
    build_store(
        TencentGR(path=str(release)),
        name="test",
        cache=release.parent / "cache",
        report=lambda what, done, total: begun.append(what) if not done else None,
    )
    assert [what for what in begun if "feat" in what] == ["item_feat", "user_feat (lengths of lists)", "user_feat"]


def test_item_features(release: Path) -> None:
    features = store_of(release).catalogue.item_features

    # Rows: padding, A, B, C, D (no row in item_feat), E, the cold candidate. A, E and the cold one are candidates, so
    # theirs come from the candidate table: value v is code v + 3, null 1, flagged or unreadable or unheard of 2.
    assert column(features, "100") == [0, 9, 1, 4, 1, 5, 9]
    assert column(features, "115") == [0, 1, 5, 1, 1, 4, 1]
    assert column(features, "121") == [0, 2, 44, 45, 1, 2, 2]
    assert column(features, "122") == [0, 1, 1, 1, 1, 1, 1]
    sizes = {field.name: field.size for field in features.fields}
    assert (sizes["100"], sizes["115"], sizes["121"], sizes["122"]) == (10, 191, 46, 4)


def test_candidates(release: Path) -> None:
    store = store_of(release)

    assert store.candidates is not None
    assert store.candidates.tolist() == [1, 5, 6]
    notes = store.notes["candidates"]
    assert (notes["rows"], notes["repeated"], notes["cold"]) == (3, 0, 1)
    unknown = {name: notes["feature_values"][name] for name in ("flagged_cold", "not_a_number", "beyond_vocabulary")}
    assert unknown == {"flagged_cold": 1, "not_a_number": 1, "beyond_vocabulary": 1}
    assert notes["feature_values_unlike_item_feat"] == 3  # A's 121 became unknown; E's 100 is 2, not 0; E's 121 unknown


def test_both_spellings_of_the_candidate_table_say_the_same(release: Path) -> None:
    released = store_of(release)
    shutil.rmtree(release / "candidate")
    world.write_candidates(release, world.CANDIDATES, organisers=True)
    organisers = store_of(release)

    assert released.digest != organisers.digest
    np.testing.assert_array_equal(released.catalogue.item_features.values, organisers.catalogue.item_features.values)
    np.testing.assert_array_equal(released.catalogue.item_ids, organisers.catalogue.item_ids)
    assert released.candidates is not None
    assert released.candidates.tolist() == organisers.candidates.tolist()


def test_user_features(release: Path) -> None:
    store = store_of(release)
    features = store.catalogue.user_features

    # Rows: 640, 7, 90 (no row in user_feat). 106 holds lists of up to three values, one of them null.
    assert column(features, "103") == [1, 49, 1]
    assert column(features, "106") == [[4, 0, 0], [7, 1, 5], [1, 0, 0]]
    assert column(features, "107") == [1, 1, 1]
    assert column(features, "109") == [6, 1, 1]
    assert store.notes["user_features"]["users_without"] == 1
    assert store.notes["user_features"]["rows_of_users_without_sequence"] == 1
    assert store.notes["user_features"]["nulls_in_lists"]["106"] == 1


def test_embeddings(release: Path) -> None:
    store = store_of(release)
    embedding = store.catalogue.embeddings["81"]

    assert embedding.values.dtype == np.float16
    assert embedding.present.tolist() == [False, True, False, True, False, False, True]
    assert embedding.values[[1, 3, 6]].tolist() == [[1, 2, 3], [0.5, -1, 0.25], [8, 8, 8]]
    assert not embedding.values[[0, 2, 4, 5]].any()


def test_vectors_that_are_none_are_counted(release: Path) -> None:
    world.write_vectors(
        release,
        "emb_84_4096_parquet",  # the folder's name promises another width than the data has
        {A: [1.0, float("nan")], B: [float("inf"), 0.0], C: [1e6, 0.0], D: [None, 1.0], E: [1.0, 2.0], 77: [1.0, 1.0]},
    )
    store = store_of(release, embeddings=[84])

    assert list(store.catalogue.embeddings) == ["84"]
    assert store.catalogue.embeddings["84"].present.tolist() == [False] * 5 + [True, False]
    assert store.catalogue.embeddings["84"].values[5].tolist() == [1, 2]
    notes = store.notes["embeddings"]["84"]
    assert (notes["width"], notes["rows"], notes["null"], notes["unknown_item"]) == (2, 6, 0, 1)
    assert store.remarks == ("embedding 84: 4 with NaN or infinite float16 values count as missing",)


def test_columns_that_the_release_does_not_have_are_named(release: Path) -> None:
    world.add_column(release / "item_feat", "124", pa.array([1, 2, 3, 4]))
    world.add_column(release / "item_feat", "123", pa.array(["a", None, "b", None]))
    world.add_column(release / "user_feat", "111", pa.array([[1], [2], []]))
    world.add_column(release / "candidate", "123", pa.array([1, 2, 3]))
    store = store_of(release)

    assert store.remarks == (
        "item_feat: columns that are not known and not read: 124, 123",
        "user_feat: columns that are not known and not read: 111",
        "candidate: columns that are not known and not read: 123",
    )


def test_one_embedding_in_two_widths_is_named_with_its_width(release: Path) -> None:
    world.write_vectors(release, "emb_84_1_parquet", {A: [1.0]})
    world.write_vectors(release, "emb_84_2_parquet", {A: [1.0, 2.0]})

    assert store_of(release, embeddings=["84_2"]).catalogue.embeddings["84_2"].values.shape == (7, 2)
    with pytest.raises(DataError, match=r"embedding 84 exists more than once; choose one of 84_1, 84_2"):
        store_of(release, embeddings=[84])


def test_without_candidates(release: Path) -> None:
    shutil.rmtree(release / "candidate")
    store = store_of(release)

    assert store.candidates is None
    assert store.notes["candidates"] == f"none: {release} has no folder candidate/"
    assert store.catalogue.num_items == store.catalogue.num_indexed == 5
    assert column(store.catalogue.item_features, "100") == [0, 9, 1, 4, 1, 3]


def test_parts_are_read_in_the_order_of_their_numbers(release: Path) -> None:
    shutil.rmtree(release / "seq")
    for number in (10, 9, 1):
        world.write_events(release, {number: [(1, 0, T)]}, f"part-{number}.parquet")

    assert store_of(release).catalogue.user_ids.tolist() == [1, 9, 10]


def test_batches_and_parts_change_nothing(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = store_of(release)
    shutil.rmtree(release / "seq")
    for number, (user, events) in enumerate(HISTORIES.items()):
        world.write_events(release, {user: events}, f"part-{number:05d}-of-00003.parquet")
    monkeypatch.setattr(tencentgr_events, "_BATCH_USERS", 1)
    monkeypatch.setattr(tencentgr_features, "_BATCH_ROWS", 1)
    monkeypatch.setattr(tencentgr_features, "_BLOCK_ROWS", 2)
    monkeypatch.setattr(tencentgr_embeddings, "_RELEASED_BYTES", 1)
    pieces = store_of(release)

    for name in ("offsets", "items", "actions", "times"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))
    for name in ("item_features", "user_features"):
        np.testing.assert_array_equal(getattr(whole.catalogue, name).values, getattr(pieces.catalogue, name).values)
    np.testing.assert_array_equal(whole.catalogue.embeddings["81"].values, pieces.catalogue.embeddings["81"].values)


def test_events_out_of_order_are_sorted_and_equal_times_keep_their_order(release: Path) -> None:
    events = [(4, 0, T + 9), (2, 0, T + 3), (1, 1, T + 3), (3, 0, T), (2, 1, T + 3)]
    world.write_events(release, {5: [(1, 0, T + 50)], 1: events, 2: None, 3: []})
    store = store_of(release)

    assert store.items.tolist() == [1, 3, 2, 1, 2, 4]
    assert store.actions.tolist() == [2, 2, 2, 3, 3, 2]
    assert store.offsets.tolist() == [0, 1, 6, 6, 6]
    assert store.notes["events"]["users_sorted_by_time"] == 1
    assert store.notes["events"]["users_without_events"] == 2


def test_events_without_an_item_are_left_out_and_counted(release: Path) -> None:
    world.write_events(release, {5: [(None, 0, T), (2, 1, T + 1)], 6: [(None, None, None)], 8: [(1, 0, T)]})
    store = store_of(release)

    assert store.items.tolist() == [2, 1]
    assert store.offsets.tolist() == [0, 1, 1, 2]
    assert store.notes["events"]["events_without_item"] == 2


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=5))
def test_sorting_equals_a_stable_sort_of_each_user(histories: list[list[int]]) -> None:
    times = np.array([time for history in histories for time in history], np.int64)
    lengths = np.array([len(history) for history in histories], np.int64)
    places = np.arange(len(times))
    counts = EventCounts()
    block = tencentgr_events._order(
        EventBlock(np.arange(len(histories)), lengths, places, places.astype(np.int8), times), counts
    )

    by_user = np.split(places, np.cumsum(lengths)[:-1]) if histories else []
    expected = [place for user in by_user for place in sorted(user.tolist(), key=lambda place: times[place])]
    assert block.items.tolist() == block.actions.tolist() == expected
    assert block.times.tolist() == times[expected].tolist()
    assert counts.users_sorted_by_time == sum(history != sorted(history) for history in histories)


def test_actions_are_those_of_the_data_unless_more_are_asked_for(release: Path) -> None:
    assert store_of(release, actions=3).catalogue.actions == ("exposure", "click", "conversion")
    world.write_events(release, {5: [(1, 2, T)]})
    assert store_of(release).catalogue.actions == ("exposure", "click", "conversion")
    assert store_of(release).actions.tolist() == [4]
    with pytest.raises(DataError, match=r"seq: has conversions \(action_type 2\), so it needs actions: 3"):
        store_of(release, actions=2)


def test_columns_without_a_type_or_as_doubles_are_integers_with_nulls(release: Path) -> None:
    # pandas writes a column of nulls without a type, and integers with nulls as doubles.
    columns: dict[str, Any] = dict.fromkeys(world.USER_SCALARS + world.USER_LISTS, pa.nulls(2))
    columns |= {"user_id": pa.array([90, 7], pa.int32()), "103": pa.array([None, 5.0]), "104": [float("nan"), 0.0]}
    world.write_table(release, "user_feat", columns)
    features = store_of(release).catalogue.user_features

    assert column(features, "103") == [1, 8, 1]
    assert column(features, "104") == [1, 3, 1]
    assert column(features, "106") == [1, 1, 1]


def test_digest_names_what_the_options_select(release: Path, tmp_path: Path) -> None:
    def digest(root: Path = release, **options: Any) -> str:
        return TencentGR(path=str(root), **options).digest()

    first = digest()
    assert digest() == first
    assert digest(shutil.copytree(release, tmp_path / "copy")) == first  # content, not place
    world.write_vectors(release, "emb_82_1_parquet", {A: [1.0]})
    assert digest() == first
    assert len({first, digest(embeddings=[81, 82]), digest(embeddings=[]), digest(actions=3)}) == 4
    world.write_events(release, {640: [(1, 0, T)]})
    assert digest() != first


# ---- the organisers' own sample --------------------------------------------------------------------------------------


@needs_sample
def test_the_store_equals_the_sample_value_by_value(tmp_path: Path) -> None:
    store = build_store(TencentGR(path=str(SAMPLE)), name="sample", cache=tmp_path)
    catalogue = store.catalogue
    users = pq.read_table(SAMPLE / "seq").to_pylist()

    assert catalogue.user_ids.tolist() == [row["user_id"] for row in users] == [640, 800]
    for user, row in enumerate(users):
        events = slice(*store.offsets[user : user + 2])
        assert store.items[events].tolist() == [event["item_id"] for event in row["seq"]]
        assert store.actions[events].tolist() == [token(event["action_type"]) for event in row["seq"]]
        assert store.times[events].tolist() == [event["timestamp"] for event in row["seq"]]
    assert sum(len(row["seq"]) for row in users) == len(store.items) == 128

    assert_features_equal(catalogue.item_features, pq.read_table(SAMPLE / "item_feat").to_pylist(), "item_id", None)
    rows = {user: row for row, user in enumerate(catalogue.user_ids.tolist())}
    assert_features_equal(catalogue.user_features, pq.read_table(SAMPLE / "user_feat").to_pylist(), "user_id", rows)

    assert np.array_equal(catalogue.item_ids, read_indexer(SAMPLE / "indexer.pkl").item_ids)
    rows = {oid: row for row, oid in enumerate(catalogue.item_ids.tolist())}
    vectors = pq.read_table(SAMPLE / "mm_emb" / "emb_81_32_parquet").to_pydict()
    expected = np.zeros((58_735, 32), np.float16)
    for oid, vector in zip(vectors["anonymous_cid"], vectors["emb"], strict=True):
        if vector is not None:
            expected[rows[int(oid)]] = vector
    np.testing.assert_array_equal(catalogue.embeddings["81"].values, expected)
    assert catalogue.embeddings["81"].present.sum() == 55_289
    assert store.candidates is None


def token(action: int | None) -> int:
    return 1 if action is None else action + 2


def assert_features_equal(
    table: FeatureTable, source: list[dict[str, Any]], id_column: str, rows: Mapping[int, int] | None
) -> None:
    """Every cell of every row of `source` is in `table`, and every other row is missing throughout."""
    described = [row[id_column] if rows is None else rows[row[id_column]] for row in source]
    for field in table.fields:
        codes = np.asarray(table.values[:, field.start : field.start + field.width])
        for place, row in zip(described, source, strict=True):
            values = row[field.name] if isinstance(row[field.name], list) else [row[field.name]]
            expected = [1 if value is None else value + 3 for value in values] or [1]
            assert codes[place].tolist() == expected + [0] * (field.width - len(expected))
        others = np.delete(codes, [0, *described] if rows is None else described, axis=0)
        assert (others[:, 0] == 1).all()
        assert not others[:, 1:].any()


def test_the_hand_made_world_is_what_the_tests_say() -> None:
    assert [RIDS[oid] for oid in (A, B, C, D, E)] == [1, 2, 3, 4, 5]
    assert COLD not in RIDS
    assert set(VECTORS) <= {A, B, C, D, E, COLD}
    assert all(oid > 2**31 for oid in (*RIDS, COLD))
