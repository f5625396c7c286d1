"""The codes that are indexed: the tokenizer's, or those that the encoder has learnt by then; wrong ones are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grbench.data.codes import checked_codes, current_codes
from grbench.errors import RunError
from grbench.types import Codes

FITTED = Codes(torch.tensor([[0, 0], [0, 1], [1, 2]]), (2, 3))


class Learning(nn.Module):
    def __init__(self, codes: Codes | None) -> None:
        super().__init__()
        self._codes = codes

    def codes(self) -> Codes | None:
        return self._codes


def test_an_encoder_without_codes_of_its_own_is_searched_by_the_fitted_ones() -> None:
    assert current_codes(nn.Linear(1, 1), FITTED, 2) is FITTED
    assert current_codes(Learning(None), FITTED, 2) is FITTED


def test_codes_of_its_own_take_the_place_of_the_fitted_ones() -> None:
    learnt = Codes(torch.tensor([[0], [3], [1]]), (4,), {"round": 2})
    found = current_codes(Learning(learnt), FITTED, 2)
    assert (found.table.tolist(), found.sizes, found.report) == ([[0], [3], [1]], (4,), {"round": 2})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0, 0], [0, 1], [1, 3]], r"item row 2 at level 1 is 3; with 3 codes at that level it should be from 0 to 2"),
        ([[0, 0], [2, 1], [1, 3]], r"item row 1 at level 0 is 2; with 2 codes at that level it should be from 0 to 1"),
        ([[0, 0], [0, -1], [1, 0]], r"item row 1 at level 1 is -1; with 3 codes"),
        ([[0, 1], [0, 1], [1, 0]], r"row 0 of its codes is padding and should be 0 at level 1, not 1"),
        ([[0, 0], [0, 1]], r"codes has shape \(2, 2\), int64; it should have shape \(3, 2\), int64"),
        ([[0], [0], [1]], r"codes has shape \(3, 1\), int64; it should have shape \(3, 2\), int64"),
        (
            [[0.0, 0], [0, 1], [1, 2]],
            r"codes has shape \(3, 2\), float32; it should have shape \(3, 2\), int64",
        ),
    ],
)
def test_codes_that_are_none_of_the_items_are_named(table: list[list[Any]], message: str) -> None:
    wrong: Tensor = torch.tensor(table)
    with pytest.raises(RunError, match=f"encoder Learning: .*{message}"):
        current_codes(Learning(Codes(wrong, (2, 3))), FITTED, 2)
    with pytest.raises(RunError, match=f"tokenizer x: .*{message}"):
        checked_codes(Codes(wrong, (2, 3)), 2, "tokenizer x")
