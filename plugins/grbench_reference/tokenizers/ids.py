"""The tokenizer whose codes are the items themselves."""

from __future__ import annotations

import torch

from grbench.data.training_data import TrainingData
from grbench.interfaces import Tokenizer
from grbench.types import Codes


class Ids(Tokenizer):
    """One level with one code for each item: the item's row in the store."""

    def fit(self, data: TrainingData) -> Codes:
        """-> table [N+1, 1]: 0, 1, ..., N."""
        rows = data.catalogue.num_items + 1
        return Codes(torch.arange(rows).unsqueeze(1), (rows,))

    def stand_in(self, data: TrainingData) -> Codes:
        """The same codes, as there is nothing to learn."""
        return self.fit(data)
