"""A verifier's scores and a value head's values of partial paths, as losses and as searches ask for them."""

import dataclasses

import pytest
import torch
from code_worlds import BATCH, ITEMS, codes_of, decoder, world

from grbench.errors import SuiteError
from grbench.types import Codes
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.layers.path_sampling import sample_paths

PATHS = torch.tensor([[[0, 0], [3, 2], [1, 2]]]).expand(4, -1, -1)


@pytest.fixture(params=["items", "codes"])
def encoder(request, tmp_path):
    data = world(tmp_path)
    made = decoder(data, codes_of(data), history=request.param, next_action=True, verifier=True, value_head=True)
    return made.eval()


def last_events_removed(batch, count):
    """The batch as it was so many events ago: a column of padding comes in for each."""
    moved = {
        name: torch.nn.functional.pad(getattr(batch, name)[:, :-count], (count, 0))
        for name in ("items", "actions", "times", "targets", "next_actions")
    }
    return dataclasses.replace(batch, **moved)


def test_a_position_sees_what_came_before_it(encoder):
    """Scores at an earlier end are those of the history as it was then."""
    whole = encoder.path_context(BATCH)
    newest = encoder.path_scores(PATHS, whole)
    assert torch.equal(newest, encoder.path_scores(PATHS, whole, torch.full((4, 3), BATCH.items.shape[1])))
    before = encoder.path_scores(PATHS, whole, torch.full((4, 3), BATCH.items.shape[1] - 1))
    then = encoder.path_scores(PATHS, encoder.path_context(last_events_removed(BATCH, 1)))
    some = (BATCH.items[:, :-1] > 0).any(1)  # who had an event then
    torch.testing.assert_close(before[some], then[some])
    assert not torch.allclose(before[some], newest[some])


def test_a_path_is_scored_by_itself(encoder):
    context = encoder.path_context(BATCH)
    scores = encoder.path_scores(PATHS, context)
    alone = torch.cat([encoder.path_scores(PATHS[:, place : place + 1], context) for place in range(3)], 1)
    torch.testing.assert_close(scores, alone)
    assert scores.unique().numel() == scores.numel()
    assert not torch.allclose(encoder.path_scores(PATHS[:, :, :1], context), scores)
    opposite = dataclasses.replace(BATCH, next_actions=5 - BATCH.next_actions)
    assert not torch.allclose(encoder.path_scores(PATHS, encoder.path_context(opposite)), scores)


def test_values_in_training_are_those_in_search(encoder, tmp_path):
    trie = PrefixTrie(ITEMS, Codes(encoder.history.codes.codes.long(), (4, 3, 5)))
    paths = sample_paths(encoder, BATCH, trie, 3, seed=0).codes
    values = encoder.path_values(BATCH, paths)
    assert values.shape == (4, 3, 3)
    _, state = encoder.start(BATCH)
    torch.testing.assert_close(encoder.values(state), values[:, 0, 0])
    state = state.select(torch.tensor([3, 3, 0]))
    for level in range(2):
        _, state = encoder.step(paths[[3, 3, 0], [1, 2, 0], level], state)
        torch.testing.assert_close(encoder.values(state), values[[3, 3, 0], [1, 2, 0], level + 1])
    values.sum().backward()
    taught = {name.split(".")[0] for name, each in encoder.named_parameters() if each.grad is not None}
    assert taught == {"value_head"}


def test_heads_change_nothing_else(tmp_path):
    """Neither what is learnt at first nor what is decoded."""
    data = world(tmp_path)
    codes = codes_of(data)
    plain, headed = decoder(data, codes), decoder(data, codes, verifier=True, value_head=True)
    for name, parameter in plain.named_parameters():
        assert headed.get_parameter(name).shape == parameter.shape
    headed.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(plain.eval().start(BATCH)[0], headed.eval().start(BATCH)[0])


def test_without_a_head(tmp_path):
    data = world(tmp_path)
    encoder = decoder(data, codes_of(data))
    with pytest.raises(SuiteError, match=r"encoder\.verifier: this loss or retriever needs it; set it to true"):
        encoder.path_context(BATCH)
    with pytest.raises(SuiteError, match=r"encoder\.value_head: this loss or retriever needs it; set it to true"):
        encoder.path_values(BATCH, torch.zeros(4, 2, 3, dtype=torch.int64))
