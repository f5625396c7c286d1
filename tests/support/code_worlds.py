"""Tiny worlds with semantic ids, and encoders over them, that the tests of generative methods share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from worlds import away_from_the_start, batch_of, made_with, training_data

from grbench.types import Codes
from grbench_reference.encoders.sid_decoder import SIDDecoder
from grbench_reference.tokenizers.ids import Ids

# Items 7 and 8 share their code; item 9 has no training event; level 1 has codes 0 and 2 only, level 2 not 3.
TABLE = [
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, 1],
    [0, 2, 0],
    [1, 0, 4],
    [3, 2, 2],
    [3, 2, 4],
    [2, 0, 1],
    [2, 0, 1],
    [1, 2, 0],
]
SIZES = (4, 3, 5)
ITEMS = torch.arange(1, 10)
BATCH = batch_of(
    [1, 2, 3, 4],
    [5, 6],
    [7],
    [8, 1, 5],
    targets=[[2, 3, 4, 5], [6, 7], [8], [0, 5, 9]],
    actions=[[2, 3, 2, 3], [2, 2], [3], [2, 3, 3]],
)


def world(folder):
    histories = [
        [(1, 0, 1), (2, 1, 2), (3, 0, 3), (4, 1, 4), (5, 0, 5)],
        [(5, 0, 1), (6, 0, 2), (7, 1, 3)],
        [(7, 1, 1), (8, 0, 2)],
        [(8, 0, 1), (1, 1, 2), (5, 1, 3), (3, 0, 4)],
    ]
    return training_data(
        folder,
        histories,
        num_items=9,
        item_features={"color": [0, 1, None, 1, 2, 0, 1, 1, 0]},
        user_features={"age": [1, 2, None, 1]},
    )


def codes_of(data, tokenizer="three"):
    return Ids().fit(data) if tokenizer == "ids" else Codes(torch.tensor(TABLE), SIZES)


def decoder(data, codes, **options):
    torch.manual_seed(0)
    encoder = made_with(
        SIDDecoder, data, codes, **{"width": 8, "heads": 2, "blocks": 2, "history_length": 4, **options}
    )
    return away_from_the_start(encoder)


def newest_target_only(batch):
    """The batch with a target at its last position only, one for everybody: what `start` and `step` write."""
    targets = torch.zeros_like(batch.targets)
    targets[:, -1] = batch.targets[:, -1]
    return dataclasses.replace(batch, targets=targets)


def log_probabilities(encoder, batch, codes, items):
    """[B, len(items)] of writing each item after the newest event, one teacher-forced pass an item."""
    columns = []
    for item in items.tolist():
        targets = torch.zeros_like(batch.targets)
        targets[:, -1] = item
        levels = encoder.code_logits(dataclasses.replace(batch, targets=targets))
        columns.append(sum(logits.log_softmax(1)[:, codes.table[item, level]] for level, logits in enumerate(levels)))
    return torch.stack(columns, 1)


@dataclass(frozen=True)
class PrefixState:
    users: torch.Tensor
    generated: torch.Tensor

    def select(self, rows):
        return PrefixState(self.users[rows], self.generated[rows])


class TableDecoder(nn.Module):
    """Logits from a table: of user u after the codes generated so far, drawn once for every prefix there is."""

    def __init__(self, sizes, users, seed=0, whole=False):
        super().__init__()
        rng = np.random.default_rng(seed)
        shapes = [(users, *sizes[: level + 1]) for level in range(len(sizes))]
        draw = (lambda shape: rng.integers(-2, 3, shape)) if whole else rng.standard_normal
        self.logits = [torch.tensor(draw(shape), dtype=torch.float32) for shape in shapes]
        self.rows = 0

    def code_logits(self, batch):
        raise NotImplementedError

    def start(self, batch):
        generated = batch.users.new_empty((len(batch.users), 0))
        return self.logits[0][batch.users], PrefixState(batch.users, generated)

    def step(self, codes, state):
        self.rows = max(self.rows, len(codes))
        generated = torch.cat([state.generated, codes[:, None]], 1)
        logits = self.logits[generated.shape[1]][(state.users, *generated.T)]
        return logits, PrefixState(state.users, generated)

    def log_probability(self, user, code, existing=None):
        """existing: the codes that share the probability, behind each prefix; None = all there could be."""
        total = 0.0
        for level, own in enumerate(code):
            logits = self.logits[level][(user, *code[:level])]
            others = range(len(logits))
            if existing is not None:
                others = sorted({other[level] for other in existing if tuple(other[:level]) == tuple(code[:level])})
            total += float(logits[own] - logits[list(others)].logsumexp(0))
        return total
