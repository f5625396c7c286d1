"""A release that is missing, unfinished or misshapen: one message that says where and what would be right."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tencentgr_release as world
from tencentgr_release import A, B, T, write_release

from grbench.data.store_writer import build_store
from grbench.errors import DataError
from grbench_reference.datasets.parquet_parts import read_ahead
from grbench_reference.datasets.tencentgr.candidates import CandidateCounts, candidate_codes
from grbench_reference.datasets.tencentgr.dataset import TencentGR


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


def change_column(path: Path, name: str, values: Any) -> None:
    """Replaces a column, or drops it where `values` is None."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    table = table.remove_column(place) if values is None else table.set_column(place, name, values)
    pq.write_table(table, path)


def repeat_column(path: Path) -> None:
    """Writes the second column twice."""
    table = pq.read_table(path)
    pq.write_table(table.append_column(table.schema.names[1], table.column(1)), path)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def corrupt_pages(path: Path) -> None:
    """The footer is whole, what it describes is not."""
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(bytes(content))


def leave_partial(root: Path, relative: str) -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


PART = "part-00000.parquet"
LONG = [[1.0, 2.0, 3.0], [1.0, 2.0], None]

CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, r"release: does not exist\. To fetch it .*grbench data download 1M --embeddings 81"),
    "empty": (lambda root: (shutil.rmtree(root), root.mkdir()), r"release: is empty; `grbench data download`"),
    "a file": (lambda root: (shutil.rmtree(root), root.touch()), r"release: is a file; give the folder that holds"),
    "one folder too high": (
        lambda root: (root.rename(root.parent / "inner"), root.mkdir(), (root.parent / "inner").rename(root / "1M")),
        r"has none of indexer.pkl, seq, item_feat, user_feat, .*did you mean .*release/1M\?",
    ),
    "no indexer": (lambda root: (root / "indexer.pkl").unlink(), r"indexer\.pkl: is missing; finish the download"),
    "no folder": (lambda root: shutil.rmtree(root / "seq"), r"release/seq: is missing; it should hold the parquet"),
    "empty folder": (lambda root: (root / "seq" / PART).unlink(), r"release/seq: has no \*\.parquet file"),
    "no rows": (lambda root: world.write_events(root, {}), r"release/seq: its parts have no rows"),
    "partial file": (
        lambda root: leave_partial(root, "item_feat/part-00001.parquet.incomplete"),
        r"part-00001\.parquet\.incomplete: a download is unfinished; resume it",
    ),
    "partial file of the hub's client": (
        lambda root: leave_partial(root, ".cache/huggingface/download/mm_emb/emb_81_3_parquet/xY.0123.incomplete"),
        r"xY\.0123\.incomplete: a download is unfinished",
    ),
    "dangling link": (
        lambda root: (root / "seq" / "part-00001.parquet").symlink_to(root / "blobs" / "0123"),
        r"part-00001\.parquet: is a link to a missing file",
    ),
    "missing part": (
        lambda root: (root / "seq" / PART).rename(root / "seq" / "part-00001-of-00003.parquet"),
        r"seq: has 1 of 3 parts, part-00002-of-00003 is missing; finish the download",
    ),
    "empty file": (lambda root: cut(root / "user_feat" / PART, 0), rf"user_feat/{PART}: cannot be read as parquet"),
    "truncated file": (
        lambda root: cut(root / "seq" / PART, 0.9),
        rf"seq/{PART}: cannot be read as parquet .*truncated",
    ),
    "corrupt file": (lambda root: corrupt_pages(root / "item_feat" / PART), rf"item_feat/{PART}: cannot be read as"),
    "missing column": (
        lambda root: change_column(root / "item_feat" / PART, "117", None),
        rf"item_feat/{PART}: has no column 117 \(int64, nulls allowed\); it has item_id, 100, 101",
    ),
    "missing column of the candidates": (
        lambda root: change_column(root / "candidate" / PART, "item_id", None),
        rf"candidate/{PART}: has no column item_id",
    ),
    "wrong type": (
        lambda root: change_column(root / "item_feat" / PART, "117", pa.array(["a"] * 4)),
        rf"item_feat/{PART}: column 117 is string; it should be int64",
    ),
    "scalar for list": (
        lambda root: change_column(root / "user_feat" / PART, "106", pa.array([1, 2, 3])),
        rf"user_feat/{PART}: column 106 is int64; it should be list<int64>",
    ),
    "events without time": (
        lambda root: change_column(
            root / "seq" / PART,
            "seq",
            pa.array([[]] * 3, pa.list_(pa.struct([("item_id", pa.int64()), ("action_type", pa.int64())]))),
        ),
        rf"seq/{PART}: column seq is list<.*it should be list<struct<item_id: int64, action_type: int64, timestamp",
    ),
    "plain candidate values": (
        lambda root: change_column(root / "candidate" / PART, "101", pa.array([1, 2, 3])),
        rf"candidate/{PART}: column 101 is int64; it should be struct<cold_start: bool, feature_value: string>",
    ),
    "fractions": (
        lambda root: change_column(root / "user_feat" / PART, "104", pa.array([1.5, None, 2.0])),
        rf"user_feat/{PART}, column 104: a value has the wrong type or is out of range",
    ),
    "item beyond the indexer": (
        lambda root: world.write_events(root, {1: [(1, 0, T)], 2: [(2, 0, T), (6, 0, T)]}),
        rf"seq/{PART}, row 1, column seq: 1 event\(s\) from here on have an item_id outside 1\.\.5",
    ),
    "item zero": (
        lambda root: world.write_events(root, {1: [(0, 0, T)]}),
        rf"seq/{PART}, row 0, column seq: 1 event\(s\) from here on have an item_id outside 1\.\.5",
    ),
    "no time": (
        lambda root: world.write_events(root, {1: [(1, 0, None)]}),
        rf"seq/{PART}, row 0, column seq: .* no timestamp; each event needs one, in unix seconds",
    ),
    "unknown action": (
        lambda root: world.write_events(root, {1: [(1, 3, T)]}),
        rf"seq/{PART}, row 0, column seq: .* an unknown action_type; known are 0 to 2 and null",
    ),
    "no user": (
        lambda root: world.write_events(root, {1: [(1, 0, T)], None: [(2, 0, T)]}),
        rf"seq/{PART}, row 1, column user_id: is null",
    ),
    "user twice": (
        lambda root: world.write_events(root, {7: [(1, 0, T)]}, "part-00001.parquet"),
        r"release/seq: user_id 7 has more than one row",
    ),
    "features of an unknown item": (
        lambda root: world.write_items(root, {1: {}, 6: {}}),
        rf"item_feat/{PART}, row 1, column item_id: the id 6 is not in indexer\.pkl, which has 1\.\.5",
    ),
    "negative value": (
        lambda root: world.write_items(root, {1: {"101": 3}, 2: {"101": -1}}),
        rf"item_feat/{PART}, row 1, column 101: 1 value\(s\) such as -1; values are 0 to",
    ),
    "negative value in a list": (
        lambda root: world.write_users(root, {7: {"106": [1, 2]}, 90: {}, 640: {"106": [1, -7]}}),
        rf"user_feat/{PART}, row 2, column 106: 1 value\(s\) such as -7",
    ),
    "embedding not there": (
        lambda root: shutil.rmtree(root / "mm_emb"),
        r"mm_emb: has no folder emb_81_<width>_parquet; embeddings there: none\. Choose with embeddings",
    ),
    "vectors of two widths": (
        lambda root: world.write_vectors(root, "emb_81_3_parquet", dict(zip((A, B, 9), LONG, strict=True))),
        rf"emb_81_3_parquet/{PART}, row 1, column emb: 1 vector\(s\) .* another width than 3, such as 2",
    ),
    "vectors without values": (
        lambda root: world.write_vectors(root, "emb_81_3_parquet", {A: [], B: [1.0, 2.0, 3.0]}),
        rf"emb_81_3_parquet/{PART}, column emb: the first vector has no values",
    ),
    "infinite value id": (
        lambda root: (root / "indexer.pkl").write_bytes(
            pickle.dumps({"i": {A: 1}, "u": {}, "f": {"100": {1: float("inf")}}})
        ),
        r"indexer\.pkl: dictionary f should map each feature to its value ids",
    ),
    "no record of a download": (
        lambda root: (root / "DOWNLOAD.json").write_text('{"files": 3}'),
        r"DOWNLOAD\.json: is not the record of a download; remove it",
    ),
    **{
        f"column twice in {folder}": (
            lambda root, folder=folder: repeat_column(root / folder / PART),
            rf"{folder}/{PART}: has more than one column ",
        )
        for folder in ("seq", "item_feat", "user_feat", "candidate", "mm_emb/emb_81_3_parquet")
    },
    "no vector at all": (
        lambda root: world.write_vectors(root, "emb_81_3_parquet", {A: None}),
        r"emb_81_3_parquet: no row has a vector",
    ),
    "vector of no item": (
        lambda root: world.write_vectors(root, "emb_81_3_parquet", {A: [1.0], "ad_7": [1.0], None: [1.0]}),
        rf"emb_81_3_parquet/{PART}, row 1, column anonymous_cid: 'ad_7' is not a raw item id",
    ),
    "candidate without id": (
        lambda root: change_column(root / "candidate" / PART, "item_id", pa.array([A, None, B])),
        rf"candidate/{PART}, row 1, column item_id: None is not a raw item id",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_message_and_no_store(release: Path, tmp_path: Path, case: str) -> None:
    damage, message = CASES[case]
    damage(release)

    with pytest.raises(DataError, match=message):
        build_store(TencentGR(path=str(release)), name="test", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_an_unfinished_embedding_that_is_not_asked_for_is_no_matter(release: Path) -> None:
    leave_partial(release, "mm_emb/emb_82_1024_parquet/part-00000.parquet.incomplete")

    assert TencentGR(path=str(release)).digest()
    with pytest.raises(DataError, match="a download is unfinished"):
        TencentGR(path=str(release), embeddings=[82]).digest()


def test_a_message_says_the_row_of_its_file_wherever_the_batches_end(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grbench_reference.datasets.tencentgr.events._BATCH_USERS", 2)
    world.write_events(release, {user: [(1, 0, T)] * user for user in range(5)} | {5: [(9, 0, T)]})

    with pytest.raises(DataError, match="row 5, column seq"):
        build_store(TencentGR(path=str(release)), name="test", cache=release.parent / "cache")


def test_candidate_cells() -> None:
    cells: list[dict[str, Any] | None] = [
        {"cold_start": False, "feature_value": "0"},
        {"cold_start": None, "feature_value": "3"},
        {"cold_start": False, "feature_value": "4"},  # one more than the largest that training knows
        {"cold_start": False, "feature_value": "-1"},
        {"cold_start": False, "feature_value": "1.0"},
        {"cold_start": False, "feature_value": "9" * 40},
        {"cold_start": False, "feature_value": ""},
        {"cold_start": True, "feature_value": "3"},  # a raw number that happens to be a value id
        {"cold_start": True, "feature_value": None},
        {"cold_start": False, "feature_value": None},
        None,
    ]
    counts = CandidateCounts()
    codes = candidate_codes(
        pa.array(cells, pa.struct([("cold_start", pa.bool_()), ("feature_value", pa.string())])),
        "cold_start",
        7,
        counts,
    )

    assert codes.tolist() == [3, 6, 2, 2, 2, 2, 2, 2, 2, 1, 1]
    assert (counts.missing, counts.flagged_cold, counts.beyond_vocabulary, counts.not_a_number) == (2, 2, 1, 4)


def test_reading_ahead_keeps_the_order_and_passes_errors_on() -> None:
    def source() -> Any:
        yield from range(5)
        raise DataError("cut short")

    taken = []
    with pytest.raises(DataError, match="cut short"):
        taken.extend(read_ahead(source()))
    stream = read_ahead(source())
    assert [next(stream) for _ in range(5)] == list(range(5))
    stream.close()


def test_a_source_that_changes_while_it_is_read_makes_no_store(release: Path, tmp_path: Path) -> None:
    """The store would keep the digest that the files had before."""
    part = release / "seq" / PART

    def report(what: str, done: int, total: int | None) -> None:
        if what == "indexer.pkl" and done:
            change_column(part, "user_id", pa.array([10 * number for number in range(pq.read_metadata(part).num_rows)]))

    with pytest.raises(DataError, match=rf"{part}: was changed while it was read"):
        build_store(TencentGR(path=str(release)), name="s", cache=tmp_path / "cache", report=report)
    assert list((tmp_path / "cache").iterdir()) == []
    build_store(TencentGR(path=str(release)), name="s", cache=tmp_path / "cache")
