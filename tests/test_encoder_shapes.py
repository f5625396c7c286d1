"""What an encoder gives in a wrong shape is told before it is trained, with what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from heard import Heard

from grbench.data.store import Store
from grbench.encoder_shapes import check_shapes, wrong_shape
from grbench.errors import PluginError
from grbench.hookspecs import hookimpl
from grbench.interfaces import Decoder, Embedder
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.run.backends.child_process import ChildMessages
from grbench.run.reporter import Reporter
from grbench.run.run_cell import run_cell
from grbench.suite.method import Method, Stage
from grbench.suite.suite import Cell
from grbench.testing import tiny_store
from grbench.testing.checks.check_world import check_world
from grbench.testing.checks.plain_parts import PlainEncoder, PlainTokenizer


class NewestState(PlainEncoder):
    def embed(self, batch: Any, items: Any) -> Any:
        return self.states(batch)[:, -1], self.embed_items(items)


class EveryState(PlainEncoder):
    def embed_histories(self, batch: Any) -> Any:
        return self.states(batch)


class WiderStates(PlainEncoder):
    def embed(self, batch: Any, items: Any) -> Any:
        return self.states(batch), self.embed_items(items)[:, 1:]


class StatesAlone(PlainEncoder):
    def embed(self, batch: Any, items: Any) -> Any:
        return self.states(batch)


class TokenWithoutState(PlainEncoder):
    def predicts_first_event(self) -> bool:
        return True


class Whole(PlainEncoder):
    def embed_items(self, items: Any) -> Any:
        return super().embed_items(items).long()


class OneLevel(PlainEncoder):
    def code_logits(self, batch: Any) -> Any:
        return super().code_logits(batch)[:1]


class WrongStart(PlainEncoder):
    def start(self, batch: Any) -> Any:
        logits, state = super().start(batch)
        return logits[:, 1:], state


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (NewestState, "embed gave the states in the shape (8, 8), not (8, 12, 8): [B, T, D], one state an event"),
        (EveryState, "embed_histories gave its states in the shape (8, 12, 8), not (8, 8): [B, D], one state a user"),
        (WiderStates, "embed gave the states in the shape (8, 12, 8), not (8, 12, 7)"),
        (StatesAlone, "embed gave a Tensor, not two tensors: the states [B, T, D] and the items' vectors [N, D]"),
        (TokenWithoutState, "not (8, 13, 8): [B, T, D], the state of the user's token, then one an event"),
        (Whole, "embed gave the items' vectors as torch.int64, no floating point type"),
        (OneLevel, "code_logits gave 1 levels, not 2"),
        (WrongStart, "start gave the logits of level 1 in the shape (8, 6), not (8, 7): [R, K], one row a beam"),
        (PlainEncoder, None),
    ],
)
def test_what_is_wrong_is_said_in_shapes(encoder: type[PlainEncoder], said: str | None) -> None:
    data = check_world().training_data()
    codes = PlainTokenizer().fit(data)
    found = wrong_shape(encoder(data, codes), check_world().batch(12), torch.arange(1, 8), codes)
    assert found is None if said is None else said in str(found)


class Needs:
    """Of the encoder."""

    needs: tuple[type, ...] = (Embedder,)


class NeedsCodes(Needs):
    needs = (Decoder,)


def test_only_what_is_called_of_the_encoder_is_checked_and_its_mode_stays() -> None:
    data = check_world().training_data()
    codes = PlainTokenizer().fit(data)
    encoder = OneLevel(data, codes).train()
    check_shapes("mine", encoder, data, codes, callers=[Needs()], device="cpu")
    assert all(module.training for module in encoder.modules())
    with pytest.raises(PluginError, match=r"encoder mine: code_logits .*`grbench check encoder:mine` tries all"):
        check_shapes("mine", encoder, data, codes, callers=[Needs(), NeedsCodes()], device="cpu")


class Package:
    @hookimpl
    def register_encoders(self, register: Any) -> None:
        register("newest_state", NewestState)


@pytest.mark.parametrize("trained", [True, False])
def test_a_cell_ends_before_it_is_trained(trained: bool, tmp_path: Path) -> None:
    registry = Registry.load()
    registry.add("own", "own", "1", Package)
    store: Store = tiny_store(tmp_path, [[(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4)]] * 3)
    options = {"epochs": 1, "batch_size": 4, "workers": 0}
    adam, supervised = Component("adam", {}), Component("supervised", {})
    stage = Stage("", None, ((Component("full_softmax", {}), 1.0),), supervised, adam, options)
    parts = Component("ids", {}), Component("newest_state", {}), Component("exact", {})
    method = Method("m", *parts, (stage,) if trained else (), (), ())
    metrics = (Component("hit_rate", {"k": 2}),)
    cell = Cell("tiny", Component("tiny", {}), Component("leave_last_out", {}), metrics, method, 0)
    blank, heard = Record(digest="d", suite="tiny", method="m", seed=0, status="error"), Heard()
    with pytest.raises(PluginError, match=r"encoder newest_state: embed gave the states in the shape \(3, 8\), not"):
        run_cell(cell, blank, store, registry=registry, device="cpu", report=Reporter(ChildMessages(heard), [heard]))
    assert not [event for event in heard.events if event["event"] == "train"]
