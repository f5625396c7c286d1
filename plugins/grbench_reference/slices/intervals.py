"""What the slices by a number share: intervals between ascending bounds, each of which belongs to the lower one.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from grbench.errors import SuiteError


def check_ascending(bounds: Sequence[int], option: str, given: Sequence[object]) -> None:
    """Raises SuiteError, naming the option, where bounds do not ascend. given: the bounds as the suite has them."""
    if any(later <= earlier for earlier, later in pairwise(bounds)):
        raise SuiteError(f"{option}: bounds should ascend, got [{', '.join(map(str, given))}]")


def labelled(values: np.ndarray, bounds: Sequence[int], names: Sequence[str], known: np.ndarray) -> np.ndarray:
    """values [Q] -> [Q] text, the name of the interval of each; "" where `known` [Q] is false. names: one more than
    bounds, lowest interval first."""
    found = np.array(names)[np.searchsorted(bounds, values, side="left")]
    return np.where(known, found, "")
