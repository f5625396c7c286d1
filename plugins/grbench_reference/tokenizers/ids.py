"""The tokenizer that leaves items as they are."""

from __future__ import annotations

import torch

from grbench.data.training_data import TrainingData
from grbench.interfaces import Tokenizer
from grbench.types import Codes


class Ids(Tokenizer):
    """One level whose code is the item itself."""

    def fit(self, data: TrainingData) -> Codes:
        """-> table [N+1, 1]: 0, 1, .. N."""
        rows = data.catalogue.num_items + 1
        return Codes(torch.arange(rows).unsqueeze(1), (rows,))

    def stand_in(self, data: TrainingData) -> Codes:
        """The same."""
        return self.fit(data)
