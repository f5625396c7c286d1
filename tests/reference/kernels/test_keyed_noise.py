"""Noise that is a function of its keys."""

import pytest
import torch

from grbench_reference.kernels.keyed_noise import gumbel, seed_of, uniform

KEYS = torch.arange(200_000)


def test_numbers_are_spread_evenly():
    drawn = uniform(3, KEYS, 1)
    counts = torch.histc(drawn, 50, 0, 1)
    assert (counts - 4000).abs().max() < 5 * 4000**0.5
    assert (drawn > 0).all()
    assert (drawn < 1).all()
    assert gumbel(3, KEYS).mean().item() == pytest.approx(0.5772, abs=0.02)
    assert gumbel(3, KEYS).var().item() == pytest.approx(torch.pi**2 / 6, abs=0.05)


def test_keys_that_are_neighbours_have_nothing_in_common():
    drawn = torch.stack([uniform(0, KEYS, 1), uniform(0, KEYS + 1, 1), uniform(0, KEYS, 2), uniform(1, KEYS, 1)])
    others = torch.corrcoef(drawn) - torch.eye(4)
    assert others.abs().max() < 0.01
    assert (uniform(0, KEYS, 1) != uniform(0, torch.ones_like(KEYS), KEYS)).sum() > 199_990  # the order of keys counts


def test_a_number_depends_on_its_keys_alone():
    users, codes = torch.tensor([[5], [2]]), torch.tensor([7, 8, 9])
    grid = uniform(11, users, codes)
    assert grid.shape == (2, 3)
    assert grid[1, 2] == uniform(11, torch.tensor(2), 9)
    assert torch.equal(grid.flip(0), uniform(11, users.flip(0), codes))


def test_seeds():
    seeds = [seed_of(run, step) for run in (0, 1, 2**63 - 1) for step in range(100)]
    assert len(set(seeds)) == 300
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert seed_of(1, 2) != seed_of(2, 1)
