"""Tiny worlds with semantic ids, and encoders over them, that the tests of generative methods share."""

from __future__ import annotations

import dataclasses

import torch
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
