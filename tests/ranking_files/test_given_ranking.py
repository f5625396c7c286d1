"""Files of lists in each format, good and wrong, against a split of three users and four candidates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grbench.data.histories import Histories
from grbench.data.split import Queries, Split
from grbench.data.training_data import TrainingData
from grbench.errors import GRBenchError, RunError
from grbench.evaluation.ranking import target_ranks
from grbench.ranking_files import item_rows, list_rows
from grbench.ranking_files.formats import format_of, read_given_lists
from grbench.ranking_files.given_lists import GivenLists
from grbench.ranking_files.given_ranking import GivenRanking, given_ranking
from grbench.ranking_files.id_rows import IdRows
from grbench.testing import tiny_store
from grbench.types import Ranking

OID = 20_000_000_000
"""Item i has the id OID + i in the source, user row u the id 1000 + u."""


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Users 1002, 1000 and 1001 are evaluated, in this order; their targets are items 1, 2 with 3, and 4. User 1003 is
    not. Item 5 is no candidate; each user has met item 1."""
    store = tiny_store(tmp_path_factory.mktemp("store"), [[(1, 0, 1)]] * 4, num_items=5)
    users = np.array([2, 0, 1])
    histories = Histories(store, users, store.offsets[users], store.offsets[users + 1])
    targets = np.array([[1, 0], [2, 3], [4, 0]])
    queries = Queries(histories, targets, np.where(targets > 0, 3, 0), next_action=3)
    return Split(TrainingData(store.catalogue, histories), None, queries, np.array([1, 2, 3, 4]))


def read(path: Path, split: Split, form: str | None = None, **options: Any) -> GivenRanking:
    catalogue = split.training.catalogue
    users = IdRows(np.asarray(catalogue.user_ids), "user", first_row=0)
    items = IdRows(np.asarray(catalogue.item_ids[1:]), "item", first_row=1)
    given_lists = read_given_lists(path, format_of(path, form), users, items, lambda *_: None)
    options = {"length": 3, **options}
    return given_ranking(given_lists, split, path, report=lambda *_: None, **options)


LISTS = {1000: [2, 4, 3], 1001: [1, 2], 1002: [3, 1, 2]}
SCORES = {1000: [0.5, 0.25, 0.25], 1001: [2.0, 1.0], 1002: [3.0, 2.0, 2.0]}


def rows(with_scores: bool = True) -> list[tuple[int, int, int, float]]:
    """(user, item id, rank, score)."""
    return [
        (user, OID + item, place + 1, SCORES[user][place] if with_scores else -place)
        for user, items in LISTS.items()
        for place, item in enumerate(items)
    ]


def write(path: Path, text: Any) -> Path:
    if isinstance(text, bytes):
        path.write_bytes(text)
    elif isinstance(text, dict) and path.suffix == ".parquet":
        pq.write_table(pa.table(text), path)
    else:
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def trec(entries: Sequence[tuple[int, int, int, float]]) -> str:
    return "".join(f"{user} Q0 {item} {rank} {score} tag\n" for user, item, rank, score in entries)


def as_lists() -> dict[str, Any]:
    return {
        "user": [*LISTS],
        "items": [[OID + item for item in items] for items in LISTS.values()],
        "scores": [*SCORES.values()],
    }


GOOD: dict[str, Any] = {
    "a.parquet": as_lists(),
    "more.parquet": {**as_lists(), "ranks": [[1], [1], [1]], "other": ["x", "y", "z"]},
    "text.parquet": {**as_lists(), "user": ["1000", "1001", "1002"]},
    "fixed.parquet": {
        "user": [1002, 1000],
        "items": pa.array([[OID + 3, OID + 1, OID + 2], [OID + 2, OID + 4, OID + 3]], pa.list_(pa.int64(), 3)),
        "scores": pa.array([[3.0, 2, 2], [0.5, 0.25, 0.25]], pa.list_(pa.float32(), 3)),
    },
    "a.trec": trec(rows()),
    "tabs.run": trec(rows()[::-1]).replace(" ", "\t").replace("\n", "\r\n").strip(),
    "spaces.txt": "\ufeff" + trec(rows()).replace(" ", "  "),
    "a.json": {"time": 3.5, "user": [*LISTS], "top10s": as_lists()["items"], "scores": [*SCORES.values()]},
    "text.json": {
        "user": [f"{user}" for user in LISTS],
        "top10s": [[f"{OID + item}" for item in items] + ["0"] * 3 for items in LISTS.values()],
        "scores": [[*scores, 0, 0, 0] for scores in SCORES.values()],
    },
    "a.csv": "user,item,score\n" + "".join(f"{user},{item},{score}\n" for user, item, _, score in rows()),
    "any.tsv": "x\tscore\titem\tuser\n"
    + "".join(f"?\t{score}\t{item}\t{user}\n" for user, item, _, score in rows()[::-1]),
    "both.csv": "user,item,rank,score\n"
    + "".join(f'"{user}",{item},{9 - rank},{score}\n' for user, item, rank, score in rows()),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_format_gives_the_same_ranking(split: Split, tmp_path: Path, name: str) -> None:
    found = read(write(tmp_path / name, GOOD[name]), split, empty_if_missing=True)
    ranking = found.ranking
    assert sorted(ranking.items[0].tolist()) == [1, 2, 3]  # of equal scores, the order is the file's
    assert sorted(ranking.items[1].tolist()) == [2, 3, 4]
    assert ranking.items[:2, 0].tolist() == [3, 2]
    assert ranking.scores[:2].tolist() == [[3, 2, 2], [0.5, 0.25, 0.25]]
    # Item 1 is tied for the places 2 and 3; item 2 is first, and item 3 tied; item 4 is not in the list.
    assert ranking.ranks.tolist() == [[3, 0], [1, 3], [0, 0]]
    assert ranking.items[2].tolist() == ([0, 0, 0] if name == "fixed.parquet" else [1, 2, 0])
    assert (ranking.pool, found.missing, found.not_evaluated) == (4, int(name == "fixed.parquet"), 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", {key: value for key, value in as_lists().items() if key != "scores"}),
        ("a.json", {"user": [*LISTS], "top10s": as_lists()["items"]}),
        ("a.csv", "user,item,rank\n" + "".join(f"{user},{item},{rank}\n" for user, item, rank, _ in rows()[::-1])),
    ],
)
def test_without_scores_the_order_is_strict(split: Split, tmp_path: Path, name: str, content: Any) -> None:
    ranking = read(write(tmp_path / name, content), split).ranking
    assert ranking.items.tolist() == [[3, 1, 2], [2, 4, 3], [1, 2, 0]]
    assert ranking.ranks.tolist() == [[2, 0], [1, 3], [0, 0]]


def test_a_tie_that_goes_on_beyond_the_list_is_beyond_it_for_its_targets(split: Split, tmp_path: Path) -> None:
    flags = {"tied_beyond": [True, False, True]}
    beyond = {**as_lists(), **flags}
    content = {**beyond, "top10s": beyond["items"]}
    tags = ["t" if user == 1001 else "t:tied_beyond" for user, *_ in rows()]
    tagged = "".join(line.replace("tag", tag) for line, tag in zip(trec(rows()).splitlines(True), tags, strict=True))
    flagged = "".join(f"{user},{item},{score},{int(user != 1001)}\n" for user, item, _, score in rows())
    for name, text in (
        ("a.parquet", beyond),
        ("a.json", {key: content[key] for key in ("user", "top10s", "scores", "tied_beyond")}),
        ("a.trec", tagged),
        ("a.csv", "user,item,score,tied_beyond\n" + flagged),
    ):
        assert read(write(tmp_path / name, text), split).ranking.ranks.tolist() == [[0, 0], [1, 0], [0, 0]], name


def test_lists_are_cut_and_users_who_are_not_evaluated_left_out(split: Split, tmp_path: Path) -> None:
    content = as_lists()
    content = {
        "user": [*content["user"], 1003],
        "items": [*content["items"], [OID + 5]],  # which is no candidate, but nobody looks at it
        "scores": [*content["scores"], [1.0]],
    }
    found = read(write(tmp_path / "a.parquet", content), split, length=2)
    assert found.not_evaluated == 1
    assert found.ranking.items.tolist() == [[3, 1], [2, 4], [1, 2]]
    assert found.ranking.ranks.tolist() == [[0, 0], [1, 0], [0, 0]]  # the ties reach beyond the cut


def lists_with(**changes: Any) -> dict[str, Any]:
    return {**as_lists(), **changes}


ITEMS = as_lists()["items"]
WRONG: dict[str, tuple[str, Any, str]] = {
    "user": ("a.parquet", lists_with(user=[7, 1000, 8]), "2 user ids are not in the dataset, the first is '7'"),
    "item": (
        "a.parquet",
        lists_with(items=[[5, 6, 7], *ITEMS[1:]]),
        "3 item ids are not in the dataset, the first is '5'",
    ),
    "twice": (
        "a.parquet",
        lists_with(user=[1000, 1000, 1000]),
        "1 users have more than one list, the first is user 1000",
    ),
    "missing": (
        "a.trec",
        trec(rows()[:3]),
        "2 of the 3 evaluated users have no list, the first is user 1002; --missing empty",
    ),
    "again": (
        "a.parquet",
        lists_with(items=[[OID + 2] * 3, [OID + 4] * 2, ITEMS[2]]),
        f"2 lists have an item twice; the first is that of user 1000, at item {OID + 2}",
    ),
    "pool": (
        "a.parquet",
        lists_with(items=[[OID + 5, *ITEMS[0][1:]], *ITEMS[1:]]),
        f"an item that is no candidate, or is filtered out; the first is that of user 1000, at item {OID + 5}",
    ),
    "unsorted": (
        "a.parquet",
        lists_with(scores=[[1, 2, 3], [1.0, 2], [3, 2, 1]]),
        "2 lists have scores that are not sorted, best first; the first is that of user 1000",
    ),
    "nan": (
        "a.parquet",
        lists_with(scores=[[1, 0, np.nan], [2.0, 1], [3, 2, 1]]),
        "1 list has a score that is NaN or infinite; the first is that of user 1000",
    ),
    "nan text": ("a.csv", "user,item,score\n1000,1,2\n1000,2,nan\n", "line 3: a score is missing, NaN or infinite"),
    "number": ("a.trec", "1000 Q0 1 1 high t\n", "line"),
    "columns": ("a.trec", "1000 Q0 1 1 0.5 t\n1000 Q0 2 2 0.25\n", "line 2: Expected 6 columns, got 5"),
    "header": ("a.csv", "1000,1,1\n", "the first line should name the columns, user,item,score or user,item,rank"),
    "rank": (
        "a.csv",
        "user,item,rank\n1000,20000000001,1\n1000,20000000002,0\n",
        "line 3: rank should be a whole number from 1",
    ),
    "empty": ("a.csv", "", "is empty"),
    "nothing": ("a.csv", "user,item,rank\n", "holds no lists"),
    "lengths": ("a.parquet", lists_with(scores=[[1.0], [1.0], [1.0]]), "each list should have one score per item"),
    "no lists": ("a.parquet", lists_with(items=[1, 2, 3]), "items should hold a list per user; it holds int64"),
    "null": ("a.parquet", lists_with(items=[None, *ITEMS[1:]]), "items: 1 lists are missing (null)"),
    "null item": ("a.parquet", lists_with(items=[[None, *ITEMS[0][1:]], *ITEMS[1:]]), "1 item ids are missing (null)"),
    "floats": (
        "a.parquet",
        lists_with(user=[1000.0, 1001.0, 1002.0]),
        "user ids should be whole numbers, as in the dataset; these are double",
    ),
    "no column": ("a.parquet", {"user": [1]}, "should have one column 'items'"),
    "no parquet": ("a.parquet", "user,items", "cannot be read as parquet"),
    "mixed": ("a.json", {"user": [1000, "1001"], "top10s": [[], []]}, "mixes types, such as numbers and text"),
    "no json": ("a.json", '{"user": [1', "is not JSON of ranked lists"),
    "shape": ("a.json", {"1000": [1, 2]}, 'it should be {"user": [id, ...], "top10s": [[item, ...], ...]}'),
    "counts": (
        "a.json",
        {"user": [1000], "top10s": ITEMS},
        "each user needs one entry of each key, and there are 1 of user, 3 of top10s",
    ),
    "inner zero": (
        "a.json",
        {"user": [1000], "top10s": [[0, OID + 1]]},
        "1 item ids are not in the dataset, the first is '0'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_message(split: Split, tmp_path: Path, case: str) -> None:
    name, content, said = WRONG[case]
    with pytest.raises(RunError) as raised:
        read(write(tmp_path / name, content), split)
    message = str(raised.value)
    assert said in message
    assert message.startswith(f"{tmp_path / name}: ")
    assert "\n" not in message


def test_lists_that_do_not_keep_to_the_filters_are_refused(split: Split, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", as_lists())
    with pytest.raises(RunError, match=rf"2 lists have an item of the user's history.*user 1001, at item {OID + 1}"):
        read(path, split, filters=["history"])
    with pytest.raises(
        RunError, match=rf"3 lists have an item that is no candidate, or is filtered out.*at item {OID + 2}"
    ):
        read(path, split, filters=["no_training_event"])


def test_a_suffix_that_stands_for_nothing_is_refused() -> None:
    assert [format_of(Path(name), None) for name in ("a.PARQUET", "b.run", "c.tsv")] == ["parquet", "trec", "csv"]
    assert format_of(Path("a.xyz"), "csv") == "csv"
    with pytest.raises(GRBenchError, match=r"a\.jsonl: its suffix stands for no format of lists; give --format"):
        format_of(Path("a.jsonl"), None)


def test_a_line_is_named_in_later_blocks_too(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_rows, "BLOCK_BYTES", 40)
    whole = trec(rows())
    assert read(write(tmp_path / "a.trec", whole), split).ranking.ranks.tolist() == [[3, 0], [1, 3], [0, 0]]
    with pytest.raises(RunError, match=r"a\.trec: line 9: Expected 6 columns, got 2"):
        read(write(tmp_path / "a.trec", whole + "1002 Q0\n"), split)
    with pytest.raises(RunError, match="line 10: a score is missing"):
        read(write(tmp_path / "a.csv", GOOD["a.csv"] + "1002,20000000004,inf\n"), split)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), blocks=st.integers(1, 3))
def test_ranks_are_those_of_the_search(split: Split, seed: int, blocks: int) -> None:
    """The same lists, ranked as a search's lists are: one more item than is asked for, so that ties are seen."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(4) + 1 for _ in range(3)])
    scores = -np.sort(-rng.integers(3, size=(3, 4)).astype(np.float64), axis=1)
    order = rng.permutation(3)  # of the users in the file
    given_lists = GivenLists(
        users=split.test.users[order].astype(np.int32),
        offsets=np.arange(4) * 4,
        items=items[order].ravel().astype(np.int32),
        scores=scores[order].ravel(),
        tied_beyond=np.zeros(3, bool),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grbench.ranking_files.given_ranking.LISTS_AT_ONCE", blocks)
        found = given_ranking(given_lists, split, Path("lists"), length=3, report=lambda *_: None).ranking
    assert isinstance(found, Ranking)
    np.testing.assert_array_equal(found.ranks, target_ranks(items, scores, split.test.targets, 3))
    np.testing.assert_array_equal(found.items, items[:, :3])
    np.testing.assert_array_equal(found.scores, scores[:, :3].astype(np.float32))


def test_a_file_that_says_to_hold_more_than_it_can_is_refused(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_rows, "FEW_VALUES", 10)
    monkeypatch.setattr(list_rows, "MOST_VALUES_PER_BYTE", 0.001)
    with pytest.raises(RunError, match=r"a\.parquet: cannot be read \(it says to hold 19 values in "):
        read(write(tmp_path / "a.parquet", as_lists()), split)
