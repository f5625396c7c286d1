"""indexer.pkl is read without running anything in it."""

from __future__ import annotations

import builtins
import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tencentgr_release import VOCABULARY, A, B, C, D, E, write_indexer

from grbench.errors import DataError
from grbench_reference.datasets.tencentgr.id_lookup import IdLookup
from grbench_reference.datasets.tencentgr.indexer import read_indexer


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ids_and_vocabulary(tmp_path: Path, protocol: int) -> None:
    indexer = read_indexer(write_indexer(tmp_path, protocol=protocol))

    assert indexer.item_ids.dtype == np.int64
    assert indexer.item_ids.tolist() == [0, A, B, C, D, E]
    assert indexer.num_items == 5
    assert indexer.num_users == 640
    assert indexer.vocabulary == VOCABULARY


class Evil:
    """Unpickled by plain `pickle.load`, this leaves a file behind."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("imported", "evil"),
    [
        ("posix.mkdir", lambda path: Evil(os.mkdir, str(path))),
        ("builtins.eval", lambda path: Evil(builtins.eval, f"__import__('os').mkdir({str(path)!r})")),
        ("builtins.getattr", lambda path: Evil(getattr, {}, "keys")),
        ("collections.OrderedDict", lambda path: OrderedDict()),
        ("numpy", lambda path: np.arange(3)),
    ],
)
def test_nothing_else_is_imported(tmp_path: Path, imported: str, evil: Any) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "indexer.pkl"
    path.write_bytes(pickle.dumps({"i": {1: 1}, "u": {}, "f": {}, "a": evil(trace)}))

    with pytest.raises(DataError, match=rf"indexer\.pkl: tries to import {imported}"):
        read_indexer(path)
    assert not trace.exists()


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_cut_short(tmp_path: Path, size: int) -> None:
    path = write_indexer(tmp_path)
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(DataError, match=r"indexer\.pkl: damaged or truncated"):
        read_indexer(path)


@pytest.mark.parametrize("content", [[1, 2], {"i": {1: 1}}, {"i": [1], "u": {}, "f": {}}])
def test_another_pickle(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "indexer.pkl"
    path.write_bytes(pickle.dumps(content))

    with pytest.raises(DataError, match="is not an indexer of the release"):
        read_indexer(path)


@pytest.mark.parametrize("rids", [{A: 1, B: 3}, {A: 1, B: 1}, {A: 0, B: 1}, {A: -1, B: 2}, {}])
def test_items_that_are_not_numbered_one_to_n(tmp_path: Path, rids: dict[int, int]) -> None:
    with pytest.raises(DataError, match=rf"should number its {len(rids)} items from 1 to {len(rids)}, each once"):
        read_indexer(write_indexer(tmp_path, rids))


@pytest.mark.parametrize("rids", [{"ad": 1}, {2**70: 1}, {A: None}])
def test_ids_that_are_no_int64(tmp_path: Path, rids: Any) -> None:
    with pytest.raises(DataError, match="dictionary i should map int64 ids to int64 ids"):
        read_indexer(write_indexer(tmp_path, rids))


def test_vocabulary_that_is_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "indexer.pkl"
    path.write_bytes(pickle.dumps({"i": {A: 1}, "u": {}, "f": defaultdict(dict, {"100": 3})}))

    with pytest.raises(DataError, match="dictionary f should map each feature to its value ids"):
        read_indexer(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"indexer\.pkl: cannot be read \(No such file"):
        read_indexer(tmp_path / "indexer.pkl")


@given(
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20),
    others=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
)
def test_lookup_equals_a_dictionary(ids: list[int], others: list[int]) -> None:
    rows = {number: row for row, number in enumerate(ids, start=1)}
    wanted = np.array(ids[::-1] + others, np.int64)

    assert IdLookup(np.array(ids, np.int64), first_row=1).find(wanted).tolist() == [
        rows.get(number, -1) for number in wanted.tolist()
    ]


def test_lookup_names_repeated_ids() -> None:
    assert IdLookup(np.array([5, 3, 5, 4, 3])).repeated().tolist() == [3, 5]
    assert IdLookup(np.array([1, 2, 9])).repeated().tolist() == []
