"""Codes that somebody else made: what is read, and what is refused with one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from real_data import BEAUTY, needs_beauty

from grbench.data.training_data import TrainingData
from grbench.errors import DataError, SuiteError
from grbench.testing import tiny_store
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.tokenizers.codes_file import CodesFile

OWN = 20_000_000_000  # what tiny_store adds to an item to make the source's id
LETTERS = {"1": ["<a_12>", "<b_0>"], "2": ["<a_3>", "<b_7>"], "3": ["<a_12>", "<b_0>"], "9": ["<a_15>", "<b_1>"]}


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return LeaveLastOut().split(tiny_store(tmp_path, [[(1, 1, 1), (2, 1, 2), (3, 1, 3)]])).training


def written(folder: Path, codes: dict[str, Any]) -> str:
    path = folder / "codes.json"
    path.write_text(json.dumps({str(OWN + int(item)): code for item, code in codes.items()}))
    return str(path)


def test_codes_are_found_by_the_ids_of_the_source(tmp_path: Path, data: TrainingData) -> None:
    codes = CodesFile(path=written(tmp_path, LETTERS)).fit(data)
    assert codes.table.tolist() == [[0, 0], [12, 0], [3, 7], [12, 0]]
    assert codes.sizes == (13, 8)  # item 9 is none of the dataset's
    assert codes.report["items_left_out"] == 1
    assert codes.report["colliding_items"] == 2


def test_an_extra_level_tells_apart_items_that_share_a_code(tmp_path: Path, data: TrainingData) -> None:
    codes = CodesFile(path=written(tmp_path, LETTERS), sizes=[16, 8], collision="extra_level").fit(data)
    assert codes.table[1:].tolist() == [[12, 0, 0], [3, 7, 0], [12, 0, 1]]
    assert codes.sizes == (16, 8, 2)
    assert codes.report["colliding_items"] == 0


def test_plain_numbers_are_codes_too(tmp_path: Path, data: TrainingData) -> None:
    codes = CodesFile(path=written(tmp_path, {"1": [4, 0], "2": [3, 7], "3": [0, 1]})).fit(data)
    assert codes.table[1:].tolist() == [[4, 0], [3, 7], [0, 1]]


def test_a_file_that_lacks_items_says_how_many_and_which(tmp_path: Path, data: TrainingData) -> None:
    path = written(tmp_path, {"2": [3, 7], "7": [1, 1]})
    with pytest.raises(DataError) as caught:
        CodesFile(path=path).fit(data)
    assert str(caught.value) == (
        f"tokenizer.path: {path}: lacks 2 of the dataset's 3 items, such as 20000000001, 20000000003; "
        "it names 2 items, such as 20000000002, 20000000007"
    )


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ({"1": [1, 2], "2": [1], "3": [1, 2]}, r"item 20000000002: should be a list of 2 codes, .* not \[1\]"),
        ({"1": [1, 2], "2": 5, "3": [1, 2]}, r"item 20000000002: should be a list of 2 codes, .* not 5"),
        ({"1": [], "2": [], "3": []}, r"item 20000000001: should be a list of some codes, .* not \[\]"),
        ({"1": [1, 2], "2": [1, "<b_x>"], "3": [1, 2]}, r"item 20000000002: '<b_x>' is not a code"),
        ({"1": [1, 2], "2": [1, -2], "3": [1, 2]}, r"item 20000000002: '-2' is not a code"),
        ({"1": [1, 2], "2": [1, 10**25], "3": [1, 2]}, r"item 20000000002: '10{25}' is not a code; .* of 9 digits"),
        ({"1": [1, 2], "2": [1, 2.5], "3": [1, 2]}, r"item 20000000002: '2.5' is not a code"),
    ],
)
def test_a_row_that_is_no_code_is_named(tmp_path: Path, data: TrainingData, codes: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        CodesFile(path=written(tmp_path, codes)).fit(data)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, data: TrainingData) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.path: absent\.json: cannot be read \(No such file"):
        CodesFile(path="absent.json").fit(data)
    path = tmp_path / "broken.json"
    path.write_text("{1: 2")
    with pytest.raises(DataError, match=r"broken\.json: is not JSON"):
        CodesFile(path=str(path)).fit(data)
    path.write_text("[1]")
    with pytest.raises(DataError, match="should be a mapping of items"):
        CodesFile(path=str(path)).fit(data)


@pytest.mark.parametrize("sizes", [[12, 8], [16, 8, 8]])
def test_sizes_must_hold_the_codes(tmp_path: Path, data: TrainingData, sizes: list[int]) -> None:
    with pytest.raises(SuiteError, match=r"tokenizer\.sizes: .* .* largest codes per level are \[12, 7\]"):
        CodesFile(path=written(tmp_path, LETTERS), sizes=sizes).fit(data)


@needs_beauty
def test_letters_released_codes_are_read(tmp_path: Path) -> None:
    items = json.loads((BEAUTY / "Beauty.index.json").read_text())
    shifted = tmp_path / "index.json"  # the test's store numbers its items from 1 and not from 0
    shifted.write_text(json.dumps({str(OWN + int(item) + 1): codes for item, codes in items.items()}))
    store = tiny_store(tmp_path, [[(1, 1, 1), (2, 1, 2), (12_101, 1, 3)]])
    codes = CodesFile(path=str(shifted)).fit(LeaveLastOut().split(store).training)
    assert codes.table[1].tolist() == [183, 70, 232, 6]
    assert len(codes.table) == 12_102
    assert codes.report["distinct_codes"] == 12_088
