"""What an action is worth to a loss: the metric's weights (challenge paper, section 6.2), exposures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.types import FIRST_ACTION

Values = dict[str, Annotated[float, Field(ge=0)]]
DEFAULT_VALUES: Mapping[str, float] = {"exposure": 0.0, "click": 1.0, "conversion": 2.5}
"""Of actions by name; other actions are worth 1."""


def values_by_token(data: TrainingData, values: Values | None) -> Tensor:
    """[A + 2], of action tokens, 1 for padding and missing ones; None = DEFAULT_VALUES.

    Raises SuiteError for a name that is none of the dataset's actions.
    """
    actions, named = data.catalogue.actions, DEFAULT_VALUES if values is None else values
    for name in values or {}:
        if name not in actions:
            raise SuiteError(f"loss.values: no action {name!r} in this dataset; it has {', '.join(actions)}")
    return torch.tensor([1.0] * FIRST_ACTION + [named.get(name, 1.0) for name in actions])
