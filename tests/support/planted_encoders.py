"""A package with an encoder whose score is an option of it. It is copied to where a test wants it installed.

Users' sequences go round the catalogue, so that the item after item i is known. The encoder predicts it for so many of
the users, and for the others an item that is none.
"""

import os
import time
from pathlib import Path

import torch
from torch import nn

from grbench import hookimpl


class Planted(nn.Module):
    """Args:
    right: users whose next item is predicted, from the first one on
    fails: value of `right` at which it raises
    """

    history_length = 4

    def __init__(self, data, codes, *, right: int = 0, fails: int = -1) -> None:
        super().__init__()
        if right == fails:
            raise ValueError("deliberate")
        self.right, self.num_items = right, data.catalogue.num_items
        self.weight = nn.Parameter(torch.zeros(()))

    def train(self, mode=True):
        if mode:
            time.sleep(float(os.environ.get("PLANTED_SLEEP", "0")))
        return super().train(mode)

    def embed(self, batch, items):
        return self.one_hot(batch.items) + self.weight, self.embed_items(items)

    def embed_histories(self, batch):
        if "PLANTED_LOG" in os.environ:  # the lengths of the histories that are searched for
            lengths = (batch.items > 0).sum(1).tolist()
            with Path(os.environ["PLANTED_LOG"]).open("a") as file:
                file.write("".join(f"{length}\n" for length in lengths))
        following = batch.items[:, -1] % self.num_items + 1
        return self.one_hot(following * (batch.users < self.right))

    def embed_items(self, items):
        return self.one_hot(items)

    def one_hot(self, items):
        return nn.functional.one_hot(items, self.num_items + 1)[..., 1:].float()


@hookimpl
def register_encoders(register):
    register("planted", Planted)
