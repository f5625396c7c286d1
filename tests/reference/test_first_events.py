"""Encoders with a user token learn users' first events, whatever the loss; those without one learn what they did."""

import dataclasses
import math

import pytest
import torch
from code_worlds import codes_of
from torch import nn
from training import state_of, train_once
from worlds import away_from_the_start, batch_of, training_data

from grbench.data.batches import training_batches
from grbench.data.examples import all_prefixes, newest_events
from grbench.data.split import Split
from grbench.errors import RunError
from grbench.interfaces import Decoder
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.training.loop import examples_of
from grbench.training.options import TrainingOptions
from grbench_reference.losses.next_action import NextAction

REGISTRY = Registry.load()
ENCODERS = {
    "causal_transformer": {"width": 8, "blocks": 1, "heads": 2, "dropout": 0.0, "next_action": True},
    "hstu": {"width": 8, "blocks": 1, "dropout": 0.0},
    "gnn": {"width": 8, "blocks": 1, "heads": 2, "dropout": 0.0, "neighbours": [2], "neighbourhood_dropout": 0.0},
    "prism": {"width": 8, "blocks": 1, "dropout": 0.0},
    "diffu_reason": {"width": 8, "blocks": 1, "dropout": 0.0},
    "preference_memory": {"width": 8, "blocks": 1, "dropout": 0.0, "segment": 3},
    "one_ranker": {"width": 8, "blocks": 1, "dropout": 0.0, "tokens_per_task": 1, "fake_items": 2},
    "lazy_decoder": {"width": 8, "blocks": 1, "dropout": 0.0},
    "sid_decoder": {"width": 8, "blocks": 1, "dropout": 0.0, "next_action": ["click"]},
    "sid_decoder of codes": {"width": 8, "blocks": 1, "dropout": 0.0, "history": "codes"},
}
ITEMS = torch.arange(1, 10)
NOBODY = batch_of(*[[]] * 9, users=[0] * 9, length=9)


@pytest.fixture
def data(tmp_path):
    """One event, three and eight: item 5 comes first and never again."""
    later = [(1 + place % 3, place % 2, place) for place in range(7)]
    return training_data(
        tmp_path,
        [[(5, 1, 1)], [(5, 1, 1), (1, 0, 2), (2, 1, 3)], [(5, 1, 0), *later]],
        num_items=9,
        user_features={"age": [1, 2, None]},
    )


def encoder_of(data, name, **options):
    torch.manual_seed(0)
    chosen = {"history_length": 9, **ENCODERS[name], **options}
    return REGISTRY.build("encoders", Component(name.split()[0], chosen), data, codes_of(data))


def loss_of(data, name, **options):
    return REGISTRY.build("losses", Component(name, options), data, codes_of(data))


def train(data, encoder, loss, epochs=60, **options):
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.03)
    split = Split(data, None, None, ITEMS.numpy())
    options = TrainingOptions(batch_size=3, epochs=epochs, workers=0, **options)
    train_once(encoder, [(loss, 1.0)], [optimizer], split, options)
    return encoder.eval()


def is_learnt_by(encoder, data, loss):
    """Whether somebody without events is first of all recommended item 5."""
    click = {name: getattr(NOBODY, name) + 3 for name in ("next_actions", "user_next_actions")}
    asked = dataclasses.replace(NOBODY, **click)  # as all first events are
    with torch.no_grad():
        if Decoder in type(loss).needs:
            levels = encoder.code_logits(dataclasses.replace(asked, user_targets=ITEMS))
            written = codes_of(data).table[ITEMS].unbind(1)
            scores = sum(level.log_softmax(1)[ITEMS - 1, codes] for level, codes in zip(levels, written, strict=True))
        else:
            scores = encoder.embed_histories(asked)[0] @ encoder.embed_items(ITEMS).T
    return int(ITEMS[scores.argmax()]) == 5


OWN_NEGATIVES = ("bce", "bpr")  # drawn for each position in turn
CASES = [(name, "full_softmax") for name in ENCODERS if name != "lazy_decoder"]  # which embeds nothing
CASES += [("causal_transformer", loss) for loss in ("infonce", *OWN_NEGATIVES)]
CASES += [("lazy_decoder", "next_code"), ("sid_decoder", "next_code"), ("sid_decoder of codes", "next_code")]


@pytest.mark.parametrize(("name", "loss"), CASES)
def test_the_first_event_is_learnt(data, name, loss):
    loss = loss_of(data, loss)
    assert is_learnt_by(train(data, encoder_of(data, name), loss), data, loss)


@pytest.mark.parametrize(("name", "loss"), [case for case in CASES if case[1] not in OWN_NEGATIVES])
def test_a_window_teaches_what_its_prefixes_teach(data, name, loss):
    """One pass over whole histories, user token first, has the mean loss of every event alone after those before it."""
    options = {"infonce": {"negatives": {"in_batch": True}}}.get(loss, {})
    loss = loss_of(data, loss, **options)
    encoder = away_from_the_start(encoder_of(data, name))
    data = data.with_first_events()
    batches = [
        next(training_batches(data, examples, history_length=9, batch_size=14, workers=0))
        for examples in (newest_events(data, seed=0, epoch=1), all_prefixes(data, seed=0, epoch=1))
    ]
    assert [int((batch.all_targets > 0).sum()) for batch in batches] == [12, 12]
    whole, single = (loss(encoder, batch) for batch in batches)
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=1e-4)


def test_users_of_one_event_are_trained_on_where_there_is_a_user_token(data):
    for name, options, users in (
        ("causal_transformer", {}, [0, 1, 2]),
        ("causal_transformer", {"user_token": False}, [1, 2]),
        ("sid_decoder", {}, [0, 1, 2]),
    ):
        state = state_of(encoder_of(data, name, **options), [], [], TrainingOptions(workers=0), data=data)
        assert sorted(examples_of(state).rows.tolist()) == users
    assert data.first_target == 2  # the split's own data is as it was


def test_without_a_user_token_nothing_has_changed(data):
    """Batches are those of data whose first events are no targets, and losses read the events' positions alone."""
    encoder = encoder_of(data, "causal_transformer", user_token=False)
    assert not is_learnt_by(train(data, encoder, loss_of(data, "full_softmax")), data, loss_of(data, "full_softmax"))
    batch = next(training_batches(data, newest_events(data, seed=0, epoch=1), history_length=9, batch_size=2))
    states, vectors = encoder.embed(batch, ITEMS)
    assert states.shape == (2, 9, 8)
    learnt = batch.targets > 0
    expected = nn.functional.cross_entropy(states[learnt] @ vectors.T, batch.targets[learnt] - 1)
    torch.testing.assert_close(loss_of(data, "full_softmax")(encoder, batch)["full_softmax"], expected)


def test_the_first_action_is_learnt_beside_the_others(data):
    """Exposure 0, click log 3 at each position: a user whose first event is a click, then an exposure, then a click."""

    class Fixed(nn.Module):
        def action_logits(self, batch):
            return torch.tensor([0.0, math.log(3)]).expand(*batch.all_targets.shape, 2)

    batch = dataclasses.replace(batch_of([5, 1], targets=[[1, 2]]), user_next_actions=torch.tensor([3]))
    batch.next_actions[:] = torch.tensor([[2, 3]])
    expected = -(math.log(3 / 4) + math.log(1 / 4) + math.log(3 / 4)) / 3
    torch.testing.assert_close(NextAction(data, codes_of(data))(Fixed(), batch)["next_action"], torch.tensor(expected))


def test_a_target_of_the_start_token_that_is_not_the_first_item_is_refused_where_codes_are_read(data):
    encoder = encoder_of(data, "sid_decoder of codes")
    batch = dataclasses.replace(batch_of([1, 2], users=[2]), user_targets=torch.tensor([3]))
    with pytest.raises(RunError, match="user row 2"):
        encoder.code_logits(batch)
