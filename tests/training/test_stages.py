"""Running the stages of a method: one encoder, trained several times in a row."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from heard import Heard
from torch import nn

from grbench import hookimpl
from grbench.data.histories import Histories
from grbench.data.split import Split
from grbench.data.training_data import TrainingData
from grbench.errors import DataError, PluginError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.run.backends.child_process import ChildMessages
from grbench.run.memory_trial import MappedColumns, plan_memory
from grbench.run.prepare import prepare
from grbench.run.reporter import Reporter
from grbench.run.run_cell import run_cell
from grbench.suite.method import Method, Stage
from grbench.suite.suite import Cell
from grbench.testing import tiny_store
from grbench.types import Codes
from grbench_reference.protocols.leave_last_out import LeaveLastOut


class Count(nn.Module):
    """A loss whose gradient is one for each target of the step, with a number of its own to learn."""

    needs = ()
    made: ClassVar[list[Count]] = []

    def __init__(self, data, codes):
        super().__init__()
        self.learnt = nn.Parameter(torch.zeros(()))
        self.register_buffer("kept", torch.zeros(()))
        self.data, self.found = data, None
        Count.made.append(self)

    def forward(self, encoder, batch):
        if self.found is None:
            self.found = self.learnt.item(), self.kept.item()
        self.kept += 1
        positions = (batch.targets > 0).sum()
        return {"count": (encoder.value + self.learnt) * positions}


class Number(nn.Module):
    """An encoder of one number, which scores every item alike."""

    history_length = 3

    def __init__(self, data, codes):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))


class Nothing:
    """Lists that stay empty."""

    needs = ()

    def index(self, encoder, candidates, codes):
        Nothing.value = encoder.value.item()

    def search(self, encoder, batch, k):
        from grbench.types import TopK

        shape = (len(batch.users), k)
        return TopK(torch.zeros(shape, dtype=torch.int64), torch.full(shape, -torch.inf))


def sgd(module, *, lr: float = 1.0, momentum: float = 0.0) -> list:
    return [torch.optim.SGD(module.parameters(), lr=lr, momentum=momentum)]


class OwnPlugins:
    @hookimpl
    def register_encoders(self, register):
        register("number", Number)
        register("rotating", Rotating)

    @hookimpl
    def register_losses(self, register):
        register("count", Count)
        register("survivor", Survivor)
        register("coded", Coded)

    @hookimpl
    def register_retrievers(self, register):
        register("nothing", Nothing)

    @hookimpl
    def register_optimizers(self, register):
        register("sgd", sgd)


@pytest.fixture
def registry():
    found = Registry.load()
    found.add("own", "own", "1", OwnPlugins)
    Count.made.clear()
    return found


@pytest.fixture
def store(tmp_path):
    """Four users of two exposures, a click and two exposures that are held out."""
    walk = [(1, 0, 1), (2, 0, 2), (3, 1, 3), (4, 0, 4), (5, 0, 5)]
    return tiny_store(tmp_path, [walk] * 4)


def stage(name, targets=None, *, loss="count", trainer="supervised", optimizer=None, **training):
    options = {"epochs": 1, "batch_size": 4, "workers": 0} | training
    losses = ((Component(loss, {}), 1.0),) if loss else ()
    return Stage(name, targets, losses, Component(trainer, {}), Component("sgd", optimizer or {}), options)


def staged(*stages, encoder="number", retriever="nothing", seed=0):
    whole = Method("m", Component("ids", {}), Component(encoder, {}), Component(retriever, {}), stages, (), ())
    metrics = (Component("hit_rate", {"k": 2}),)
    return Cell("tiny", Component("tiny", {}), Component("leave_last_out", {}), metrics, whole, seed)


def run(cell, store, registry):
    heard = Heard()
    blank = Record(digest="d", suite="tiny", method="m", seed=0, status="error")
    report = Reporter(ChildMessages(heard), [heard])
    record, _ = run_cell(cell, blank, store, registry=registry, device="cpu", report=report)
    return record, heard


def test_stages_by_hand(store, registry):
    """Of a user's three training events two are targets: an exposure and a click."""
    seen, wanted = stage("seen", ("exposure",)), stage("wanted", ("click",), epochs=2, batch_size=2)
    record, heard = run(staged(seen, wanted), store, registry)
    # One step of four targets; then twice two steps of two.
    assert Nothing.value == -(4 + 2 * 2 * 2)
    assert [(row["stage"], row["epoch"]) for row in record.curve] == [("seen", 1), ("wanted", 2), ("wanted", 3)]
    assert (record.counts["epochs_run"], record.counts["steps_run"]) == (3, 5)
    # Both numbers go down alike: the losses 0, then (-8 * 2, -12 * 2) and (-16 * 2, -20 * 2) in the mean.
    assert [row["loss"] for row in record.curve] == [0.0, -20.0, -36.0]
    assert [step for step, _ in heard.logged if step] == [1, 3, 5]
    assert {event.get("what") for event in heard.events if event["event"] == "train"} <= {"train seen", "train wanted"}


def test_a_loss_counts_by_its_stage_and_keeps_what_it_learnt(store, registry):
    run(staged(stage("seen", ("exposure",)), stage("wanted", ("click",)), stage("all")), store, registry)
    seen, wanted, last = Count.made
    assert (seen.found, wanted.found, last.found) == ((0.0, 0.0), (-4.0, 0.0), (-8.0, 0.0))
    assert [loss.data.target_actions for loss in (seen, wanted, last)] == [(2,), (3,), None]


class Survivor(Count):
    """What it keeps goes on, and its stage is known to it."""

    def survives(self):
        return ("kept",)

    def start_stage(self, name, number):
        self.stage = name, number


def test_a_buffer_may_ask_to_survive_its_stage(store, registry):
    run(staged(stage("one", loss="survivor", epochs=2), stage("two", loss="survivor")), store, registry)
    one, two = Count.made
    assert (one.found, two.found) == ((0.0, 0.0), (-16.0, 2.0))
    assert (one.stage, two.stage) == (("one", 0), ("two", 1))


def test_a_loss_goes_on_from_one_of_its_own_kind(store, registry):
    """Each stage names other losses: the second `count` finds what the first has learnt, the survivor is new."""
    run(staged(stage("one"), stage("two", loss="survivor"), stage("three")), store, registry)
    assert [loss.found for loss in Count.made] == [(0.0, 0.0)] * 3
    Count.made.clear()
    both = replace(stage("two"), losses=((Component("survivor"), 1.0), (Component("count"), 1.0)))
    run(staged(stage("one"), both), store, registry)
    assert [loss.found for loss in Count.made] == [(0.0, 0.0), (0.0, 0.0), (-8.0, 0.0)]


def test_a_name_that_is_no_buffer_cannot_survive(store, registry):
    class Mistaken(Count):
        def survives(self):
            return ("learnt",)

    class More:
        @hookimpl
        def register_losses(self, register):
            register("mistaken", Mistaken)

    registry.add("more", "more", "1", More)
    with pytest.raises(PluginError, match="loss Mistaken: survives names 'learnt', which is no buffer; there are kept"):
        run(staged(stage("one", loss="mistaken")), store, registry)


def test_a_buffer_of_another_shape_cannot_survive(store, registry):
    class Growing(Survivor):
        def forward(self, encoder, batch):
            value = super().forward(encoder, batch)
            self.kept = torch.cat([self.kept.view(-1), self.kept.new_zeros(1)])
            return value

    class More:
        @hookimpl
        def register_losses(self, register):
            register("growing", Growing)

    registry.add("more", "more", "1", More)
    message = r"loss Growing: kept survives its stage, but has shape \[\] now and had \[2\]; give it the same size"
    with pytest.raises(PluginError, match=message):
        run(staged(stage("one", loss="growing"), stage("two", loss="growing")), store, registry)


def test_a_buffer_that_the_stage_before_did_not_have_starts_anew():
    from grbench.training.stages import carried_over

    class Late(torch.nn.Module):
        def __init__(self, kept):
            super().__init__()
            self.register_buffer("kept", kept)

        def survives(self):
            return ["kept"]

    ((later, _),) = carried_over([(Late(None), 1.0)], [(Late(torch.ones(2)), 1.0)])
    assert later.kept.tolist() == [1, 1]


class Coded(Count):
    """Notes the codes that it is made with."""

    def __init__(self, data, codes):
        super().__init__(data, codes)
        self.codes = codes


class Rotating(Number):
    """Its codes are the items' numbers less one and less its own."""

    def codes(self):
        moved = (torch.arange(5) - 1 - int(self.value.item())) % 5
        return Codes(torch.cat([torch.zeros(1, dtype=torch.int64), moved]).unsqueeze(1), (5,))


def test_a_later_stages_losses_see_the_codes_that_are_learnt_by_then(store, registry):
    run(staged(stage("one", loss="coded"), stage("two", loss="coded"), encoder="rotating"), store, registry)
    one, two = Count.made
    assert one.codes.table.flatten().tolist() == [0, 1, 2, 3, 4, 5]  # the tokenizer's
    assert two.codes.table.flatten().tolist() == [0, 2, 3, 4, 0, 1]  # the number is -8


def test_an_optimizer_starts_afresh_in_each_stage(store, registry):
    """With momentum 1 the second of two updates goes twice as far; not so where it is a stage's first."""
    run(staged(stage("all", epochs=2, optimizer={"momentum": 1.0})), store, registry)
    assert Nothing.value == -(8 + 16)
    run(staged(stage("one", optimizer={"momentum": 1.0}), stage("two", optimizer={"momentum": 1.0})), store, registry)
    assert Nothing.value == -(8 + 8)


def test_stages_without_a_difference_equal_one_training(store, registry):
    """An optimizer without a memory, so that only the order of users and the draws of negatives could differ."""
    parts = {"encoder": "causal_transformer", "retriever": "exact"}
    slow = {"loss": "infonce", "optimizer": {"lr": 0.1}, "batch_size": 2}
    whole, _ = run(staged(stage("", epochs=3, **slow), **parts), store, registry)
    split, _ = run(staged(stage("one", epochs=1, **slow), stage("two", epochs=2, **slow), **parts), store, registry)
    assert [row["loss"] for row in split.curve] == [row["loss"] for row in whole.curve]
    assert split.scores == whole.scores
    assert "stage" not in whole.curve[0]


def test_each_stage_ends_in_its_best_state(store, registry, monkeypatch):
    """Scores are made up: the best of the first stage is its first epoch, of the second its second."""
    scores = iter([0.9, 0.1, 0.2, 0.3])
    monkeypatch.setattr("grbench.training.stages.validation_scores", lambda *_, **__: {"hit_rate@2": next(scores)})
    choosing = {"epochs": 2, "validate_every": 1, "select": "hit_rate@2"}
    record, _ = run(staged(stage("one", **choosing), stage("two", **choosing)), store, registry)
    assert Nothing.value == -8 * 3  # of four steps, the second was taken back
    assert (record.counts["best_epoch"], record.counts["epochs_run"]) == (4, 4)
    assert [row["hit_rate@2"] for row in record.curve] == [0.9, 0.1, 0.2, 0.3]


def test_a_stage_whose_action_is_not_there_says_so(store, registry):
    with pytest.raises(DataError, match=r"methods.m.stages.1.targets: no action 'clicks' in this dataset; it has exp"):
        run(staged(stage("one"), stage("two", ("clicks",))), store, registry)


# --- before it runs


def test_it_is_said_before_anything_is_trained(store, registry, tmp_path, monkeypatch):
    monkeypatch.setattr(Registry, "load", lambda: registry)
    monkeypatch.setattr("grbench.data.store_writer.build_store", lambda dataset, **options: store)
    cell = Cell.from_json(
        {**staged(stage("two", ("convers",))).to_json(), "dataset": {"name": "tencentgr_synthetic", "options": {}}}
    )
    job = {"cell": cell.to_json(), "cache": str(tmp_path), "device": "cpu", "filters": [[]], "validates": False}
    job |= {"suite": "suites/x.yaml", "methods": [cell.to_json()]}
    with pytest.raises(DataError, match=r"^suites/x.yaml: methods.m.stages.0.targets: no action 'convers' in this"):
        prepare(job, ChildMessages(io.StringIO()))


def test_a_loss_is_planned_for_in_its_stage(store, registry):
    split = LeaveLastOut().split(store)
    method = staged(stage("one", loss="survivor"), stage("two", loss="survivor")).method
    plan_memory(method, registry, split, device="cpu", process=0, mapped=MappedColumns(store))
    assert [loss.stage for loss in Count.made] == [("one", 0), ("two", 1)]


def test_the_largest_stage_is_planned_for(tmp_path):
    registry = Registry.load()
    walks = [[(1 + (user + step) % 40, step % 2, step) for step in range(20)] for user in range(64)]
    store = tiny_store(tmp_path, walks)
    rows = np.arange(64)
    data = TrainingData(store.catalogue, Histories(store, rows, store.offsets[:-1], store.offsets[1:]))
    split = Split(data, None, None, np.arange(1, 41))

    def plan(*sizes):
        stages = tuple(
            replace(
                stage(str(place), ("click",) if place else None, loss="bce", batch_size=size),
                optimizer=Component("adam", {}),
            )
            for place, size in enumerate(sizes)
        )
        encoder = Component("causal_transformer", {"width": 16, "history_length": 20})
        staged = Method("m", Component("ids", {}), encoder, Component("exact", {}), stages, (), ())
        return plan_memory(staged, registry, split, device="cpu", process=0, mapped=MappedColumns(store))

    small, large, both = plan(2), plan(64), plan(2, 64)
    assert both.batch_size == 64
    assert small.ram_bytes < both.ram_bytes
    assert both.ram_bytes == pytest.approx(large.ram_bytes, rel=0.2)
    assert "; stages.1.training.batch_size" in both.refusal(int(0.9 * both.ram_bytes), None)
