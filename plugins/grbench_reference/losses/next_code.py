"""Cross entropy of the next item's codes, level by level: what generative methods are trained with (TIGER, OneRec)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.protocols import Decoder
from grbench.types import Batch, Codes
from grbench_reference.faces import CodeScorer, LevelStates
from grbench_reference.kernels import gather_rows
from grbench_reference.losses.cross_entropy import cross_entropy
from grbench_reference.losses.negatives import ActionWeights, Positions


class NextCode(nn.Module):
    """-log softmax of the target's code among its level's codes, the codes before it given (teacher-forced).

    One term a level, each averaged over positions by their action's weight; with weights of 1 their sum is the item's
    negative log probability. With `ids` it is the full softmax. An encoder that shows its logits as products
    (`CodeScorer`) is given gradients chunk by chunk, so that levels may be as large as the catalogue.

    Args:
        action_weights: what a position counts by its target's action; 1 where not named.
        level_weights: what each level's term counts, the first level's first; 1 each where not given.
        chunk: positions whose logits exist at once; null = what fits in 32 MiB (GPU: 1 GiB).
    """

    needs: ClassVar[tuple[type, ...]] = (Decoder,)
    codes: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        level_weights: list[Annotated[float, Field(ge=0)]] | None = None,
        chunk: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.chunk = chunk
        self.positions = ActionWeights(data, action_weights or {}, "loss")
        self.level_weights = [1.0] * len(codes.sizes) if level_weights is None else level_weights
        if len(self.level_weights) != len(codes.sizes):
            raise SuiteError(
                f"loss.level_weights: {len(self.level_weights)} weights for codes of {len(codes.sizes)} levels"
            )
        self.register_buffer("codes", codes.table.int(), persistent=False)

    def forward(self, encoder: Decoder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.positions(batch)
        targets = self.codes[positions.targets].long().T.contiguous()
        terms: dict[str, Tensor] = {}
        totals: Sequence[Tensor]
        if isinstance(encoder, CodeScorer):
            levels = encoder.code_states(batch)
            totals = [
                self._from_states(level, target, positions) for level, target in zip(levels, targets, strict=True)
            ]
        else:
            totals = [
                _from_logits(logits, target, positions)
                for logits, target in zip(encoder.code_logits(batch), targets, strict=True)
            ]
        counted = positions.weights.sum().clamp(min=1e-6)
        for level, (total, weight) in enumerate(zip(totals, self.level_weights, strict=True), start=1):
            terms[f"next_code_{level}"] = weight * total / counted
        return terms

    def _from_states(self, level: LevelStates, targets: Tensor, positions: Positions) -> Tensor:
        places = torch.searchsorted(level.codes, targets)
        return cross_entropy(
            level.states,
            gather_rows(level.vectors, places),
            level.vectors,
            places,  # each position's own code is its positive, and so no negative
            weights=positions.weights,
            temperature=1.0,
            chunk=self.chunk,
        )


def _from_logits(logits: Tensor, targets: Tensor, positions: Positions) -> Tensor:
    return (functional.cross_entropy(logits.float(), targets, reduction="none") * positions.weights).sum()
