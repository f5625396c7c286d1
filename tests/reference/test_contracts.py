"""What holds of every registered reference plug-in of a kind, whatever it is: a new one is tested by being registered.

Options are the defaults; `OPTIONS` says others where a world of nine items needs them.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from code_worlds import BATCH, ITEMS, codes_of, world
from torch.overrides import TorchFunctionMode
from worlds import after_events, batch_of

from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Decoder, Embedder, Encoder, optional
from grbench.registry.component import Component
from grbench.registry.discovery import Registry, interface_class, missing_interfaces
from grbench.registry.options import describe
from grbench.types import Batch, Ranking

REGISTRY = Registry.load()
OPTIONS = {
    ("tokenizers", "rq_kmeans"): {"source": "cooccurrence", "width": 3, "sizes": [3, 4]},
    ("encoders", "causal_transformer"): {"heads": 2},
    ("encoders", "sid_decoder"): {"width": 8},
    ("retrievers", "faiss"): {"index": "Flat"},
    ("retrievers", "beam"): {"width": 9},
    ("retrievers", "beam_rerank"): {"width": 9},
}
OLDER, NEWER = [4, 2, 3], [4, 2, 3, 8]


def names(kind, interface=None):
    """The reference plug-ins of a kind; of encoders, those that show an interface."""
    ours = [plugin for plugin in REGISTRY.plugins(kind) if plugin.distribution == "grbench"]
    return [plugin.name for plugin in ours if interface is None or not missing_interfaces((interface,), plugin.factory)]


def made(kind, name, *runtime_objects, **options):
    torch.manual_seed(0)
    chosen = {**OPTIONS.get((kind, name), {}), **options}
    return REGISTRY.build(kind, Component(name, chosen), *runtime_objects)


def able(needs):
    """An encoder that shows all these interfaces."""
    return next(
        plugin.name
        for plugin in REGISTRY.plugins("encoders")
        if plugin.name != "most_popular" and not missing_interfaces(needs, plugin.factory)
    )


def needs_of(kind, name):
    return interface_class(REGISTRY.get(kind, name).factory).needs


@pytest.fixture
def data(tmp_path):
    return world(tmp_path)


def changed(batch, **columns):
    return dataclasses.replace(batch, **{name: torch.tensor(column) for name, column in columns.items()})


# --- tokenizers


@pytest.mark.parametrize("name", names("tokenizers"))
def test_every_item_has_a_code_within_the_sizes(data, tmp_path, name):
    options = {}
    if name == "codes_file":
        path = tmp_path / "codes.json"
        path.write_text(
            json.dumps({str(item): [place % 2, place % 3] for place, item in enumerate(data.catalogue.item_ids[1:])})
        )
        options["path"] = str(path)
    tokenizer = made("tokenizers", name, **options)
    codes, again = tokenizer.fit(data), made("tokenizers", name, **options).fit(data)
    assert codes.table.dtype == torch.int64
    assert codes.table.shape == (10, len(codes.sizes))
    assert (codes.table[0] == 0).all()
    assert (codes.table >= 0).all()
    assert (codes.table < torch.tensor(codes.sizes)).all()
    assert torch.equal(codes.table, again.table)
    json.dumps(codes.report, allow_nan=False)
    assert tokenizer.stand_in(data) is not None  # so that memory is forecast before it is fitted
    assert tokenizer.stand_in(data).table.shape == codes.table.shape


# --- encoders


@pytest.mark.parametrize("name", names("encoders", Embedder))
def test_states_follow_from_what_came_before_and_nothing_else(data, name):
    encoder = made("encoders", name, data, codes_of(data)).eval()
    batch = batch_of(NEWER, [5, 6], [7], users=[0, 1, 2])
    first = optional(encoder, Encoder.predicts_first_event)()
    rounding = {"atol": 0.01, "rtol": 0}  # HSTU norms the user token's one value times a score near zero
    states, vectors = encoder.embed(batch, ITEMS)
    assert states.shape == (3, 4 + first, vectors.shape[1])
    before, states = states[:, 0], after_events(states, batch)
    assert vectors.shape[0] == 9
    assert states.isfinite().all()
    assert vectors.isfinite().all()

    def same(other, rows=slice(None), places=slice(None)):
        found = encoder.embed(other, ITEMS)[0]
        torch.testing.assert_close(after_events(found, other)[rows, places], states[rows, places])
        if first:  # the user's token knows no event
            torch.testing.assert_close(found[:, 0], before, **rounding)

    # One call and the two interfaces agree.
    torch.testing.assert_close(encoder.embed_histories(batch), states[:, -1])
    torch.testing.assert_close(encoder.embed_items(ITEMS), vectors)
    # Not the items to come, nor what is to be found.
    later = changed(
        batch, items=[[4, 2, 3, 1], [0, 0, 5, 7], [0, 0, 0, 7]], actions=[[2, 2, 2, 3], [0, 0, 2, 3], [0, 0, 0, 2]]
    )
    same(later, 0, slice(3))
    same(later, 1, slice(2, 3))
    same(dataclasses.replace(batch, targets=batch.targets * 0 + 1))
    # Not other rows, nor how much padding there is.
    for other, row, places in (
        (batch_of([5, 6], users=[1]), 1, slice(2, 4)),
        (batch_of(OLDER, users=[0], length=6), 0, slice(0, 3)),
    ):
        found = encoder.embed(other, ITEMS)[0]
        torch.testing.assert_close(after_events(found, other)[0][other.items[0] > 0], states[row, places])
        if first:
            torch.testing.assert_close(found[0, 0], before[row], **rounding)
    if first:  # it is what a user without events is searched by
        nobody = batch_of([], [], [], users=[0, 1, 2], length=4)
        torch.testing.assert_close(encoder.embed_histories(nobody), before, **rounding)


@pytest.mark.parametrize("name", names("encoders", Decoder))
def test_writing_code_by_code_equals_being_taught_the_whole(data, name):
    codes = codes_of(data)
    encoder = made("encoders", name, data, codes).eval()
    written = torch.tensor([5, 3, 9, 1])

    def same(batch, taught):
        logits, state = encoder.start(batch)
        torch.testing.assert_close(logits, taught[0])
        for level in range(1, len(codes.sizes)):
            logits, state = encoder.step(codes.table[written[: len(logits)], level - 1], state)
            torch.testing.assert_close(logits, taught[level])

    targets = torch.zeros_like(BATCH.targets)
    targets[:, -1] = written
    same(BATCH, encoder.code_logits(dataclasses.replace(BATCH, targets=targets)))
    if optional(encoder, Encoder.predicts_first_event)():  # with no event behind, and with the rest of the history
        nobody = batch_of([], [], [], users=[0, 1, 2], length=4)
        same(nobody, encoder.code_logits(dataclasses.replace(nobody, user_targets=written[:3])))
        whole = batch_of([5, 2, 1], [3], [9, 4], users=[0, 1, 2], length=4, targets=[[], [], []])
        same(nobody, encoder.code_logits(dataclasses.replace(whole, user_targets=written[:3])))


@pytest.mark.parametrize("optimizer", [*names("optimizers"), "fused adamw"])
@pytest.mark.parametrize("name", names("encoders"))
def test_nothing_is_kept_of_weights_that_a_step_has_changed(data, name, optimizer):
    """After a validation, a training step and another validation, an encoder gives what a new one with its weights
    gives."""
    codes = codes_of(data)
    encoder, fresh = (made("encoders", name, data, codes) for _ in range(2))
    if not [*encoder.parameters()]:
        pytest.skip("has no weights")

    def outputs(model):
        with evaluating(model):
            vectors = [model.embed_histories(BATCH), model.embed_items(ITEMS)] if hasattr(model, "embed") else []
            return vectors + ([*model.code_logits(BATCH)] if hasattr(model, "code_logits") else [])

    if optimizer == "fused adamw":
        optimizers = [torch.optim.AdamW(encoder.parameters(), lr=0.1, fused=True)]
    else:
        optimizers = made("optimizers", optimizer, encoder)
    loss = made("losses", "full_softmax" if hasattr(encoder, "embed") else "next_code", data, codes)
    before = outputs(encoder)
    sum(loss(encoder.train(), BATCH).values()).backward()
    for each in optimizers:
        each.step()
    fresh.load_state_dict(encoder.state_dict())
    after, expected = outputs(encoder), outputs(fresh)
    torch.testing.assert_close(after, expected, rtol=0, atol=0)
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    with torch.no_grad():  # nor after the validation's end, without another one
        for parameter in encoder.parameters():
            parameter.data.mul_(1.5)
    fresh.load_state_dict(encoder.state_dict())
    encoder.eval(), fresh.eval()
    if hasattr(encoder, "embed"):
        torch.testing.assert_close(encoder.embed_items(ITEMS), fresh.embed_items(ITEMS), rtol=0, atol=0)
        torch.testing.assert_close(encoder.embed_histories(BATCH), fresh.embed_histories(BATCH), rtol=0, atol=0)


class AsOnGpu(TorchFunctionMode):
    """Refuses what a GPU refuses and a CPU mends by itself under autocast: writing rows of one type into another."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "").startswith(("index_copy", "index_add", "scatter")):
            kinds = {each.dtype for each in args if isinstance(each, torch.Tensor) and each.is_floating_point()}
            assert len(kinds) <= 1, f"{func.__name__} of {kinds}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [name for name in names("encoders", Embedder) if name != "most_popular"])
@pytest.mark.parametrize("conditioning", ["none", "additive", "gate", "film", "attention_bias"])
def test_half_precision(data, name, conditioning):
    options = {"action_conditioning": conditioning}
    if "action_conditioning" not in {option.name for option in describe(REGISTRY.get("encoders", name).factory)}:
        options = {}
    encoder = made("encoders", name, data, codes_of(data), **options)
    whole = encoder.eval().embed(BATCH, ITEMS)
    with torch.autocast("cpu", torch.bfloat16), AsOnGpu():
        half = encoder.embed(BATCH, ITEMS)
        # Without the user's token: HSTU weighs its value by the SiLU of one score alone and norms it, so that near zero
        # the sign is all that is left of the score.
        states = (after_events(each[0], BATCH) for each in (half, whole))
        for one, other in (states, (half[1], whole[1])):
            assert (one - other).norm() < 0.05 * other.norm()
        (encoder.train().embed(BATCH, ITEMS)[0].float().sum() + sum(p.sum() for p in encoder.parameters())).backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


# --- losses


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", names("losses"))
def test_a_loss_is_finite_scalars_that_teach_the_encoder(data, name, half):
    codes = codes_of(data)
    encoder = made("encoders", able(needs_of("losses", name)), data, codes)
    loss = made("losses", name, data, codes)
    with torch.autocast("cpu", torch.bfloat16, enabled=half), AsOnGpu():
        terms = loss(encoder, BATCH)
    assert terms
    assert all(term.shape == () and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    nothing = Batch(*(getattr(BATCH, field.name) * (field.name == "users") for field in dataclasses.fields(Batch)))
    assert sum(loss(encoder, nothing).values()).item() == 0  # the rows that fill an epoch's last batch


# --- retrievers


@pytest.mark.parametrize("name", names("retrievers"))
def test_lists_are_rankings_of_the_pool(data, name):
    codes = codes_of(data)
    encoder = made("encoders", able((*needs_of("retrievers", name), Embedder)), data, codes).eval()
    retriever, candidates = (
        made("retrievers", name, **({"width": 7} if name.startswith("beam") else {})),
        ITEMS[[0, 1, 3, 4, 6, 7, 8]],
    )
    retriever.index(encoder, candidates, codes)
    found = retriever.search(encoder, BATCH, 8)  # one more than there are
    assert (found.items.dtype, found.scores.dtype) == (torch.int64, torch.float32)
    assert [sorted(row) for row in found.items.tolist()] == [[0, *candidates.tolist()]] * 4
    assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()
    assert torch.equal(found.scores.isneginf(), found.items == 0)
    fewer = retriever.search(encoder, BATCH, 3)
    assert torch.equal(fewer.items, found.items[:, :3])
    if Decoder not in needs_of("retrievers", name) or Embedder in needs_of("retrievers", name):
        exact = made("retrievers", "exact")
        exact.index(encoder, candidates, codes)
        torch.testing.assert_close(found.scores, exact.search(encoder, BATCH, 8).scores)


# --- optimizers


@pytest.mark.parametrize("name", names("optimizers"))
@pytest.mark.parametrize("sparse", [False, True])
def test_every_parameter_has_one_optimizer_and_moves(data, name, sparse):
    codes = codes_of(data)
    encoder = made("encoders", "causal_transformer", data, codes, sparse=sparse)
    optimizers = made("optimizers", name, encoder)
    owned = [each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]]
    assert len(owned) == len({*owned})
    assert {*owned} == {*encoder.parameters()}
    before = {parameter: parameter.detach().clone() for parameter in owned}
    sum(made("losses", "full_softmax", data, codes)(encoder, BATCH).values()).backward()
    for optimizer in optimizers:
        optimizer.step()
    for parameter in owned:
        assert torch.equal(parameter, before[parameter]) == (
            parameter.grad is None or not parameter.grad.to_dense().any()
        )


# --- metrics


@pytest.mark.parametrize("name", names("metrics"))
def test_a_metric_gives_each_query_a_value_from_the_worst_up(data, name):
    metric = made("metrics", name, k=2)
    first, second, none = [1, 2], [2, 1], [2, 3]
    targets = np.array([[1]] * 3)
    ranks = np.array([[1], [2], [0]])
    lists = np.array([first, second, none])
    scores = np.array([[2.0, 1.0]] * 3, np.float32)
    users, lengths = np.arange(3), np.array([1, 2, 3])
    actions = ("exposure", "click")
    ranking = Ranking(users, lists, scores, targets, targets * 0 + 3, ranks, actions, 5, lengths, data)
    values = metric(ranking)
    assert values.shape == (3,)
    assert np.isfinite(values).all()
    assert metric.name.endswith("@2")
    assert isinstance(metric.higher_is_better, bool)
    assert values.mean() >= 0
