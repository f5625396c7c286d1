"""How actions enter an encoder: those of the history's events, and the next action that a state is conditioned on.

Actions are numbered: 0 = padding, a user's token or a code, 1 = missing, a + 2 = the dataset's action a. Action 0
changes nothing, and the gate and FiLM start as the identity.

Shapes: P tokens, D width, A actions, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench.errors import SuiteError
from grbench.registry.option_types import OptionGroup
from grbench.types import ACTION_MISSING, FIRST_ACTION
from grbench_reference.features.parts import EmbeddingTable

ActionConditioning = (
    Literal["none", "additive", "gate", "film", "attention_bias"]
    | list[Literal["additive", "gate", "film", "attention_bias"]]
)
"""How actions enter: not at all, in one way, or in several, one after another."""
NextActions = bool | list[str]
"""Which next actions a state is conditioned on: true for all, false for none, or their names."""


@dataclass(frozen=True, kw_only=True)
class ActionOptions(OptionGroup):
    """How actions condition an encoder.

    Args:
        action_conditioning: how an event's action enters: additive = its embedding is added to the token (paper,
            equation 2); gate = the token times 2 sigmoid(w), film = times 1 + scale and plus shift, learned for each
            action and neutral at first; attention_bias = it shifts the scores of its event, by head; none; or a list of
            ways, one after another (first place: gate, film and attention_bias).
        next_action: condition each state on the next action (PinRec, arXiv 2504.10507), in training the target's own:
            true, or only on the actions named here, so that exposures, say, are learnt unconditioned.
    """

    action_conditioning: ActionConditioning = "additive"
    next_action: NextActions = False


class TokenActions(nn.Module):
    """tokens [..., D], each event's action [...] -> [..., D], in each of some ways, one after another.

    additive: an embedding is added (paper, equation 2). gate: times 2 sigmoid(w), a w for each action. film: times
    1 + scale, plus shift (arXiv 1709.07871), both for each action.
    """

    def __init__(self, ways: Sequence[Literal["additive", "gate", "film"]], actions: int, width: int) -> None:
        super().__init__()
        self.ways = tuple(ways)
        tables = {way: EmbeddingTable(actions + FIRST_ACTION, 2 * width if way == "film" else width) for way in ways}
        for way, table in tables.items():
            if way != "additive":
                nn.init.zeros_(table.weight)
        self.tables = nn.ModuleList(tables.values())

    def forward(self, tokens: Tensor, actions: Tensor) -> Tensor:
        for way, table in zip(self.ways, self.tables, strict=True):
            rows: Tensor = table(actions)
            if way == "additive":
                tokens = tokens + rows
            elif way == "gate":
                tokens = tokens * (2 * torch.sigmoid(rows))
            else:
                scale, shift = rows.chunk(2, dim=-1)
                tokens = tokens * (1 + scale) + shift
        return tokens


class NextActionEmbedding(nn.Module):
    """states [..., D], next actions [...] -> [..., D]: states conditioned on the next action, others unchanged.

    An MLP head that reads state and action, as PinRec's (arXiv 2504.10507, outcome-conditioned generation). Differs:
    its output is added to the state and starts at zero, so that conditioned and unconditioned states share a space.
    """

    conditioned: Tensor

    def __init__(self, conditioned: Tensor, width: int) -> None:
        """conditioned: [A + 2] bool, the action tokens that states are conditioned on."""
        super().__init__()
        self.register_buffer("conditioned", conditioned, persistent=False)
        self.table = EmbeddingTable(len(conditioned), width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, states: Tensor, next_actions: Tensor) -> Tensor:
        change: Tensor = self.down(functional.gelu(self.up(states) + self.table(next_actions)))
        return states + change * self.conditioned[next_actions].to(change.dtype).unsqueeze(-1)


def token_actions(conditioning: ActionConditioning, actions: int, width: int) -> TokenActions | None:
    """The module that applies actions to tokens; None for `none`, and for attention_bias alone."""
    ways = [way for way in _ways(conditioning) if way != "attention_bias"]
    return TokenActions(ways, actions, width) if ways else None


def action_bias(conditioning: ActionConditioning, actions: int, heads: int) -> EmbeddingTable | None:
    """For one block: actions of keys [P] -> [P, H], added to each key's scores; None without attention_bias."""
    if "attention_bias" not in _ways(conditioning):
        return None
    table = EmbeddingTable(actions + FIRST_ACTION, heads)
    nn.init.zeros_(table.weight)
    return table


def _ways(conditioning: ActionConditioning) -> Sequence[Literal["additive", "gate", "film", "attention_bias"]]:
    """Raises SuiteError for a way that is named twice."""
    if isinstance(conditioning, str):
        return () if conditioning == "none" else (conditioning,)
    for place, way in enumerate(conditioning):
        if way in conditioning[:place]:
            raise SuiteError(f"encoder.action_conditioning: {way} is named twice; name each way once")
    return conditioning


def next_action_head(next_action: NextActions, actions: tuple[str, ...], width: int) -> NextActionEmbedding | None:
    """None where states are conditioned on none. Raises SuiteError for a name that is none of the dataset's actions."""
    mask = torch.zeros(len(actions) + FIRST_ACTION, dtype=torch.bool)
    if isinstance(next_action, bool):
        mask[ACTION_MISSING:] = next_action
    else:
        for name in next_action:
            if name not in actions:
                raise SuiteError(
                    f"encoder.next_action: no action {name!r} in this dataset; it has {', '.join(actions) or 'none'}"
                )
            mask[actions.index(name) + FIRST_ACTION] = True
    return NextActionEmbedding(mask, width) if mask.any() else None
