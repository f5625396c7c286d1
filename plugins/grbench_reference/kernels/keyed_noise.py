"""Random numbers that are a function of keys, such as a user and a code: the same in whatever order, batch and device
they are asked for, without a generator whose state would have to be kept.

A number is the hash of a seed and its keys, by the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, *keys: Tensor | int) -> Tensor:
    """keys: int64 of shapes that broadcast, one of them a tensor -> their shape, float64, uniform in (0, 1)."""
    word: Tensor | int = _signed(seed * GOLDEN)
    for key in keys:
        word = _mixed(torch.as_tensor(word + key))
    bits = _shifted(torch.as_tensor(word), 12)  # 52 bits, so that the half step below is exact
    return (bits.double() + 0.5) * 2.0**-52


def gumbel(seed: int, *keys: Tensor | int) -> Tensor:
    """keys: as of `uniform` -> float64 numbers of the standard Gumbel distribution."""
    return -(-uniform(seed, *keys).log()).log()


def seed_of(*numbers: int) -> int:
    """One seed of several numbers, such as a run's seed and a step, below 2^63."""
    word = 0
    for number in numbers:
        word = int(_mixed(torch.tensor(_signed(word + number)))) % WORD
    return word >> 1


def _mixed(word: Tensor) -> Tensor:
    """int64 -> int64, all of whose bits depend on all bits; products wrap around."""
    word = word + _signed(GOLDEN)
    word = (word ^ _shifted(word, 30)) * _signed(0xBF58476D1CE4E5B9)
    word = (word ^ _shifted(word, 27)) * _signed(0x94D049BB133111EB)
    return word ^ _shifted(word, 31)


def _shifted(word: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's keeps the sign."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The number modulo 2^64 as an int64."""
    return (number + WORD // 2) % WORD - WORD // 2
