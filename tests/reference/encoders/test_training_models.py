"""Encoders, losses and optimizers through the one training loop: each combination learns a tiny world by heart."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from training import state_of, train_once
from worlds import batch_of, everything, made_with

from grbench.data.split import Split
from grbench.testing import tiny_store
from grbench.training.options import TrainingOptions
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.losses.bce import BCE
from grbench_reference.losses.bpr import BPR
from grbench_reference.losses.full_softmax import FullSoftmax
from grbench_reference.losses.infonce import InfoNCE
from grbench_reference.optimizers.adam import adam, adamw
from grbench_reference.optimizers.muon import muon
from grbench_reference.tokenizers.ids import Ids

LOSSES = {
    "full_softmax": lambda data, codes: FullSoftmax(data, codes, temperature=0.1),
    "infonce": lambda data, codes: InfoNCE(
        data, codes, negatives={"uniform": 8, "in_batch": True}, logq="negatives", temperature=0.1
    ),
    "bce": lambda data, codes: made_with(BCE, data, codes, negatives=2, temperature=0.1),
    "bpr": lambda data, codes: made_with(BPR, data, codes, negatives=2, temperature=0.1),
}


@pytest.fixture
def split(tmp_path):
    """Item 1 is always followed by 2, 2 by 3, .. 5 by 1; histories of 2 to 6 events."""
    histories = [[(1 + (user + place) % 5, place % 2, place) for place in range(2 + user % 5)] for user in range(25)]
    store = tiny_store(
        tmp_path,
        histories,
        item_features={"field": [0, 1, 0, 1, None], "many": [[0, 1], [1], None, [2, 0], [2]]},
        user_features={"age": [user % 3 for user in range(25)]},
        embeddings={"81": np.eye(5)},
    )
    return Split(everything(store), None, None, np.arange(1, 6))


def learn(split, loss, *, optimizer=adam, encoder=None, **training):
    torch.manual_seed(0)
    codes = Ids().fit(split.training)
    encoder = made_with(
        CausalTransformer,
        split.training,
        codes,
        **{"width": 16, "history_length": 6, "dropout": 0.1, "similarity": "cosine", **(encoder or {})},
    )
    module = LOSSES[loss](split.training, codes)
    options = TrainingOptions(**{"epochs": 40, "batch_size": 9, "workers": 0, **training})
    optimizers = optimizer(nn.ModuleList([encoder, module]), lr=0.02)
    result = train_once(encoder, [(module, 1.0)], optimizers, split, options, seed=1)
    return encoder, result


def hits(encoder):
    batch = batch_of([1], [2], [3, 4], [5, 1, 2, 3], [3, 4, 5])
    scores = encoder.embed_histories(batch) @ encoder.embed_items(torch.arange(1, 6)).T
    return (scores.argmax(1) + 1).tolist() == [2, 3, 5, 4, 1]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_learns(split, loss, precision):
    encoder, result = learn(split, loss, precision=precision)
    assert result.curve[-1]["loss"] < 0.7 * result.curve[0]["loss"]
    assert hits(encoder)


BY_ROWS = {"tables": "rowwise_adagrad", "table_lr": 0.1}


@pytest.mark.parametrize("optimizer", [adam, adamw, partial(muon, adamw_lr=0.02), partial(adam, **BY_ROWS)])
@pytest.mark.parametrize("schedule", [pytest.param("constant", marks=pytest.mark.slow), "cosine"])
def test_learns_with_sparse_tables(split, optimizer, schedule):
    course = {"schedule": schedule, "warmup_steps": 10 if schedule == "cosine" else 0}
    encoder, _ = learn(split, "infonce", optimizer=optimizer, encoder={"sparse": True}, clip_norm=1.0, **course)
    assert hits(encoder)


@pytest.mark.parametrize("optimizer", [adam, adamw, muon])
@pytest.mark.parametrize("tables", ["adam", "rowwise_adagrad"])
@pytest.mark.parametrize("sparse", [False, True])
def test_schedules_reach_every_part(optimizer, tables, sparse):
    """Warm-up over 2 updates, then a cosine to zero at the 6th: every group's own rate times the same shares."""
    module = nn.ModuleDict({"table": nn.Embedding(5, 2, sparse=sparse), "linear": nn.Linear(2, 2)})
    optimizers = optimizer(module, tables=tables, table_lr=0.5)
    rates = [group["lr"] for each in optimizers for group in each.param_groups]
    assert len(set(rates)) > 1
    options = TrainingOptions(schedule="cosine", warmup_steps=2, epochs=1)
    state = state_of(module, [], optimizers, options, trainer=object())
    state.begin()
    state.steps = 6
    for state.step, share in enumerate([0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447], start=1):
        state.backward(module["linear"](module["table"](torch.tensor([0, 3]))).sum())
        state.update()
        found = [group["lr"] for each in optimizers for group in each.param_groups]
        assert found == pytest.approx([share * rate for rate in rates], rel=1e-5)


def test_learns_without_features(split):
    bare = {"item_features": False, "embeddings": "none", "user_token": False}
    encoder, _ = learn(split, "full_softmax", encoder=bare)
    assert hits(encoder)


def test_the_same_seed_gives_the_same_weights(split):
    states = [learn(split, "infonce", epochs=3, workers=workers)[0].state_dict() for workers in (0, 2)]
    for one, other in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(one, other)


def test_padding_rows_stay_zero(split):
    encoder, _ = learn(split, "bce", epochs=3)
    tables = [child for child in encoder.modules() if isinstance(child, nn.Embedding) and child.padding_idx == 0]
    assert len(tables) == 4
    assert all(torch.equal(table.weight[0], torch.zeros_like(table.weight[0])) for table in tables)
