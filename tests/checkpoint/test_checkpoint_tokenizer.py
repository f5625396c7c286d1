"""A fitted tokenizer in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from grbench.checkpoint.file import read_file, write_file
from grbench.checkpoint.tokenizer import load_tokenizer, saved_tokenizer
from grbench.types import Codes

CPU = torch.device("cpu")


def test_codes_come_back_with_all_that_encoders_use_of_them(tmp_path: Path) -> None:
    """Also the tensors, without which a cell that goes on would train another encoder."""
    neighbours = torch.tensor([[0, 1], [1, 0]])
    codes = Codes(torch.tensor([[0, 0], [1, 2]]), (2, 3), {"seconds": 0.5}, {"neighbours_0": neighbours})
    write_file(tmp_path / "tokenizer", "checkpoint", {}, saved_tokenizer(codes, CPU))
    drawn = torch.rand(3)
    _, saved = read_file(tmp_path / "tokenizer", "checkpoint")
    found = load_tokenizer(saved, CPU)
    assert torch.equal(found.table, codes.table)
    assert (found.sizes, found.report) == (codes.sizes, codes.report)
    assert found.tensors.keys() == {"neighbours_0"}
    assert torch.equal(found.tensors["neighbours_0"], neighbours)
    assert torch.equal(torch.rand(3), drawn)
