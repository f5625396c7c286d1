"""Plans of small methods against what is known of them by hand, and against what a real step holds."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from training import state_of

from grbench.data.batches import training_batches
from grbench.data.examples import newest_events
from grbench.data.histories import Histories
from grbench.data.split import Split
from grbench.data.training_data import TrainingData
from grbench.hookspecs import hookimpl
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.run.live_memory import LiveBytes, peak
from grbench.run.memory_trial import (
    MappedColumns,
    _line,
    _most_alive,
    _state_bytes,
    _Step,
    _watch_steps,
    plan_memory,
)
from grbench.suite.method import Method, Stage
from grbench.testing import tiny_store
from grbench.training.options import TrainingOptions
from grbench_reference.trainers.supervised import Supervised

ITEMS, USERS, LENGTH, WIDTH = 3000, 200, 20, 16


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    items = np.random.default_rng(0).integers(1, ITEMS + 1, (USERS, LENGTH + 1))
    histories = [[(int(item), 0, time) for time, item in enumerate(row)] for row in items]
    features = {"color": [item % 7 for item in range(ITEMS)]}
    return tiny_store(tmp_path_factory.mktemp("store"), histories, num_items=ITEMS, item_features=features)


@pytest.fixture(scope="module")
def split(store) -> Split:
    rows = np.arange(USERS)
    data = TrainingData(store.catalogue, Histories(store, rows, store.offsets[:-1], store.offsets[1:]))
    return Split(data, None, None, np.arange(1, ITEMS + 1))


def a_method(*, tokenizer: str = "ids", optimizer: str = "adam", loss=None, encoder=None, **training) -> Method:
    options = {"width": WIDTH, "history_length": LENGTH, "item_features": False} | (encoder or {})
    stage = Stage(
        name="",
        targets=None,
        losses=(loss or (Component("bce", {}), 1.0),),
        trainer=Component("supervised", {}),
        optimizer=Component(optimizer, {}),
        training={"batch_size": 16, "workers": 1} | training,
    )
    return Method(
        name="m",
        tokenizer=Component(tokenizer, {}),
        encoder=Component("causal_transformer", options),
        retriever=Component("exact", {}),
        stages=(stage,),
        filters=(),
        trackers=(),
    )


def planned(method, registry, split, store):
    return plan_memory(method, registry, split, device="cpu", process=1 << 20, mapped=MappedColumns(store))


def test_parameters_state_and_index_by_hand(registry, split, store) -> None:
    plan = planned(a_method(), registry, split, store)
    trained = int((split.training.item_counts() > 0).sum())
    actions = 2 + len(store.catalogue.actions)
    assert plan.device["tables"] == 4 * WIDTH * (trained + 2 + actions + LENGTH + 1)
    parameters = plan.device["tables"] + plan.device["other parameters"]
    # Two moments a number; one count of steps a tensor.
    assert parameters * 2 <= plan.device["optimizer state"] <= parameters * 2 + 400
    assert plan.device["gradients"] == pytest.approx(parameters, rel=0.01)
    assert plan.device["index"] == ITEMS * (4 * WIDTH + 8)
    assert plan.host["process"] == 1 << 20
    assert plan.unknown == ""


def test_sparse_gradients_grow_with_the_batch_and_not_with_the_table(registry, split, store) -> None:
    dense = planned(a_method(), registry, split, store)
    sparse = planned(a_method(encoder={"sparse": True}), registry, split, store)
    assert sparse.device["gradients"] < dense.device["gradients"]
    assert sparse.device["optimizer state"] == pytest.approx(dense.device["optimizer state"], rel=0.02)


def test_a_divided_table_is_a_part_on_each_device(registry, split, store) -> None:
    options = {"sparse": True, "width": 256}
    one = planned(a_method(encoder=options), registry, split, store)
    four = planned(a_method(encoder=options, devices=4, shard_tables=1000), registry, split, store)
    rows = int((split.training.item_counts() > 0).sum()) + 2
    whole, part = 4 * 256 * rows, 4 * 256 * -(-rows // 4)
    assert one.device["tables"] - four.device["tables"] == whole - part
    assert one.device["optimizer state"] - four.device["optimizer state"] == pytest.approx(2 * (whole - part), rel=0.01)
    assert (four.device["index"], four.host["process"]) == (one.device["index"], one.host["process"])
    assert four.device["activations"] < one.device["activations"]  # of a quarter of the batch
    assert four.ram_bytes == 4 * (sum(four.host.values()) + four.device_bytes)
    assert four.batch_size == one.batch_size

    # The ids of TencentGR-10M's 17.5 million ads, and two moments of each: too much for one GPU of 24 GB, not for four.
    def at_full_size(plan, of_ids):
        return plan.device_bytes - 3 * of_ids + 3 * of_ids * 17_500_000 / rows

    assert at_full_size(one, whole) > 53e9
    assert at_full_size(four, part) < 14e9


def test_tables_of_further_features_are_known(registry, split, store) -> None:
    options = {"hashed_ids": [101, 103], "hashed_width": 4, "user_id": True, "id_width": WIDTH}
    context = {"time_features": ["hour", "gap", "fourier"], "popularity_windows": [1, 30], "context_dropout": 0.5}
    bare = planned(a_method(), registry, split, store)
    featured = planned(a_method(encoder=options | context), registry, split, store)
    hashed, users = 4 * (101 + 2 + 103 + 2), WIDTH * (USERS + 2)
    most = int(split.training.item_counts().max())
    buckets = WIDTH * ((1 + 24 + 1 + 28 + 1) + (1 + 2 * (most.bit_length() + 2)))
    assert featured.device["tables"] - bare.device["tables"] == 4 * (hashed + users + buckets)
    days = 4 * (ITEMS + 2) + 2 * (most + 1)
    assert featured.device["catalogue"] - bare.device["catalogue"] > days
    assert featured.unknown == ""


def test_columns_of_the_store_are_no_memory_of_the_model(registry, split, store) -> None:
    bare = planned(a_method(), registry, split, store)
    featured = planned(a_method(encoder={"item_features": True}), registry, split, store)
    # The codes stay mapped; only the fused table's small maps come on top.
    assert featured.device["catalogue"] - bare.device["catalogue"] < 1000


class Takes:
    """A trainer whose step takes 80 MiB for the catalogue and then, once that is gone, 1 MiB a user."""

    def __init__(self, seconds_of) -> None:
        self.seconds_of, self.now = seconds_of, 0.0

    def step(self, state, batch):
        users = len(batch.users)
        self.now += self.seconds_of(users)
        assert len(torch.empty(80 << 20, dtype=torch.uint8))
        return {"loss": torch.empty(users << 20, dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("seconds_of", "limit", "tried", "mib"),
    [
        (lambda users: 0.01, 1024, [3, 13, 53, 213, 512], 512),
        (lambda users: 0.9, 1024, [3, 13, 53, 213, 512], 512),
        (lambda users: 1.1, 1024, [3, 13], 80 + 512),  # each at its peak, though they are not at one time
        (lambda users: users / 60, 1024, [3, 13, 53], 80 + 512),
        (lambda users: 0.01, 100, [3, 13, 53], 80 + 512),
        (lambda users: 0.01, 50, [], None),
    ],
)
def test_steps_grow_as_far_as_time_and_memory_allow(  # noqa: PLR0917 - pytest passes by name
    seconds_of, limit, tried, mib, split, monkeypatch
) -> None:
    trainer = Takes(seconds_of)
    monkeypatch.setattr("grbench.run.memory_trial.time.perf_counter", lambda: trainer.now)
    encoder = nn.Linear(1, 1)
    encoder.history_length = LENGTH
    options = TrainingOptions(batch_size=512, workers=0)
    steps = _watch_steps(state_of(encoder, [], [], options, data=split.training, trainer=trainer), limit << 20)
    assert [step.users for step in steps] == tried
    if tried:
        assert _most_alive(steps, 512) == pytest.approx((mib << 20, 512 << 20), rel=1e-3)


def test_what_lies_beyond_is_on_the_line_through_two_steps() -> None:
    two = [_Step(3, 0.1, 100, [50, 30, -30, -50, 50]), _Step(13, 0.1, 140, [50, 130, -130, -50, 50])]
    assert _line(two, [step.gradients for step in two], 23) == 180
    assert _most_alive(two, 23) == (50 + 230, 230)
    assert _most_alive(two, 13) == (180, 130)
    assert _most_alive(two[:1], 6) == (160, 160)


def test_what_a_method_reads_of_the_store_is_shown_as_mapped(registry, tmp_path) -> None:
    """An event is 13 bytes, a user's place 8; of features and embeddings only those that the encoder takes in."""
    histories = [[(1 + item, 0, time) for time, item in enumerate(range(user, user + 4))] for user in range(5)]
    store = tiny_store(
        tmp_path,
        histories,
        item_features={"color": list(range(8))},
        user_features={"place": list(range(5))},
        embeddings={"81": np.ones((8, 16)), "82": np.ones((8, 900))},
        candidates=[1, 2, 3],
    )
    data = TrainingData(store.catalogue, Histories(store, np.arange(5), store.offsets[:-1], store.offsets[1:]))
    split = Split(data, None, None, np.arange(1, 9))

    def mapped(**encoder) -> int:
        options = {"item_features": False, "user_features": False, "embeddings": "none"} | encoder
        return planned(a_method(encoder=options), registry, split, store).mapped

    events = 13 * 20 + 8 * 6 + 8 * 3
    assert mapped() == events
    assert mapped(item_features=True) == events + 4 * 9
    assert mapped(user_features=True, embeddings=["81"]) == events + 4 * 5 + 9 * (2 * 16 + 1)


@pytest.mark.parametrize("share_of_the_batch", [1, 10])
def test_most_alive_are_near_those_of_a_real_step(share_of_the_batch, registry, split, store, monkeypatch) -> None:
    """Also where the largest step tried has a tenth of the batch size."""
    users = 128
    if share_of_the_batch > 1:
        monkeypatch.setattr("grbench.run.memory_trial.LONGEST_SECONDS", -1.0)  # 3 users, then 13, and no more
    plan = planned(a_method(batch_size=users), registry, split, store)

    torch.manual_seed(0)
    codes = registry.build("tokenizers", "ids").fit(split.training)
    method = a_method()
    encoder = registry.build("encoders", method.encoder, split.training, codes)
    loss = registry.build("losses", "bce", split.training, codes)
    module = nn.ModuleList([encoder, loss])
    (optimizer,) = registry.build("optimizers", "adam", module)
    examples = newest_events(split.training, seed=3, epoch=1)
    batch = next(training_batches(split.training, examples, history_length=LENGTH, batch_size=users, workers=0))
    with LiveBytes(limit=1 << 40) as live:
        sum(loss(encoder, batch).values()).backward()
        optimizer.step()
    real = peak(live.changes)
    expected = sum(plan.device[part] for part in ("gradients", "optimizer state", "activations"))
    assert 0.7 * real <= expected <= 1.4 * real


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("tables", ["adam", "rowwise_adagrad"])
def test_every_optimizers_state(registry, name, tables) -> None:
    """From a few rows the same number as from all of them."""
    component = Component(name, {"tables": tables})

    def module():
        bags = {"table": nn.Embedding(6000, 16), "sparse": nn.Embedding(5000, 16, sparse=True)}
        return nn.ModuleDict(
            {**bags, "linear": nn.Linear(400, 300), "experts": nn.ParameterList([torch.zeros(3, 9, 8)])}
        )

    whole = module()
    optimizers = registry.build("optimizers", component, whole)
    for parameter in whole.parameters():
        gradient = torch.zeros_like(parameter)
        parameter.grad = gradient.to_sparse(1) if parameter is whole["sparse"].weight else gradient
    for optimizer in optimizers:
        optimizer.step()
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    real = sum(each.nbytes for state in states for each in state.values() if isinstance(each, torch.Tensor))
    assert _state_bytes(partial(registry.build, "optimizers", component), module()) == real
    if tables == "rowwise_adagrad":
        assert real < 4 * (6000 + 5000) + 2 * 4 * (401 * 300 + 3 * 9 * 8) + 100


def test_what_grows_with_training_is_planned_grown(registry, split, store) -> None:
    """A bank of 2,000 items is empty in the first step, and 2,000 negatives later on."""
    plans = []
    for negatives in ({"bank": 2000, "uniform": 1}, {"uniform": 2000}, {"uniform": 1}):
        method = a_method(loss=(Component("infonce", {"negatives": negatives}), 1.0))
        plans.append(planned(method, registry, split, store).device)
    bank, uniform, one = (plan["activations"] for plan in plans)
    assert bank == pytest.approx(uniform, rel=0.3)
    assert bank > 2 * one
    assert plans[0]["catalogue"] - plans[1]["catalogue"] == 8 * 2000


class Strangers:
    @hookimpl
    def register_tokenizers(self, register):
        register("slow", Slow)

    @hookimpl
    def register_trainers(self, register):
        register("against_a_frozen_copy", AgainstAFrozenCopy)


class Slow:
    def fit(self, data):
        raise AssertionError("nothing is fitted for a forecast")


class AgainstAFrozenCopy(Supervised):
    def start(self, state):
        super().start(state)
        state.modules["reference"] = deepcopy(state.encoder).requires_grad_(False)


@pytest.fixture(scope="module")
def with_strangers() -> Registry:
    registry = Registry.load()
    registry.add("strangers", "strangers", "1", Strangers)
    return registry


def test_a_tokenizer_that_cannot_stand_in_leaves_the_plan_open(with_strangers, split, store) -> None:
    plan = planned(a_method(tokenizer="slow"), with_strangers, split, store)
    assert plan.parts == {}
    assert "the tokenizer slow has to be fitted first" in plan.unknown


def test_what_a_trainer_adds_is_in_the_plan(with_strangers, split, store) -> None:
    method = a_method()
    stage = replace(method.stages[0], trainer=Component("against_a_frozen_copy", {}))
    alone = planned(method, with_strangers, split, store).device
    both = planned(replace(method, stages=(stage,)), with_strangers, split, store).device
    assert both["tables"] == 2 * alone["tables"]
    assert both["gradients"] == alone["gradients"]
    assert both["optimizer state"] == alone["optimizer state"]


def test_a_step_too_large_to_try_is_not_made(registry, split, store, monkeypatch) -> None:
    monkeypatch.setattr("grbench.run.memory_trial._free_bytes", lambda device: 100_000)
    plan = planned(a_method(), registry, split, store)
    assert "too large to try" in plan.unknown
    assert plan.device["optimizer state"] >= 2 * plan.device["tables"]
