"""The report behind `grbench data validate`: everything is read, whatever is wrong elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tencentgr_release as world
from tencentgr_release import COLD, A, T, write_release

from grbench.data.store_writer import build_store
from grbench.errors import DataError
from grbench_reference.datasets.tencentgr.dataset import TencentGR
from grbench_reference.datasets.tencentgr.validation import Finding


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


def findings(root: Path, **options: Any) -> dict[str, Finding]:
    return {finding.part: finding for finding in TencentGR(path=root, **options).validate(lambda *_: None)}


def test_a_sound_release(release: Path) -> None:
    found = findings(release)

    assert [part for part, finding in found.items() if finding.status == "problem"] == []
    assert found["indexer.pkl"] == Finding("indexer.pkl", "ok", 5, "5 items, 640 users, value ids of 4 features")
    assert found["seq"].rows == 3
    assert "3 users, 7 events, at most 4 a user; 2025-04-24 to 2025-04-24" in found["seq"].detail
    assert "exposure 4 (57.14 %), click 2 (28.57 %), no action 1 (14.29 %)" in found["seq"].detail
    assert "describes 4 (80.00 %) of the indexer's items; 1 items of seq have no row" in found["item_feat"].detail
    assert found["item_feat.115"] == Finding("item_feat.115", "ok", 2, "2 (50.00 %) have a value; largest 2")
    assert found["item_feat.122"].status == "absent"
    assert "1 users of seq have no row; 1 rows are of users that are not in seq" in found["user_feat"].detail
    assert found["user_feat.106"].detail == "2 (66.67 %) have a value; largest 4; up to 3 a row, 1 nulls"
    assert "item_id and cold_start; 0 repeated ids; 1 are not in the indexer (cold)" in found["candidate"].detail
    assert "unknown: 1 flagged, 1 not a number, 1 beyond the vocabulary" in found["candidate.121"].detail
    embedding = found["mm_emb/emb_81_3_parquet"]
    assert (embedding.status, embedding.rows) == ("ok", 4)
    assert (
        "3-d; 1 null and 0 with NaN or infinite float16 values count as missing; 1 not in the indexer"
        in embedding.detail
    )
    assert "2 (40.00 %) of the indexer's items have a vector" in embedding.detail
    assert [part for part in found if part.startswith("mm_emb/emb_8")][-5:] == [
        f"mm_emb/emb_{number}" for number in (82, 83, 84, 85, 86)
    ]


def test_every_part_is_read_though_others_are_broken(release: Path) -> None:
    (release / "indexer.pkl").write_bytes(b"no pickle")
    world.write_events(release, {1: [(1, 7, T), (2, 0, None)], 2: [(3, 0, 1_745_456_042_000)]})
    world.write_items(release, {-4: {"100": -5}, 1: {"100": 3}})
    shutil.rmtree(release / "user_feat")
    world.write_candidates(release, {A: {}, 0: {}, COLD: {}})
    world.write_vectors(release, "emb_81_3_parquet", {A: [1.0, 2.0], COLD: [1.0], 5: [0.0, 0.0]})
    world.write_vectors(release, "emb_82_2_parquet", {A: [1.0, 2.0]})
    found = findings(release)

    status = {part: finding.status for part, finding in found.items() if "." not in part or part == "indexer.pkl"}
    assert status == {
        "indexer.pkl": "problem",
        "seq": "problem",
        "item_feat": "problem",
        "user_feat": "problem",
        "candidate": "ok",
        "mm_emb/emb_81_3_parquet": "problem",
        "mm_emb/emb_82_2_parquet": "ok",
        **{f"mm_emb/emb_{number}": "absent" for number in (83, 84, 85, 86)},
    }
    assert "damaged or truncated" in found["indexer.pkl"].detail
    assert "no timestamp" in found["seq"].detail
    assert "(and 2 more faults)" in found["seq"].detail  # the action, and times in milliseconds
    assert "row 0, column item_id: 1 id(s) from here on are outside" in found["item_feat"].detail
    assert "user_feat: is missing" in found["user_feat"].detail
    assert "vectors are 2-d, the folder's name says 3-d (and 1 more" in found["mm_emb/emb_81_3_parquet"].detail


def test_milliseconds_and_repeated_users_are_problems(release: Path) -> None:
    world.write_events(release, {7: [(1, 0, T * 1000)]})
    assert "timestamps run from 1745456042000 to 1745456042000; they should be unix seconds" in (
        findings(release)["seq"].detail
    )
    world.write_events(release, {7: [(1, 0, T)]}, "part-00001.parquet")
    world.write_events(release, {7: [(1, 0, T)]})
    assert "1 users have more than one row, such as 7" in findings(release)["seq"].detail


def test_without_candidates(release: Path) -> None:
    shutil.rmtree(release / "candidate")

    assert findings(release)["candidate"].status == "absent"
    assert "all items have to be ranked" in findings(release)["candidate"].detail


def test_the_options_are_what_the_release_has_to_go_with(release: Path) -> None:
    world.write_events(release, {7: [(1, 2, T)]})
    assert findings(release, actions=3)["seq"].status == "ok"
    found = findings(release, actions=2, embeddings=[82])
    assert found["seq"].status == "problem"
    assert "has conversions (action_type 2), so it needs actions: 3" in found["seq"].detail
    assert found["mm_emb/emb_82"].status == "problem"
    assert "has no folder emb_82_<width>_parquet; embeddings there: 81 (3-d)" in found["mm_emb/emb_82"].detail


def test_a_release_of_users_without_events_is_a_problem_as_it_is_for_the_store(release: Path) -> None:
    world.write_events(release, {7: [], 8: None})
    assert findings(release)["seq"].status == "problem"
    assert "seq: has no events" in findings(release)["seq"].detail
    with pytest.raises(DataError, match="no users, no items or no events"):
        build_store(TencentGR(path=release), name="s", cache=release.parent / "cache")


def test_what_is_not_read_is_named(release: Path) -> None:
    world.write_vectors(release, "emb_81_3_parquet", {A: [1.0, 2.0, 3.0], COLD: [float("nan"), 0.0, 0.0]})
    world.add_column(release / "item_feat", "123", pa.array([1, 2, 3, 4]))
    world.add_column(release / "user_feat", "123", pa.array([1, 2, 3]))
    world.add_column(release / "candidate", "124", pa.array([1, 2, 3]))
    longer = [[{"item_id": 1, "action_type": 0, "timestamp": T, "seconds_seen": 2}]]
    world.write_table(release, "seq", {"user_id": pa.array([7]), "seq": pa.array(longer), "city": pa.array(["x"])})
    found = findings(release)

    named = {"seq": "city, seq.seconds_seen", "item_feat": "123", "user_feat": "123", "candidate": "124"}
    for part, columns in named.items():
        assert found[part].status == "ok"
        assert found[part].detail.endswith(f"columns that are not known and not read: {columns}")
    assert (
        "0 null and 1 with NaN or infinite float16 values count as missing" in found["mm_emb/emb_81_3_parquet"].detail
    )


def test_progress_reaches_the_end_of_every_part(release: Path) -> None:
    done: dict[str, tuple[int, int | None]] = {}
    TencentGR(path=str(release)).validate(lambda what, rows, total: done.update({what: (rows, total)}))

    assert done == {
        "indexer.pkl": (1, 1),
        "seq": (3, 3),
        "item_feat": (4, 4),
        "user_feat": (3, 3),
        "candidate": (3, 3),
        "mm_emb/emb_81_3_parquet": (4, 4),
    }


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        findings(tmp_path)
