"""LightGCN: propagation by hand and against dense matrices, users and items that the graph does not know."""

import dataclasses

import pytest
import torch
from torch import nn
from training import train_once
from worlds import batch_of, everything, training_data

from grbench.data.split import Split
from grbench.errors import SuiteError
from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Embedder
from grbench.testing import tiny_store
from grbench.training.options import TrainingOptions
from grbench_reference.encoders.lightgcn import LightGCN
from grbench_reference.losses.infonce import InfoNCE
from grbench_reference.optimizers.adam import adam
from grbench_reference.tokenizers.ids import Ids

HISTORIES = [[(1, 0, 10), (2, 1, 20), (1, 1, 30)], [(2, 1, 10), (3, 1, 20)], [], [(4, 0, 5)]]
"""User 0 met items 1 (twice) and 2, user 1 items 2 and 3, user 2 nothing, user 3 item 4; nobody met item 5."""


@pytest.fixture
def data(tmp_path):
    return training_data(tmp_path, HISTORIES, num_items=5)


def build(data, **options):
    torch.manual_seed(0)
    return LightGCN(data, Ids().fit(data), **{"width": 3, "history_length": 4, **options}).eval()


def test_one_layer_by_hand(data):
    """User 3 and item 4 know only each other; item 2 (degree 2) hears both its users (degree 2): 1 / sqrt(4) each."""
    encoder = build(data, layers=1)
    user, item = encoder.users.weight, encoder.items.weight
    vectors = encoder.embed_items(torch.tensor([4, 2]))
    torch.testing.assert_close(vectors[0], (item[4] + user[3]) / 2)
    torch.testing.assert_close(vectors[1], (item[2] + (user[0] + user[1]) / 2) / 2)
    # User 0 (degree 2) hears item 1 (degree 1) once, though they met twice, and item 2 (degree 2).
    history = encoder.embed_histories(batch_of([1, 2], users=[0]))
    torch.testing.assert_close(history[0], (user[0] + item[1] / 2**0.5 + item[2] / 2) / 2)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_equal_dense_products(data, layers):
    encoder = build(data, layers=layers)
    edges = torch.zeros(4, 6)
    for user, item in [(0, 1), (0, 2), (1, 2), (1, 3), (3, 4)]:
        edges[user, item] = 1
    adjacency = torch.cat([torch.cat([torch.zeros(4, 4), edges], 1), torch.cat([edges.T, torch.zeros(6, 6)], 1)])
    roots = adjacency.sum(1).rsqrt().nan_to_num(posinf=0)
    smooth = roots[:, None] * adjacency * roots
    first = torch.cat([encoder.users.weight, encoder.items.weight]) * (roots > 0)[:, None]
    mean = sum(torch.linalg.matrix_power(smooth, k) @ first for k in range(layers + 1)) / (layers + 1)
    states, vectors = encoder.embed(batch_of([1, 2], [2, 3], [4], users=[0, 1, 3]), torch.arange(6))
    torch.testing.assert_close(vectors, mean[4:])
    torch.testing.assert_close(states, mean[[0, 1, 3]].unsqueeze(1).expand(-1, 2, -1))
    weight = torch.randn_like(vectors)
    (got,) = torch.autograd.grad((vectors * weight).sum(), encoder.users.weight)
    (expected,) = torch.autograd.grad((mean[4:] * weight).sum(), encoder.users.weight)
    torch.testing.assert_close(got, expected)


def test_a_new_user_is_a_node_added_with_its_history(data):
    """Degree 2, own vector 0; item 2 has degree 2, item 4 degree 1. At each position the history up to there."""
    encoder = build(data, layers=1)
    item = encoder.items.weight
    batch = batch_of([2, 4], users=[2])
    states, _ = encoder.embed(batch, torch.tensor([1]))
    torch.testing.assert_close(states[0, 0], item[2] / 2**0.5 / 2)
    torch.testing.assert_close(states[0, 1], (item[2] / 2 + item[4] / 2**0.5) / 2)


@pytest.mark.parametrize("graph_actions", [None, ["click"]])
def test_a_new_user_has_the_edges_that_training_would_have_given(tmp_path, graph_actions):
    """An item met again is the same edge, and an action that makes no edge in training makes none here."""
    met = [(2, 1, 10), (3, 0, 20), (2, 1, 30), (4, 1, 40), (4, 0, 50)]
    encoder = build(training_data(tmp_path, HISTORIES, num_items=5), layers=1, graph_actions=graph_actions)
    edges = [2, 3, 4] if graph_actions is None else [2, 4]
    degrees = encoder.graph.users_of.degrees[edges].float()
    sent = encoder.items.weight[edges] * torch.where(degrees > 0, degrees.rsqrt(), 0).nan_to_num()[:, None]
    items, actions = [item for item, _, _ in met], [action + 2 for _, action, _ in met]
    found = encoder.embed_histories(batch_of(items, actions=[actions], users=[2]))[0]
    torch.testing.assert_close(found, sent.sum(0) / len(edges) ** 0.5 / 2)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_embed_equals_the_two_separate_methods(data, similarity):
    encoder = build(data, similarity=similarity)
    assert isinstance(encoder, Embedder)
    batch, items = batch_of([1, 2, 2], [3], [], users=[0, 2, 2]), torch.tensor([5, 1, 2])
    states, vectors = encoder.embed(batch, items)
    torch.testing.assert_close(states[:, -1], encoder.embed_histories(batch))
    torch.testing.assert_close(vectors, encoder.embed_items(items))
    assert torch.isfinite(states).all()
    assert torch.equal(states[2], torch.zeros(3, 3))  # neither an edge nor a history


def test_what_has_no_edge_is_zero(data):
    assert torch.equal(build(data).embed_items(torch.tensor([0, 5])), torch.zeros(2, 3))


def test_neither_actions_nor_targets_are_read(data):
    encoder = build(data)
    batch = batch_of([1, 2], [3], users=[0, 2])
    other = dataclasses.replace(
        batch, actions=batch.actions * 0, targets=batch.targets * 0 + 4, next_actions=batch.next_actions
    )
    assert torch.equal(encoder.embed(batch, batch.items[0])[0], encoder.embed(other, batch.items[0])[0])


def test_edges_of_some_actions(data):
    encoder = build(data, layers=1, graph_actions=["click"])
    assert torch.equal(encoder.embed_items(torch.tensor([4])), torch.zeros(1, 3))
    with pytest.raises(SuiteError, match="graph_actions"):
        build(data, graph_actions=[])


def test_vectors_are_propagated_once_for_a_search_and_follow_the_weights(data, monkeypatch):
    encoder = build(data)
    runs = []
    whole = encoder._propagated
    monkeypatch.setattr(encoder, "_propagated", lambda: runs.append(1) or whole())
    with evaluating(encoder):
        before = encoder.embed_items(torch.tensor([4]))
        encoder.embed_histories(batch_of([1, 2], users=[0]))
        assert len(runs) == 1
    encoder.users.weight.data[3] += 1  # a change that neither autograd nor a version counter sees
    with evaluating(encoder):
        after = encoder.embed_items(torch.tensor([4]))
    torch.testing.assert_close(after, encoder.embed_items(torch.tensor([4])))
    assert not torch.allclose(before, after)


def test_learns_which_items_go_together(tmp_path):
    """Users meet items of one half only; one who is new is shown the half of what they have met."""
    store = tiny_store(
        tmp_path, [[(1 + (user % 2) * 4 + (user + place) % 4, 1, place) for place in range(3)] for user in range(24)]
    )
    split = Split(everything(store, range(22)), None, None, None)
    torch.manual_seed(0)
    encoder = LightGCN(split.training, Ids().fit(split.training), width=8, history_length=4, similarity="cosine")
    loss = InfoNCE(split.training, None, negatives={"uniform": 8}, temperature=0.1)
    result = train_once(
        encoder,
        [(loss, 1.0)],
        adam(nn.ModuleList([encoder, loss]), lr=0.02),
        split,
        TrainingOptions(epochs=15, batch_size=8, workers=0),
        seed=1,
    )
    assert result.curve[-1]["loss"] < 0.8 * result.curve[0]["loss"]
    scores = (
        encoder.eval().embed_histories(batch_of([1, 2], [6, 7], users=[22, 23]))
        @ encoder.embed_items(torch.arange(1, 9)).T
    )
    assert set((scores[0].topk(4).indices + 1).tolist()) == {1, 2, 3, 4}
    assert set((scores[1].topk(4).indices + 1).tolist()) == {5, 6, 7, 8}
