"""A device that only looks like one: it refuses what a GPU refuses, and has the numbers of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from grbench.testing.checks.other_device import OTHER, DeviceError, OtherDevice


def test_a_module_that_is_moved_gives_the_same_numbers():
    module = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.LayerNorm(3), nn.Linear(3, 2))
    rows = torch.tensor([[0, 1], [4, 2]])
    with torch.no_grad():
        expected = module(rows)
        with OtherDevice():
            found = module.to(OTHER)(rows.to(OTHER))
    assert found.device == OTHER
    torch.testing.assert_close(found.cpu(), expected)


def test_shapes_that_depend_on_numbers():
    with OtherDevice():
        items = torch.tensor([0, 3, 0, 5]).to(OTHER)
        places = items.nonzero().squeeze(1)
        assert places.tolist() == [1, 3]
        assert places.device == OTHER
        assert items[items > 0].cpu().tolist() == [3, 5]
        assert int(items.max()) == 5
        assert torch.arange(3, device=items.device).device == OTHER


def test_what_a_gpu_refuses():
    with OtherDevice():
        there = torch.ones(3).to(OTHER)
        with pytest.raises(DeviceError, match="add of tensors on two devices: one of shape"):
            there + torch.ones(3)
        with pytest.raises(DeviceError, match="two devices"):
            nn.functional.embedding(torch.tensor([1]).to(OTHER), torch.ones(2, 2))
        with pytest.raises(DeviceError, match=r"use \.cpu\(\) first"):
            np.asarray(there)
        assert (there * torch.tensor(2.0)).cpu().tolist() == [2, 2, 2]  # a number may be on the CPU
        assert there[torch.tensor([0, 2])].device == OTHER  # and so may an index


def test_tensors_of_numbers_are_made_there():
    with OtherDevice():
        there = torch.zeros(2, device=OTHER)
        for numbers in ([], [1.0, 2.0]):
            made = torch.tensor(numbers, device=there.device)
            assert torch.cat([there, made]).cpu().tolist() == [0.0, 0.0, *numbers]
        with pytest.raises(DeviceError):
            torch.cat([there, torch.tensor([1.0])])
