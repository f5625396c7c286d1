"""One cell from data to record, in this process, on a store of a few users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from heard import Heard
from torch import Tensor, nn

from grbench import hookimpl
from grbench.data.split import Queries
from grbench.data.store import Store
from grbench.data.training_data import TrainingData
from grbench.errors import PluginError, SuiteError
from grbench.evaluation.ranking import Ranker
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.run.backends.child_process import ChildMessages
from grbench.run.reporter import Reporter
from grbench.run.run_cell import run_cell
from grbench.suite.method import Method, Stage
from grbench.suite.suite import Cell
from grbench.testing import tiny_store
from grbench.types import Batch, Codes, Ranking, TopK

BLANK = Record(digest="d", suite="tiny", method="m", seed=0, status="error")


class MeanRank:
    """The place of the target, k + 1 where it is not in the list."""

    higher_is_better = False

    def __init__(self, *, k: int) -> None:
        self.name, self.k = "mean_rank", k

    def __call__(self, ranking: Ranking) -> np.ndarray:
        return np.where(ranking.ranks[:, 0] > 0, ranking.ranks[:, 0], self.k + 1).astype(np.float64)


class Counting(nn.Module):
    """Learns codes: after n training steps, item i has code i + n, round a circle of the items."""

    history_length = 2
    steps: Tensor

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__()
        self.items = data.catalogue.num_items
        self.vectors = nn.Parameter(torch.zeros(self.items + 1, 2))
        self.register_buffer("steps", torch.tensor(0))

    def codes(self) -> Codes:
        assert not self.training
        shifted = (torch.arange(self.items + 1) + self.steps) % self.items
        shifted[0] = 0
        return Codes(shifted.unsqueeze(1), (self.items,), {"steps": int(self.steps)})


class OneStep(nn.Module):
    needs: ClassVar[tuple[type, ...]] = ()

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__()

    def forward(self, encoder: Counting, batch: Batch) -> dict[str, Tensor]:
        encoder.steps += 1
        return {"nothing": encoder.vectors.sum()}


class ByCode:
    """Ranks by code, the highest first; `indexed` holds the codes of item 1 that it was given, one an indexing."""

    needs: ClassVar[tuple[type, ...]] = ()
    indexed: ClassVar[list[int]] = []

    def index(self, encoder: nn.Module, candidates: Tensor, codes: Codes) -> None:
        self.indexed.append(int(codes.table[1, 0]))
        self.order = candidates[codes.table[candidates, 0].argsort(descending=True)]
        self.scores = codes.table[self.order, 0].float()

    def search(self, encoder: nn.Module, batch: Batch, k: int) -> TopK:
        users = len(batch.users)
        return TopK(self.order[:k].expand(users, -1), self.scores[:k].expand(users, -1))


class Shallow(ByCode):
    """Finds the first four items and no others; gives up where more than six are asked for."""

    def search(self, encoder: nn.Module, batch: Batch, k: int) -> TopK:
        if k > 6:
            raise ValueError("too many")
        found, beyond = super().search(encoder, batch, k), torch.arange(k) >= 4
        return TopK(found.items.masked_fill(beyond, 0), found.scores.masked_fill(beyond, -torch.inf))


class OwnPlugins:
    @hookimpl
    def register_metrics(self, register: Any) -> None:
        register("mean_rank", MeanRank)

    @hookimpl
    def register_encoders(self, register: Any) -> None:
        register("counting", Counting)

    @hookimpl
    def register_losses(self, register: Any) -> None:
        register("one_step", OneStep)

    @hookimpl
    def register_retrievers(self, register: Any) -> None:
        register("by_code", ByCode)
        register("shallow", Shallow)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only get into each other's way in so small a world."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The installed plug-ins and the metric above."""
    registry = Registry.load()
    registry.add("own", "own", "1", OwnPlugins)
    return registry


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twelve users who walk round a circle of six items, so that the next item is always known."""
    walks = [[((user + step) % 6 + 1, 1, 100 + step) for step in range(5)] for user in range(12)]
    return tiny_store(tmp_path_factory.mktemp("store"), walks)


def a_cell(*, seed: int = 0, trained: bool = True, **training: Any) -> Cell:
    learning = {"epochs": 2, "batch_size": 4, "workers": 0} | training
    transformer = Component("causal_transformer", {"width": 8, "dropout": 0.0})
    losses, adam = ((Component("full_softmax", {}), 1.0),), Component("adam", {"lr": 0.01})
    stage = Stage("", None, losses, Component("supervised", {}), adam, learning)
    method = Method(
        name="m",
        tokenizer=Component("ids", {}),
        encoder=transformer if trained else Component("most_popular", {}),
        retriever=Component("exact", {}),
        stages=(stage,) if trained else (),
        filters=(),
        trackers=(),
    )
    metrics = (Component("hit_rate", {"k": 2}), Component("mean_rank", {"k": 2}))
    return Cell("tiny", Component("tiny", {}), Component("leave_last_out", {}), metrics, method, seed)


def run(cell: Cell, store: Store, registry: Registry) -> tuple[Record, Any, Heard]:
    heard = Heard()
    report = Reporter(ChildMessages(heard), [heard])  # type: ignore[arg-type]
    record, lists = run_cell(cell, BLANK, store, registry=registry, device="cpu", report=report)
    return record, lists, heard


def test_a_trained_cell_fills_its_record_in(store: Store, registry: Registry) -> None:
    record, lists, heard = run(a_cell(), store, registry)
    assert record.status == "ok"
    assert set(record.scores) == {"hit_rate@2", "mean_rank"}
    assert record.counts["evaluated"] == record.counts["training_users"] == lists.num_rows == 12
    assert record.counts["training_events"] == 12 * 3
    assert record.counts["ties"] == {"events": 0, "users": 0, "latest": 0, "broken_by": "file_order"}
    assert record.counts["parameters"] > 6 * 8
    assert record.counts["epochs_run"] == 2
    assert record.counts["steps_run"] == 2 * 3
    assert [row["epoch"] for row in record.curve] == [1, 2]
    assert list(record.cost["phases"]) == ["prepare", "fit_tokenizer", "train", "index", "search"]
    assert record.cost["train_seconds"] == record.cost["phases"]["train"]["seconds"]
    assert record.cost["peak_process_bytes"] > 2**20
    assert record.pool is not None
    assert record.pool["size"] == 6
    # the two files agree with each other
    assert record.scores["hit_rate@2"] == np.mean([row > 0 for (row,) in lists["ranks"].to_pylist()])
    # and the record is JSON as it stands
    assert Record.from_json(record.to_json(), "it").scores == record.scores
    phases = [event["name"] for event in heard.events if event["event"] == "phase"]
    assert phases == ["prepare", "fit tokenizer", "train", "search"]
    # at least the end of each epoch is logged; what comes in between depends on the clock
    logged = dict(heard.logged)
    assert {3, 6} <= set(logged)
    assert logged[3]["loss"] == pytest.approx(record.curve[0]["loss"])


def test_a_peak_that_is_known_is_not_measured_again(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    monkeypatch.setattr("grbench.run.run_cell.device_peak", lambda *device: measured.append(device) or (2.0, "a watch"))
    cell, heard = a_cell(epochs=10), Heard()  # long enough for a step that is not timed
    report = Reporter(ChildMessages(heard), [])  # type: ignore[arg-type]
    first, _ = run_cell(cell, BLANK, store, registry=registry, device="cpu", report=report)
    (event,) = [event for event in heard.events if event["event"] == "peak"]
    assert (event["precision"], event["tflops_per_second"], event["source"]) == ("fp32", 2.0, "a watch")
    peaks = {"fp32": (2.0, "a watch")}
    again, _ = run_cell(cell, BLANK, store, registry=registry, device="cpu", report=report, peaks=peaks)
    assert measured == [("cpu", "fp32")]
    assert first.cost["peak"] == again.cost["peak"] == "a watch"


def test_items_that_share_their_code_are_counted(store: Store, registry: Registry, tmp_path: Path) -> None:
    codes = {str(item): [place // 2, place % 4 // 3] for place, item in enumerate(store.catalogue.item_ids[1:])}
    (tmp_path / "codes.json").write_text(json.dumps(codes))  # 00 00 10 11 20 20
    given = Component("codes_file", {"path": str(tmp_path / "codes.json")})
    cell = a_cell(trained=False)
    record, _, _ = run(replace(cell, method=replace(cell.method, tokenizer=given)), store, registry)
    assert record.counts["collisions"] == record.tokenizer["colliding_items"] == 4


def test_codes_that_are_learnt_are_those_of_each_validation_and_of_the_state_that_is_kept(
    store: Store, registry: Registry
) -> None:
    cell = a_cell(epochs=3, validate_every=1, select="hit_rate@2")
    learns = replace(
        cell.method,
        encoder=Component("counting", {}),
        retriever=Component("by_code", {}),
        stages=(replace(cell.method.stages[0], losses=((Component("one_step", {}), 1.0),)),),
    )
    ByCode.indexed.clear()
    record, lists, _ = run(replace(cell, method=learns), store, registry)
    # Three steps an epoch, six items: item 1 has code (1 + 3) % 6 after the first epoch, then (1 + 6) % 6, (1 + 9) % 6.
    # Every item is as often a target as any other, so the epochs tie, and the first of them is kept.
    assert record.counts["best_epoch"] == 1
    assert ByCode.indexed == [4, 1, 4, 4]
    assert record.tokenizer == {"steps": 3}
    best = [store.catalogue.item_ids[item] for item in (2, 1)]  # codes 5 and 4
    assert lists["items"].to_pylist() == [best] * 12


def test_longer_lists_are_as_long_as_the_retriever_makes_them_and_fail_without_the_cell(
    registry: Registry, tmp_path: Path
) -> None:
    walks = [[((user + step) % 8 + 1, 1, 100 + step) for step in range(4)] for user in range(8)]
    store, cell = tiny_store(tmp_path, walks), a_cell(trained=False)
    cell = replace(cell, method=replace(cell.method, retriever=Component("shallow", {})))
    without, lists, _ = run(cell, store, registry)
    assert without.lists == {"scored": 2, "shortest": 2, "kept": None}
    shorter, table, _ = run(replace(cell, keep_lists=5), store, registry)  # a sixth item is searched for, to see ties
    assert shorter.lists == {"scored": 2, "shortest": 2, "kept": 5, "kept_shortest": 4}
    assert {len(row) for row in table["kept_items"].to_pylist()} == {4}
    given_up, table, _ = run(replace(cell, keep_lists=6), store, registry)
    assert given_up.lists == {"scored": 2, "shortest": 2, "kept": None, "error": "ValueError: too many"}
    assert given_up.status == "ok"
    assert table.equals(lists)
    assert without.scores == shorter.scores == given_up.scores
    assert shorter.cost["search_p99_ms"] == shorter.cost["phases"]["search"]["p99_ms"]


def test_the_seed_decides_the_numbers(store: Store, registry: Registry) -> None:
    first, lists, _ = run(a_cell(seed=1), store, registry)
    torch.manual_seed(99)
    again, same, _ = run(a_cell(seed=1), store, registry)
    other, _, _ = run(a_cell(seed=2), store, registry)
    assert lists.equals(same)
    assert [row["loss"] for row in first.curve] == [row["loss"] for row in again.curve]
    assert [row["loss"] for row in first.curve] != [row["loss"] for row in other.curve]


def test_it_learns_the_circle(store: Store, registry: Registry) -> None:
    record, _, _ = run(a_cell(epochs=40), store, registry)
    floor, _, _ = run(a_cell(trained=False), store, registry)
    assert record.scores["hit_rate@2"] == 1.0
    assert floor.scores["hit_rate@2"] < 1.0
    assert floor.cost["train_seconds"] is None
    assert floor.curve == []


@pytest.mark.parametrize("select", ["hit_rate@2", "mean_rank"])
def test_training_keeps_the_best_state_whichever_way_is_better(store: Store, registry: Registry, select: str) -> None:
    record, _, heard = run(a_cell(epochs=4, validate_every=1, select=select), store, registry)
    validated = [row[select] for row in record.curve]
    best = np.argmin(validated) if select == "mean_rank" else np.argmax(validated)
    assert record.counts["best_epoch"] == 1 + int(best)
    if select == "mean_rank":
        assert min(validated) >= 1  # as the metric gives it, whichever way is better
    assert "validate" in record.cost["phases"]
    assert record.counts["validation_users"] == record.counts["validated_users"] == 12
    # trackers have one axis, the step: three an epoch
    assert [step for step, values in heard.logged if select in values] == [3, 6, 9, 12]
    steps = [step for step, _ in heard.logged]
    assert steps == sorted(steps)


def test_validation_of_a_sample_scores_the_same_users_whatever_the_seed(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated = []
    rank = Ranker.rank

    def seen(ranker: Ranker, queries: Queries) -> Ranking:
        validated.append(queries.users.tolist())
        return rank(ranker, queries)

    monkeypatch.setattr(Ranker, "rank", seen)
    for seed, sample in ((0, 5), (1, 5), (0, 99)):
        told = {"epochs": 2, "validate_every": 1, "select": "hit_rate@2", "validation_users": sample}
        record, _, _ = run(a_cell(seed=seed, **told), store, registry)
        assert record.counts["validation_users"] == 12
        assert record.counts["validated_users"] == min(sample, 12)
    sampled, twelve = validated[0], list(range(12))
    assert len(sampled) == 5
    # two validations and the test of each cell
    assert validated == [sampled, sampled, twelve, sampled, sampled, twelve, twelve, twelve, twelve]


def test_trackers_hear_the_losses_of_the_steps_that_they_ask_for(store: Store, registry: Registry) -> None:
    cell = a_cell(epochs=2, batch_size=4, validate_every=1, select="hit_rate@2")  # three steps an epoch
    (stage,) = cell.method.stages
    stages = (replace(stage, name="one"), replace(stage, name="two"))
    each, second, third, means = Heard(1), Heard(2), Heard(3), Heard()
    trackers: list[Any] = [each, second, third, means]
    report = Reporter(ChildMessages(each), trackers)  # type: ignore[arg-type]
    assert report.log_every == {1, 2, 3}
    staged = replace(cell, method=replace(cell.method, stages=stages))
    record, _ = run_cell(staged, BLANK, store, registry=registry, device="cpu", report=report)

    def losses(heard: Heard) -> dict[int, float]:
        return {step: values["loss"] for step, values in heard.logged if "loss" in values}

    every = losses(each)
    assert list(every) == list(range(1, 13))  # on through epochs and stages
    assert losses(second) == {step: every[step] for step in (2, 4, 6, 8, 10, 12)}
    assert losses(third) == {step: every[step] for step in (3, 6, 9, 12)}
    epochs = [np.mean([every[3 * epoch + step] for step in (1, 2, 3)]) for epoch in range(4)]
    assert [row["loss"] for row in record.curve] == pytest.approx(epochs)
    assert [losses(means)[step] for step in (3, 6, 9, 12)] == pytest.approx(epochs)
    for heard in (each, second, third, means):
        validated = {step: values for step, values in heard.logged if "hit_rate@2" in values}
        assert list(validated) == [3, 6, 9, 12]
        for row, values in zip(record.curve, validated.values(), strict=True):  # also what does not select
            assert {name: values[name] for name in record.scores} == {name: row[name] for name in record.scores}
        assert [values["epoch"] for values in validated.values()] == [1, 2, 3, 4]
    assert "step" not in {event["event"] for event in each.events}


def test_validation_does_not_lengthen_its_lists_for_another_metric(store: Store, registry: Registry) -> None:
    cell = a_cell(epochs=1, validate_every=1, select="hit_rate@2")
    longer = (*cell.metrics, Component("ndcg", {"k": 1}), Component("ndcg", {"k": 3}))
    record, _, _ = run(replace(cell, metrics=longer), store, registry)
    assert {"hit_rate@2", "mean_rank", "ndcg@1"} <= record.curve[0].keys()
    assert "ndcg@3" not in record.curve[0]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"])
def test_an_interval_that_is_none_is_named_with_its_tracker(every: Any) -> None:
    with pytest.raises(PluginError, match="tracker Heard: every_steps should be a whole number from 1, or None; got"):
        Reporter(ChildMessages(Heard()), [Heard(every)])  # type: ignore[arg-type]


def test_an_encoder_that_cannot_learn_is_told_from_one_that_can(store: Store, registry: Registry) -> None:
    cell = a_cell()
    stage = replace(cell.method.stages[0], losses=((Component("infonce", {}), 1.0),))
    popular = replace(cell.method, encoder=Component("most_popular", {}), stages=(stage,))
    with pytest.raises(SuiteError, match="encoder most_popular has nothing to learn; leave out its loss"):
        run(replace(cell, method=popular), store, registry)


def test_an_event_of_a_child_is_one_line() -> None:
    heard = Heard()
    ChildMessages(heard)("train", loss=np.float32(0.5), what="two\nlines")  # type: ignore[arg-type]
    assert heard.lines == ['{"event": "train", "loss": 0.5, "what": "two\\nlines"}\n']
