"""The seeds of a suite."""

from __future__ import annotations

import json
from typing import Any

from grbench.errors import SuiteError, cut
from grbench.types import MAX_SEED


def read_seeds(seeds: Any, where: str) -> tuple[int, ...]:
    """The value of a suite's key `seeds`; (0,) where it is not given. Raises SuiteError, prefixed by `where`, for
    anything else than a list of distinct whole numbers."""
    if seeds is None:
        return (0,)
    # `type`, because true is an int to Python.
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds)
    ):
        raise SuiteError(
            f"{where}: seeds: should be a list of whole numbers from 0 to {MAX_SEED}, such as [0, 1, 2], got "
            f"{cut(json.dumps(seeds))}"
        )
    if len(set(seeds)) < len(seeds):
        raise SuiteError(f"{where}: seeds: a seed is given twice")
    return tuple(seeds)
