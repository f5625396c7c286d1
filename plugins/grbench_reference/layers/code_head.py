"""From a decoder's states to the logits of codes, one set of output embeddings a level.

Shapes: P positions, D width, K_l codes of level l, n codes that items have at a level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grbench.types import Codes
from grbench_reference.features.code_table import CodeTable, UsedCodes
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import unit
from grbench_reference.layers.interfaces import LevelStates


class CodeHead(nn.Module):
    """Logits are products of states and output embeddings; codes that no item has get no probability.

    cosine: both are scaled to length 1; temperature: logits are divided by it.
    """

    def __init__(self, codes: Codes, width: int, *, tied: bool, cosine: bool, temperature: float) -> None:
        """tied: the output embeddings are the input embeddings, which every call gives."""
        super().__init__()
        self.cosine, self.temperature = cosine, temperature
        self.used = nn.ModuleList(UsedCodes(codes.table[1:, level], size) for level, size in enumerate(codes.sizes))
        self.codes_out = None
        if not tied:
            self.codes_out = nn.ParameterList(
                torch.empty(size, width).normal_(std=TABLE_SPREAD) for size in codes.sizes
            )

    def level(self, number: int, states: Tensor, table: CodeTable) -> LevelStates:
        """states [P, D] of level `number`, from 0 -> its logits before they are multiplied out."""
        used = self._used(number)
        every = table.of_level(number) if self.codes_out is None else self.codes_out[number]
        return LevelStates(self._scaled(states) / self.temperature, self._scaled(used.select(every)), used.codes)

    def logits(self, number: int, states: Tensor, table: CodeTable) -> Tensor:
        """states [P, D] of level `number` -> [P, K_l]."""
        return self.of(number, self.level(number, states, table))

    def of(self, number: int, level: LevelStates) -> Tensor:
        """-> [P, K_l], multiplied out."""
        return self._used(number).scatter(level.states @ level.vectors.T)

    def _used(self, number: int) -> UsedCodes:
        used = self.used[number]
        assert isinstance(used, UsedCodes)
        return used

    def _scaled(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.cosine else vectors
