"""Item and event features within the encoders that offer them: learnt from, read at test, blind to the future."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from grbench.data.batches import query_batches, training_batches
from grbench.data.examples import newest_events
from grbench.errors import SuiteError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.registry.options import describe
from grbench.testing import tiny_store
from grbench.types import Codes
from grbench_reference.features.event_context import EventContextOptions, event_context
from grbench_reference.features.parts import EmbeddingTable
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.tokenizers.ids import Ids

DAY = 86_400
START = 20_000 * DAY
TIMES = ["hour", "weekday", "day", "gap", "request", "session", "cross_day", "fourier"]
EVENTS = {"time_features": TIMES, "popularity_windows": [1, 7, 30], "context_dropout": 0.5}
ALL = {**EVENTS, "hashed_ids": [2, 3], "hashed_width": 3, "user_id": True, "id_dropout": 0.2}
ENCODERS = {
    "causal_transformer": ({"semantic_ids": True, "sparse": True}, "infonce"),
    "hstu": ({"semantic_ids": True}, "infonce"),
    "gnn": ({"semantic_ids": True}, "infonce"),
    "sid_decoder": ({}, "next_code"),
    "sid_decoder of codes": ({"history": "codes", "sparse": True}, "next_code"),
}
SMALL = {"width": 8, "heads": 2, "blocks": 1, "history_length": 5}
CODES = Codes(torch.tensor([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]), (3, 2))


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Twenty users, an event each six hours, six items; the last of each is the test, the one before validates."""
    histories = [
        [(1 + (user + place) % 6, place % 2, START + (user + place) * DAY // 4) for place in range(4 + user % 4)]
        for user in range(20)
    ]
    store = tiny_store(tmp_path_factory.mktemp("store"), histories, item_features={"color": [0, 1, 0, 1, None, 2]})
    return LeaveLastOut().split(store)


def build(registry, name, split, options, codes=CODES):
    torch.manual_seed(0)
    own, loss = ENCODERS[name]
    encoder = registry.build(
        "encoders", Component(name.split()[0], {**SMALL, **own, **options}), split.training, codes, where="encoder"
    )
    return encoder, registry.build("losses", loss, split.training, codes)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_step_teaches_every_feature(name, registry, split):
    encoder, loss = build(registry, name, split, ALL)
    examples = newest_events(split.training, seed=0, epoch=1)
    batches = training_batches(split.training, examples, history_length=5, batch_size=20, workers=0)
    sum(loss(encoder.train(), next(batches)).values()).backward()
    features = {"buckets.table", "waves", "no_waves", "tables.0", "tables.1", "users.parts.0"}
    if "semantic_ids" in ENCODERS[name][0]:
        features.add("parts.1.table")
    for feature in features:
        taught = [parameter for key, parameter in encoder.named_parameters() if feature in key]
        assert taught
        assert all(each.grad is not None and each.grad.to_dense().abs().sum() > 0 for each in taught), feature
    assert all(torch.isfinite(each.grad.to_dense()).all() for each in encoder.parameters() if each.grad is not None)


@pytest.mark.parametrize("name", ENCODERS)
def test_evaluation_reads_the_times_of_its_histories(name, registry, split):
    encoder, _ = build(registry, name, split, ALL)
    encoder.eval()
    for _, batch in query_batches(split.test, history_length=5, batch_size=7):
        said = encoder.embed_histories(batch)
        assert torch.isfinite(said).all()
        assert torch.equal(said, encoder.embed_histories(batch))
        later = dataclasses.replace(batch, times=torch.where(batch.times > 0, batch.times + 5 * DAY, 0))
        assert not torch.allclose(said, encoder.embed_histories(later))


@pytest.mark.parametrize("name", ENCODERS)
def test_no_state_depends_on_a_later_events_time(name, registry, split):
    encoder, _ = build(registry, name, split, EVENTS)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    for module in encoder.modules():
        if isinstance(module, EmbeddingTable):
            module.weight.data[0] = 0
    encoder.eval()
    _, batch = next(query_batches(split.test, history_length=5, batch_size=7))
    moved = batch.times.clone()
    moved[:, 3:] += DAY // 3
    one, other = (
        encoder.embed(dataclasses.replace(batch, times=times), torch.tensor([1]))[0] for times in (batch.times, moved)
    )
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])


@pytest.mark.parametrize("name", ENCODERS)
def test_wrong_options_are_one_message(name, registry, split, tmp_path):
    with pytest.raises(SuiteError, match=r"encoder.time_features.*hours"):
        build(registry, name, split, {"time_features": ["hours"]})
    with pytest.raises(SuiteError, match=r"encoder.popularity_windows"):
        build(registry, name, split, {"popularity_windows": [0]})
    store = tiny_store(tmp_path, [[(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)]], num_items=6, has_times=False)
    timeless = LeaveLastOut().split(store)
    for option in ("time_features", "popularity_windows"):
        with pytest.raises(SuiteError, match=rf"encoder.{option}: this dataset has no times"):
            build(registry, name, timeless, {option: EVENTS[option]})


def test_what_needs_the_first_token_or_shared_codes_says_so(registry, split):
    with pytest.raises(SuiteError, match=r"encoder.user_id: needs user_token true"):
        build(registry, "causal_transformer", split, {"user_id": True, "user_token": False})
    with pytest.raises(SuiteError, match=r"encoder.semantic_ids: .*rq_kmeans"):
        build(registry, "causal_transformer", split, {}, codes=Ids().fit(split.training))
    with pytest.raises(SuiteError, match=r"encoder: an item needs at least one of id_width above 0, hashed_ids"):
        build(registry, "hstu", split, {"semantic_ids": False, "id_width": 0, "item_features": False})


def test_options_are_documented_alike(registry):
    rows = {}
    for name in ("causal_transformer", "hstu", "gnn", "sid_decoder"):
        options = {option.name: option for option in describe(registry.get("encoders", name).factory)}
        rows[name] = [options[option] for option in ALL]
        if name != "sid_decoder":  # whose items are their codes
            assert options["semantic_ids"].doc
    one, *others = rows.values()
    assert all(other == one for other in others)
    assert all(option.doc for option in one)


def test_defaults_are_each_encoder_s_own(registry):
    chosen = ("width", "history_length", "item_features", "embeddings", "id_width", "user_features", "similarity")
    defaults = {
        name: [option.default for option in describe(registry.get("encoders", name).factory) if option.name in chosen]
        for name in ("causal_transformer", "hstu", "sid_decoder")
    }
    assert defaults == {
        "causal_transformer": ["32", "100", "true", '"all"', "true", "null", '"dot"'],
        "hstu": ["64", "100", "true", '"all"', "true", "null", '"dot"'],
        "sid_decoder": ["64", "100", "true", "false", '"none"', "0", '"dot"'],
    }
    transformer, gnn = (
        {option.name: option for option in describe(registry.get("encoders", name).factory)}
        for name in ("causal_transformer", "gnn")
    )
    assert {name: option for name, option in gnn.items() if name in transformer} == transformer
    assert gnn.keys() - transformer.keys() == {"neighbours", "neighbourhood_dropout", "graph_actions"}


def test_without_options_there_is_no_context(split):
    assert event_context(split.training, EventContextOptions(context_dropout=0.5), width=4) is None


def test_parts_are_added_up(split):
    torch.manual_seed(0)
    options = EventContextOptions(time_features=("gap",), popularity_windows=(7,))
    context = event_context(split.training, options, width=4)
    _, batch = next(query_batches(split.test, history_length=5, batch_size=7))
    events = torch.arange(-1, 35)
    expected = sum(part(batch, events) for part in context.parts)
    torch.testing.assert_close(context(batch, events), expected)
    assert np.count_nonzero(expected[0].detach()) == 0
