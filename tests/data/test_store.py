"""What goes into a store comes out of it; what is not whole is never used."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from grbench.data.store import STORE_FILE, Store
from grbench.data.store_writer import ColumnWriter, build_store
from grbench.errors import DataError
from grbench.temporary import beside
from grbench.testing import tiny_store


def test_every_column_comes_back(tmp_path):
    store = tiny_store(
        tmp_path,
        [[(1, 0, 5), (3, None, 6)], [], [(2, 1, 7)]],
        item_features={"100": [4, None, 0], "110": [[1, 2], [3], None]},
        user_features={"103": [7, None, 1]},
        embeddings={"81": np.array([[1, 0], [np.nan, 0], [0, 0.5]])},
        candidates=[3, 1, 3],
    )
    again = Store.open(store.path)
    assert again.offsets.tolist() == [0, 2, 2, 3]
    assert again.items.tolist() == [1, 3, 2]
    assert again.actions.tolist() == [2, 1, 3]
    assert again.times.tolist() == [5, 6, 7]
    assert again.candidates is not None
    assert again.candidates.tolist() == [1, 3]
    catalogue = again.catalogue
    assert catalogue.item_ids.tolist() == [0, 20_000_000_001, 20_000_000_002, 20_000_000_003]
    assert [(field.name, field.size, field.start, field.width) for field in catalogue.item_features.fields] == [
        ("100", 8, 0, 1),
        ("110", 7, 1, 2),
    ]
    assert catalogue.item_features.values.tolist() == [[0, 0, 0], [7, 4, 5], [1, 6, 0], [3, 1, 0]]
    assert catalogue.user_features.values.tolist() == [[10], [1], [4]]
    assert catalogue.embeddings["81"].present.tolist() == [False, True, False, True]
    assert catalogue.embeddings["81"].values.tolist() == [[0, 0], [1, 0], [0, 0], [0, 0.5]]


TEXTS = ["ein Hut", None, "", "帽子 🎩", "x"]


def test_texts_come_back_by_item_and_padding_and_missing_are_empty(tmp_path):
    store = tiny_store(tmp_path, [[(5, 0, 1)]], item_texts={"title": TEXTS, "shop": [None] * 5})
    texts = Store.open(store.path).catalogue.texts
    assert list(texts) == ["title", "shop"]
    assert len(texts["title"]) == 6
    assert texts["title"].of(np.arange(6)) == ["", "ein Hut", "", "", "帽子 🎩", "x"]
    assert texts["title"].of(np.array([4, 1, 4])) == ["帽子 🎩", "ein Hut", "帽子 🎩"]
    assert texts["shop"].of(np.array([3, 0])) == ["", ""]
    assert isinstance(texts["title"].offsets, np.memmap)
    assert isinstance(texts["title"].encoded, np.memmap)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_are_streamed_in_pieces_of_any_kind(tmp_path, kind):
    class Texts(Source):
        def write(self, writer):
            super().write(writer)
            writer.set_items(np.arange(6))
            column, texts = writer.create_item_text("title"), pa.array(["before", *TEXTS]).cast(kind)
            column.append(texts.slice(1, 2))
            column.append(pa.chunked_array([texts.slice(3, 0), texts.slice(3, 2)]))
            column.append(["x"])

    store = build_store(Texts(), name="s", cache=tmp_path)
    assert store.catalogue.texts["title"].of(np.arange(1, 6)) == [text or "" for text in TEXTS]


@pytest.mark.parametrize("given", [1, 3])
def test_texts_of_more_or_fewer_items_than_there_are_are_refused(tmp_path, given):
    class Texts(Source):
        def write(self, writer):
            super().write(writer)
            writer.create_item_text("title").append(["a"] * given)

    with pytest.raises(DataError, match=f"text title: {given} texts for 2 items; write one per item"):
        build_store(Texts(), name="s", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_from_before_there_were_texts_has_none(tmp_path):
    store = build_store(Source(), name="s", cache=tmp_path)
    described = json.loads((store.path / STORE_FILE).read_text())
    del described["texts"]
    (store.path / STORE_FILE).write_text(json.dumps(described))
    assert Store.open(store.path).catalogue.texts == {}


@pytest.mark.parametrize("blocks", [[], [0], [2, 0, 5], [1] * 1000])
def test_a_streamed_column_is_the_npy_file_numpy_would_write(tmp_path, blocks):
    column = ColumnWriter(tmp_path / "column.npy", np.int32)
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 9, rows) for rows in blocks]
    for part in parts:
        column.append(part)
    column.close()
    whole = np.concatenate(parts) if parts else np.empty(0)
    assert np.array_equal(np.load(tmp_path / "column.npy"), whole)


class Source:
    """A dataset that fails as told, or writes one user."""

    def __init__(self, failure=None, digest="a"):
        self.failure, self._digest, self.writes = failure, digest, 0

    def digest(self):
        return self._digest

    def write(self, writer):
        self.writes += 1
        writer.add_users(np.array([1]), np.array([2]), np.array([1, 2]), np.array([2, 2]), np.array([0, 1]))
        if self.failure:
            raise self.failure
        writer.set_items(np.arange(3))


def test_a_store_is_reused_until_its_source_changes(tmp_path):
    source = Source()
    first = build_store(source, name="s", cache=tmp_path)
    assert build_store(source, name="s", cache=tmp_path).path == first.path
    assert source.writes == 1
    assert build_store(Source(digest="b"), name="s", cache=tmp_path).path != first.path


def test_another_content_of_a_file_that_an_option_names_makes_another_store(tmp_path):
    first, again, other = (
        build_store(Source(), name="s", cache=tmp_path, contents={"file": f"sha256:{digits}"}).path
        for digits in ("aa", "aa", "bb")
    )
    assert first == again != other


def test_another_reader_of_the_same_files_makes_another_store(tmp_path, monkeypatch):
    first = build_store(Source(), name="s", cache=tmp_path)
    monkeypatch.setattr("grbench.data.store_writer.source_hash", lambda factory: "edited")
    assert build_store(Source(), name="s", cache=tmp_path).path != first.path


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DataError, "no space left"),
        (DataError("column x is missing"), DataError, "column x"),
        (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
    ],
)
def test_a_failure_leaves_nothing_half_built(tmp_path, failure, raised, message):
    with pytest.raises(raised, match=message):
        build_store(Source(failure), name="s", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_column_is_on_the_disk_before_the_store_is_one(tmp_path, monkeypatch):
    """A machine that stops must not leave a store.json beside columns that were never written."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    store = build_store(Source(), name="s", cache=tmp_path)
    columns = {path.stat().st_ino for path in store.path.glob("*.npy")}
    assert set(synced[:-1]) == columns
    assert synced[-1] == (store.path / STORE_FILE).stat().st_ino


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("column", ["items", "offsets", "user_ids", "item_ids", "candidates"])
def test_a_disk_that_is_full_is_said_whichever_column_it_stops(tmp_path, column):
    class Unlucky(Source):
        def write(self, writer):
            if column != "items":
                (writer.folder / f"{column}.npy").symlink_to("/dev/full")
            else:
                writer._columns["items"] = ColumnWriter(Path("/dev/full"), np.int32)
            super().write(writer)
            writer.set_candidates(np.arange(1, 3))

    with pytest.raises(DataError, match="no space left"):
        build_store(Unlucky(), name="s", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_column_is_written_by_numpy_which_does_not_say_that_the_disk_is_full(tmp_path, monkeypatch):
    def save(path, array):
        if array.size:
            raise OSError("1048576 requested and 131056 written")  # without a number that says why

    class WithCandidates(Source):
        def write(self, writer):
            super().write(writer)
            writer.set_candidates(np.arange(1, 3))

    monkeypatch.setattr(np, "save", save)
    monkeypatch.setattr(Store, "open", lambda path: path)
    folder = build_store(WithCandidates(), name="s", cache=tmp_path)
    assert {"offsets.npy", "user_ids.npy", "item_ids.npy", "candidates.npy"} <= {path.name for path in folder.iterdir()}


def test_what_a_killed_build_left_is_removed_though_the_store_is_there(tmp_path):
    store = build_store(Source(), name="s", cache=tmp_path)
    with beside(tmp_path / "s-0123") as partial:
        left = partial.with_name(partial.name.replace(f"-{os.getpid()}-", "-999999999-"))
    left.mkdir()
    (left / "items.npy").touch()
    assert build_store(Source(), name="s", cache=tmp_path).path == store.path
    assert list(tmp_path.iterdir()) == [store.path]


def test_a_store_of_another_format_is_refused(tmp_path):
    store = build_store(Source(), name="s", cache=tmp_path)
    described = store.path / STORE_FILE
    described.write_text(json.dumps({**json.loads(described.read_text()), "format": 999}))
    with pytest.raises(DataError, match="format 999"):
        build_store(Source(), name="s", cache=tmp_path)


def test_a_store_that_lost_a_column_is_refused(tmp_path):
    store = build_store(Source(), name="s", cache=tmp_path)
    (store.path / "times.npy").unlink()
    with pytest.raises(DataError, match=r"times\.npy"):
        Store.open(store.path)


@pytest.mark.parametrize("name", ["items", "offsets", "item_ids"])
def test_a_store_whose_column_was_cut_short_is_refused(tmp_path, name):
    store = build_store(Source(), name="s", cache=tmp_path)
    path = store.path / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=rf"{name}\.npy is damaged; remove the folder"):
        Store.open(store.path)


def test_a_dataset_without_users_is_refused(tmp_path):
    class Empty(Source):
        def write(self, writer):
            writer.set_items(np.arange(3))

    with pytest.raises(DataError, match="no user"):
        build_store(Empty(), name="s", cache=tmp_path)


def test_ids_of_text_come_back_as_they_are_and_one_long_id_does_not_widen_all(tmp_path):
    class Names(Source):
        def write(self, writer):
            writer.set_items(np.array(["", "é", "i\0", "i", "long" * 5000], np.dtypes.StringDType()))
            writer.add_users(np.array(["a"]), np.array([2]), np.array([1, 4]), np.array([2, 2]), np.array([0, 1]))
            writer.add_users(np.array(["bcd"]), np.array([1]), np.array([3]), np.array([2]), np.array([0]))

    store = build_store(Names(), name="s", cache=tmp_path)
    assert store.catalogue.item_ids.tolist() == ["", "é", "i\0", "i", "long" * 5000]
    assert store.catalogue.user_ids.tolist() == ["a", "bcd"]
    assert sum(file.stat().st_size for file in store.path.glob("*text*.npy")) < 20_000 + 4 * 128 + 100
