"""A plug-in in one page: the encoder `fading_popularity`, a stronger floor than the most popular items. Each training
event counts for its item, the less the older it is (after DecayPop of Ji, Sun, Zhang and Li, A Re-visit of the
Popularity Baseline in Recommender Systems, SIGIR 2020, arXiv 2005.13829; there by months, here without steps).

    pip install ./examples/fading_popularity
    grbench plugins show encoders fading_popularity
    grbench run examples/fading_popularity/suite.yaml
"""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import nn

from grbench import hookimpl
from grbench.errors import SuiteError

SECONDS_A_DAY = 86_400


class FadingPopularity(nn.Module):
    """Ranks items by their training events, each of which counts half as much after every `half_life_days`.

    Histories are 1 and items their sum, so that the inner product is the sum. Nothing is learnt.

    Args:
        half_life_days: until an event counts half.
    """

    history_length = 1

    def __init__(self, data, codes, *, half_life_days: Annotated[float, Field(gt=0)] = 7.0) -> None:
        super().__init__()
        if not data.catalogue.has_times:
            raise SuiteError("encoder fading_popularity: this dataset has no times; use most_popular")
        now = max(events.times.max(initial=0) for events in data.stream())
        weights = np.zeros(data.catalogue.num_items + 1)
        for events in data.stream():  # blocks of some million events; no loop over events
            fading = 0.5 ** ((now - events.times) / (half_life_days * SECONDS_A_DAY))
            weights += np.bincount(events.items, weights=fading, minlength=len(weights))
        self.register_buffer("weights", torch.from_numpy(weights).float().unsqueeze(1), persistent=False)

    def embed(self, batch, items):
        """items [N] -> ([B, T, 1] ones, [N, 1] sums)."""
        return self.weights.new_ones(*batch.items.shape, 1), self.embed_items(items)

    def embed_histories(self, batch):
        """-> [B, 1] ones."""
        return self.weights.new_ones(len(batch.users), 1)

    def embed_items(self, items):
        """items [N] -> [N, 1] sums."""
        return self.weights[items]


@hookimpl
def register_encoders(register):
    register("fading_popularity", FadingPopularity)
