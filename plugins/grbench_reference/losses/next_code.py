"""Cross entropy of the next item's codes, level by level: what generative methods are trained with (TIGER, OneRec)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Decoder
from grbench.types import Batch, Codes
from grbench_reference.codes.prefix_trie import prefixes
from grbench_reference.encoders.interfaces import CodeScorer, LevelStates
from grbench_reference.kernels.cross_entropy import cross_entropy
from grbench_reference.kernels.embedding import gather_rows
from grbench_reference.losses.negatives import ActionWeights, TargetPositions


class CodeTree(nn.Module):
    """Which codes items have behind the codes before. Columns are the codes that items have at a level, ascending."""

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        before = torch.zeros(len(codes.table), dtype=torch.int32)
        for level, each in enumerate(prefixes(codes.table[1:], codes.sizes)):
            written, columns = torch.unique(each.codes, return_inverse=True)
            parts = {"written": written, "columns": columns, "starts": each.starts, "before": before}
            for name, part in parts.items():
                self.register_buffer(f"{name}_{level}", part, persistent=False)
            before = functional.pad(each.of_row, (1, 0)).int()

    def choices(self, level: int, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [p] -> (where the children of the prefix before their code of `level` start [p], how many [p])."""
        before, starts = getattr(self, f"before_{level}")[items].long(), getattr(self, f"starts_{level}")
        first = starts[before]
        return first, starts[before + 1] - first

    def hidden(self, level: int, items: Tensor) -> Tensor:
        """items [p] -> [p, n] bool, the columns that no item has behind the codes before theirs."""
        first, counts = self.choices(level, items)
        columns, codes = getattr(self, f"columns_{level}"), len(getattr(self, f"written_{level}"))
        place = torch.arange(int(counts.max()) if len(items) else 0, device=items.device)
        children = columns[(first.unsqueeze(1) + place).clamp(max=len(columns) - 1)]
        children = torch.where(place < counts.unsqueeze(1), children, codes)
        hidden = torch.ones(len(items), codes + 1, dtype=torch.bool, device=items.device)
        return hidden.scatter_(1, children, False)[:, :-1]


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
        needed = self._needed(positions.targets)
        if isinstance(encoder, CodeScorer):
            levels = encoder.code_states(batch, needed)
            totals = [self._from_states(number, level, positions, needed) for number, level in enumerate(levels)]
        else:
            logits = encoder.code_logits(batch)
            totals = [self._from_logits(number, each, positions) for number, each in enumerate(logits)]
        counted = positions.weights.sum().clamp(min=1e-6)
        return {
            f"next_code_{number}": weight * total / counted
            for number, (total, weight) in enumerate(zip(totals, self.level_weights, strict=True), start=1)
        }

    def _needed(self, items: Tensor) -> Tensor | None:
        """items [P] -> [P, L] bool, which of their codes have a rival: the others are certain. None = all."""
        tree = self.tree
        if tree is None:
            return None
        return torch.stack([tree.choices(level, items)[1] > 1 for level in range(len(self.level_weights))], 1)

    def _from_states(
        self, number: int, level: LevelStates, positions: TargetPositions, needed: Tensor | None
    ) -> Tensor:
        """The level's states are those of the positions that are needed."""
        tree, hidden = self.tree, None
        items, weights = positions.targets, positions.weights
        if needed is not None:
            items, weights = items[needed[:, number]], weights[needed[:, number]]
        if tree is not None and number:  # the first level's codes are all behind the root
            hidden = lambda some: tree.hidden(number, items[some])  # noqa: E731 - needed chunk by chunk
        places = torch.searchsorted(level.codes, self.codes[items, number].long())
        return cross_entropy(
            level.states,
            gather_rows(level.vectors, places),
            level.vectors,
            places,  # each position's own code is its positive, and so no negative
            weights=weights,
            temperature=1.0,
            hidden=hidden,
            chunk=self.chunk,
        )

    def _from_logits(self, number: int, logits: Tensor, positions: TargetPositions) -> Tensor:
        """logits: [P, K_l]."""
        targets = self.codes[positions.targets, number].long()
        if self.tree is not None:
            written = getattr(self.tree, f"written_{number}")
            logits = logits[:, written].masked_fill(self.tree.hidden(number, positions.targets), -torch.inf)
            targets = torch.searchsorted(written, targets)
        return (functional.cross_entropy(logits.float(), targets, reduction="none") * positions.weights).sum()
