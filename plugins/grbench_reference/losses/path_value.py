"""Teaches a value head what reward a partial code path still brings (V-STAR, arXiv 2602.10699).

Shapes: B users, G samples of a user, L levels, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import drawn_alike
from grbench.errors import SuiteError
from grbench.interfaces import Decoder, Loss
from grbench.registry.option_types import Count
from grbench.types import MAX_SEED, Batch, Codes
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.layers.interfaces import PathValuer, check_codes_stay
from grbench_reference.layers.path_sampling import sample_paths

REWARDS = (0.3, 0.5, 1.0)
"""The paper's, of the first, second and third code that are the target's; for other lengths they are interpolated."""


class ValuedDecoder(Decoder, PathValuer, Protocol):
    """A decoder with values of partial paths."""


class PathValue(nn.Module, Loss):
    """Squared error of a value head against temporal-difference targets, on paths that the model itself draws.

    After the newest event of each user, paths are drawn code by code among those that items have. A code brings its
    level's reward where it and all before it are the target's; the target of a prefix's value is the reward of its next
    code plus `discount` times the value of the prefix with it, which is 0 for a whole path. The head alone learns. How
    many are drawn is ours, and that a code is rewarded only where all before it are right.

    Args:
        samples: paths drawn for each user.
        discount: of the value of what follows a code.
        rewards: of a right code, one per level; null = .3, .5 and 1, interpolated where codes have other lengths.
        temperature: code logits are divided by it where paths are drawn.
    """

    needs: ClassVar[tuple[type, ...]] = (Decoder, PathValuer)
    table: Tensor
    rewards: Tensor

    def __init__(
        self,
        data: TrainingData,  # noqa: ARG002 - every item counts, whether or not it has a training event
        codes: Codes,
        *,
        samples: Count = 8,
        discount: Annotated[float, Field(ge=0, le=1)] = 0.99,
        rewards: list[Annotated[float, Field(ge=0)]] | None = None,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        levels = len(codes.sizes)
        if rewards is not None and len(rewards) != levels:
            raise SuiteError(f"loss.rewards: {len(rewards)} rewards for codes of {levels} levels; give one per level")
        self.samples, self.discount, self.temperature = samples, discount, temperature
        places = np.linspace(0, len(REWARDS) - 1, levels) if levels > 1 else [len(REWARDS) - 1]
        given = np.interp(places, range(len(REWARDS)), REWARDS).tolist() if rewards is None else rewards
        self.register_buffer("rewards", torch.tensor(given), persistent=False)
        self.all_codes = codes
        self.register_buffer("table", codes.table.int(), persistent=False)
        self._trie: PrefixTrie | None = None

    def weight(self, batch: Batch) -> Tensor:
        """Of the users whose newest event is followed by a target."""
        return (batch.targets[:, -1] > 0).sum()

    def forward(self, encoder: ValuedDecoder, batch: Batch) -> Mapping[str, Tensor]:
        """Raises SuiteError where the encoder learns codes of its own."""
        check_codes_stay(encoder, "loss path_value")
        targets = batch.targets[:, -1]
        seed = drawn_alike(lambda: int(torch.randint(MAX_SEED, ())))
        trie = self._trie_on(targets.device)
        paths = sample_paths(encoder, batch, trie, self.samples, seed=seed, temperature=self.temperature).codes
        right = (paths == self.table[targets].unsqueeze(1)).cumprod(2)
        values = encoder.path_values(batch, paths)
        rewards = right * self.rewards
        following = nn.functional.pad(values.detach()[:, :, 1:], (0, 1))
        errors = (rewards + self.discount * following - values).square().mean(dim=(1, 2))
        real = (targets > 0).to(errors.dtype)
        return {"path_value": (errors * real).sum() / real.sum().clamp(min=1)}

    def _trie_on(self, device: torch.device) -> PrefixTrie:
        """Of all items, made once for the device that the loss is on."""
        if self._trie is None or self._trie.candidates.device != device:
            self._trie = PrefixTrie(torch.arange(1, len(self.table), device=device), self.all_codes)
        return self._trie
