"""Cross entropy of the next item's code at each level, the loss of generative methods such as TIGER (arXiv 2305.05065)
and OneRec (arXiv 2502.18965).

Shapes: P positions with a target, L levels, K_l codes of level l, n_l codes of level l that items have, p items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Decoder, Loss
from grbench.types import Batch, Codes
from grbench_reference.codes.prefix_trie import trie_levels
from grbench_reference.kernels.cross_entropy import cross_entropy
from grbench_reference.kernels.embedding import gather_rows
from grbench_reference.layers.interfaces import CodeLearner, CodeScorer, LevelStates
from grbench_reference.losses.negatives import TargetSelector, WeightedTargets


class CodeTrie(nn.Module):
    """The prefix trie of all items' codes: which codes may follow the prefix of an item.

    For each level: codes [n_l], the codes that items have, ascending; columns: each prefix's last code as an index into
    these; starts: where the children of each prefix of the level before start; parent_of [N+1]: each item's prefix of
    the level before.
    """

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        parent_of = torch.zeros(len(codes.table), dtype=torch.int32)
        for number, level in enumerate(trie_levels(codes.table[1:], codes.sizes)):
            level_codes, columns = torch.unique(level.codes, return_inverse=True)
            buffers = {"codes": level_codes, "columns": columns, "starts": level.starts, "parent_of": parent_of}
            for name, buffer in buffers.items():
                self.register_buffer(f"{name}_{number}", buffer, persistent=False)
            parent_of = functional.pad(level.of_row, (1, 0)).int()

    def child_range(self, level: int, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [p] -> (the first child at `level` of each item's prefix [p], the number of its children [p])."""
        parents, starts = getattr(self, f"parent_of_{level}")[items].long(), getattr(self, f"starts_{level}")
        first = starts[parents]
        return first, starts[parents + 1] - first

    def invalid(self, level: int, items: Tensor) -> Tensor:
        """items [p] -> [p, n_l] bool: the codes of `level` that no item has after the prefix of this one."""
        first, counts = self.child_range(level, items)
        columns, codes = getattr(self, f"columns_{level}"), len(getattr(self, f"codes_{level}"))
        offset = torch.arange(int(counts.max()) if len(items) else 0, device=items.device)
        children = columns[(first.unsqueeze(1) + offset).clamp(max=len(columns) - 1)]
        children = torch.where(offset < counts.unsqueeze(1), children, codes)
        invalid = torch.ones(len(items), codes + 1, dtype=torch.bool, device=items.device)
        return invalid.scatter_(1, children, False)[:, :-1]


class NextCode(nn.Module, Loss):
    """-log softmax of the target's code at each level, given its codes at the levels before (teacher forcing).

    One term per level, each a mean over positions weighted by the target's action; with weights of 1 the terms add up
    to the item's negative log probability. With the tokenizer `ids` it is the full softmax over items. Where an encoder
    gives its logits as products of states and vectors (`CodeScorer`), they are computed chunk by chunk, so that a level
    may have as many codes as the catalogue has items.

    Args:
        action_weights: weight of a position, by the action of its target; 1 for actions not named.
        level_weights: weight of each level's term, first level first; 1 each where not given.
        softmax: level = over all codes of the level; tree = over the codes that some item has after the same prefix, so
            that the model need not learn which codes exist (use the retriever's `softmax: tree` with it). This is the
            hierarchical softmax of Morin and Bengio 2005 over the prefix trie of the items' codes.
        chunk: positions whose logits are in memory at once; null = as many as fit in 32 MiB (GPU: 1 GiB).
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
        self.trie = CodeTrie(codes) if softmax == "tree" else None
        self.chunk = chunk
        self.select_targets = TargetSelector(data, action_weights)
        self.level_weights = [1.0] * len(codes.sizes) if level_weights is None else level_weights
        if len(self.level_weights) != len(codes.sizes):
            raise SuiteError(
                f"loss.level_weights: {len(self.level_weights)} weights for codes of {len(codes.sizes)} levels"
            )
        self.register_buffer("codes", codes.table.int(), persistent=False)

    def weight(self, batch: Batch) -> Tensor:
        """Of the positions, by their targets' actions."""
        return self.select_targets.total_weight(batch)

    def forward(self, encoder: Decoder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.select_targets(batch)
        needed = self._needed(positions.targets)
        codes = self._codes_of(encoder, positions.targets)
        if isinstance(encoder, CodeScorer):
            levels = encoder.code_states(batch, needed)
            totals = [
                self._from_states(number, level, positions, needed, codes[number])
                for number, level in enumerate(levels)
            ]
        else:
            logits = encoder.code_logits(batch)
            totals = [self._from_logits(number, level, positions, codes[number]) for number, level in enumerate(logits)]
        total_weight = positions.weights.sum().clamp(min=1e-6)
        return {
            f"next_code_{number}": weight * total / total_weight
            for number, (total, weight) in enumerate(zip(totals, self.level_weights, strict=True), start=1)
        }

    def _codes_of(self, encoder: Decoder, items: Tensor) -> Tensor:
        """items [P] -> [L, P] int64. Raises SuiteError where they change and the prefix tree is that of others."""
        learnt = encoder.item_codes(items) if isinstance(encoder, CodeLearner) else None
        if learnt is not None and self.trie is not None:
            raise SuiteError("loss.softmax: tree is of the tokenizer's codes; where the encoder learns codes: level")
        return (self.codes[items].long() if learnt is None else learnt).T.contiguous()

    def _needed(self, items: Tensor) -> Tensor | None:
        """items [P] -> [P, L] bool: at which levels the item's prefix has more than one child. With a single child the
        code has probability 1 and loss 0. None = all levels."""
        trie = self.trie
        if trie is None:
            return None
        return torch.stack([trie.child_range(level, items)[1] > 1 for level in range(len(self.level_weights))], 1)

    def _from_states(
        self, number: int, level: LevelStates, positions: WeightedTargets, needed: Tensor | None, codes: Tensor
    ) -> Tensor:
        """The summed loss of one level. The level's states are those of the needed positions only. codes: [P]."""
        trie, invalid = self.trie, None
        items, weights = positions.targets, positions.weights
        if needed is not None:
            items, weights, codes = (each[needed[:, number]] for each in (items, weights, codes))
        if trie is not None and number:  # all codes of the first level are children of the root
            invalid = lambda chunk: trie.invalid(number, items[chunk])  # noqa: E731 - computed chunk by chunk
        targets = torch.searchsorted(level.codes, codes)
        return cross_entropy(
            level.states,
            gather_rows(level.vectors, targets),
            level.vectors,
            targets,  # a position's own code is its positive, so it is masked among the negatives
            weights=weights,
            temperature=1.0,
            hidden=invalid,
            chunk=self.chunk,
        )

    def _from_logits(self, number: int, logits: Tensor, positions: WeightedTargets, codes: Tensor) -> Tensor:
        """The summed loss of one level. logits: [P, K_l]; codes: [P]."""
        targets = codes
        if self.trie is not None:
            level_codes = getattr(self.trie, f"codes_{number}")
            logits = logits[:, level_codes].masked_fill(self.trie.invalid(number, positions.targets), -torch.inf)
            targets = torch.searchsorted(level_codes, targets)
        return (functional.cross_entropy(logits.float(), targets, reduction="none") * positions.weights).sum()
