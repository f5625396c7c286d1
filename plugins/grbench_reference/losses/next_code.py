"""Cross entropy of the next item's codes, level by level: what generative methods are trained with (TIGER, OneRec)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

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
from grbench_reference.prefix_table import prefixes, spread


class CodeTree(nn.Module):
    """Which codes items have behind the codes before, for every item's own path."""

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        for level, each in enumerate(prefixes(codes.table[1:], codes.sizes)):
            self.register_buffer(f"codes_{level}", each.codes, persistent=False)
            self.register_buffer(f"starts_{level}", each.starts, persistent=False)
            if level + 1 < len(codes.sizes):
                of_item = functional.pad(each.of_row, (1, 0)).int()
                self.register_buffer(f"prefix_{level + 1}", of_item, persistent=False)

    def hidden(self, level: int, items: Tensor, codes: Tensor) -> Tensor:
        """items [p], codes [n] ascending -> [p, n] bool, the codes that no item has behind the first `level` codes of
        these."""
        before = getattr(self, f"prefix_{level}")[items].long() if level else torch.zeros_like(items)
        before = before.unsqueeze(1)
        _, children = spread(getattr(self, f"starts_{level}"), before)
        places = torch.searchsorted(codes, getattr(self, f"codes_{level}")[children.clamp(min=0)])
        hidden = torch.ones(len(items), len(codes) + 1, dtype=torch.bool, device=items.device)
        hidden.scatter_(1, places.masked_fill(children < 0, len(codes)), False)
        return hidden[:, :-1]


class NextCode(nn.Module):
    """-log softmax of the target's code among its level's codes, the codes before it given (teacher-forced).

    One term a level, each averaged over positions by their action's weight; with weights of 1 their sum is the item's
    negative log probability. With `ids` it is the full softmax. An encoder that shows its logits as products
    (`CodeScorer`) is given gradients chunk by chunk, so that levels may be as large as the catalogue.

    Args:
        action_weights: what a position counts by its target's action; 1 where not named.
        level_weights: what each level's term counts, the first level's first; 1 each where not given.
        softmax: level = among all codes of the level; tree = among those that some item has behind the codes before, so
            that nothing has to be learnt of which codes exist (search with the retriever's `softmax: tree` too). It is
            the hierarchical softmax of Morin and Bengio 2005 over the items' codes.
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
        softmax: Literal["level", "tree"] = "level",
        chunk: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.tree = CodeTree(codes) if softmax == "tree" else None
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
                self._from_states(number, level, target, positions)
                for number, (level, target) in enumerate(zip(levels, targets, strict=True))
            ]
        else:
            totals = [
                self._from_logits(number, logits, target, positions)
                for number, (logits, target) in enumerate(zip(encoder.code_logits(batch), targets, strict=True))
            ]
        counted = positions.weights.sum().clamp(min=1e-6)
        for level, (total, weight) in enumerate(zip(totals, self.level_weights, strict=True), start=1):
            terms[f"next_code_{level}"] = weight * total / counted
        return terms

    def _from_states(self, number: int, level: LevelStates, targets: Tensor, positions: Positions) -> Tensor:
        places = torch.searchsorted(level.codes, targets)
        return cross_entropy(
            level.states,
            gather_rows(level.vectors, places),
            level.vectors,
            places,  # each position's own code is its positive, and so no negative
            weights=positions.weights,
            temperature=1.0,
            # The first level's codes are those that items have.
            hidden=self._hidden(number, positions.targets, level.codes) if number else None,
            chunk=self.chunk,
        )

    def _from_logits(self, number: int, logits: Tensor, targets: Tensor, positions: Positions) -> Tensor:
        hidden = self._hidden(number, positions.targets, torch.arange(logits.shape[1], device=logits.device))
        if hidden is not None:
            logits = logits.masked_fill(hidden(slice(None)), -torch.inf)
        return (functional.cross_entropy(logits.float(), targets, reduction="none") * positions.weights).sum()

    def _hidden(self, level: int, items: Tensor, codes: Tensor) -> Callable[[slice], Tensor] | None:
        """Given some positions, which of the codes [n] none of their choices are; None = all are choices."""
        tree = self.tree
        if tree is None:
            return None
        return lambda some: tree.hidden(level, items[some], codes)
