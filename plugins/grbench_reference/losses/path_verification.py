"""Teaches a verifier to tell a target's code prefixes from other ones (Promise, arXiv 2601.04674).

Shapes: B users, T history length, M positions of a user, n negatives of a position, L levels, n_l prefixes of length
l + 1 that items have, N items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import averaged
from grbench.interfaces import Loss
from grbench.registry.option_types import Count
from grbench.types import Batch, Codes
from grbench_reference.codes.prefix_trie import trie_levels
from grbench_reference.layers.interfaces import PathVerifier, check_codes_stay
from grbench_reference.losses.negatives import TargetSelector


class PathVerification(nn.Module, Loss):
    """-log softmax of the score of the target's prefix among those of prefixes that are drawn uniformly, with
    replacement, from all that items have; one term a level, each a mean over positions.

    A drawn prefix that is the target's own counts for nothing. How many are drawn, and at how many positions, is ours.

    Args:
        negatives: prefixes drawn for each position and level.
        positions: targets of each user that a step takes, drawn at random; null = all.
        action_weights: weight of a position, by the action of its target; 1 for actions not named.
    """

    needs: ClassVar[tuple[type, ...]] = (PathVerifier,)
    codes: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        negatives: Count = 64,
        positions: Count | None = 4,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
    ) -> None:
        super().__init__()
        self.negatives, self.positions, self.levels = negatives, positions, len(codes.sizes)
        self.select_targets = TargetSelector(data, action_weights)
        self.register_buffer("codes", codes.table.int(), persistent=False)
        for level, prefixes in enumerate(trie_levels(codes.table[1:], codes.sizes)):
            items = torch.arange(1, len(codes.table))
            first = items.new_full((len(prefixes.codes),), len(codes.table))
            first = first.scatter_reduce(0, prefixes.of_row, items, "amin")
            self.register_buffer(f"item_of_{level}", first.int(), persistent=False)
            self.register_buffer(
                f"prefix_of_{level}", nn.functional.pad(prefixes.of_row, (1, 0), value=-1).int(), persistent=False
            )

    def weight(self, batch: Batch) -> Tensor:
        """The same on each of several devices: terms are divided by the positions that the whole batch has drawn."""
        return torch.ones((), device=batch.items.device)

    def forward(self, encoder: PathVerifier, batch: Batch) -> Mapping[str, Tensor]:
        """Raises SuiteError where the encoder learns codes of its own."""
        check_codes_stay(encoder, "loss path_verification")
        targets, places = batch.all_targets, self._drawn_positions(batch)
        items = targets if places is None else targets.gather(1, places)
        if places is None:
            places = torch.arange(items.shape[1], device=items.device).expand(len(items), -1)
        weights = self.select_targets.weight_of_token[batch.all_next_actions.gather(1, places)] * (items > 0)
        total = averaged(weights.sum()).clamp(min=1e-6)
        context = encoder.path_context(batch)
        ends = places.repeat_interleave(1 + self.negatives, 1)
        terms = {}
        for level in range(self.levels):
            of_level, first = getattr(self, f"prefix_of_{level}"), getattr(self, f"item_of_{level}")
            drawn = torch.randint(len(first), (*items.shape, self.negatives), device=items.device)
            owners = torch.cat([items.unsqueeze(2), first[drawn].long()], 2)
            paths = self.codes[owners.flatten(1), : level + 1].long()
            scores = encoder.path_scores(paths, context, ends).view(owners.shape)
            own = drawn == of_level[items].unsqueeze(2)
            scores = torch.cat([scores[:, :, :1], scores[:, :, 1:].masked_fill(own, -torch.inf)], 2)
            terms[f"path_verification_{level + 1}"] = (-scores.log_softmax(2)[:, :, 0] * weights).sum() / total
        return terms

    def _drawn_positions(self, batch: Batch) -> Tensor | None:
        """[B, M], into the [B, T + 1] of `batch.all_targets`: at random, those with a target first; None = all."""
        targets = batch.all_targets
        if self.positions is None or self.positions >= targets.shape[1]:
            return None
        order = torch.rand(targets.shape, device=targets.device).masked_fill(targets == 0, -1)
        return order.topk(self.positions, dim=1).indices
