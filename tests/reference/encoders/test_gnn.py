"""The GNN encoder: neighbourhoods by hand, the leak through a row's own user, what it shares with the Transformer."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu
from training import train_once
from worlds import after_events, away_from_the_start, batch_of, everything, made_with, training_data

from grbench.data.split import Split
from grbench.errors import SuiteError
from grbench.interfaces import Embedder
from grbench.registry.options import bind, describe
from grbench.testing import tiny_store
from grbench.training.options import TrainingOptions
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.encoders.gnn import GNN
from grbench_reference.losses.infonce import InfoNCE
from grbench_reference.optimizers.adam import adam
from grbench_reference.tokenizers.ids import Ids

HISTORIES = [
    [(1, 0, 10), (2, 1, 20), (1, 1, 30)],
    [(2, 1, 10), (3, 1, 20), (4, 0, 30)],
    [(3, 0, 1), (5, 1, 2)],
    [(4, 1, 5), (5, 0, 6), (1, 0, 7)],
]
"""Nobody met item 6."""
FEATURES = {
    "item_features": {"color": [0, 1, None, 1, 2, 0]},
    "user_features": {"age": [1, 2, None, 1]},
}
VARIANTS = [
    {},
    {"neighbours": (2,)},
    {"neighbours": (4, 4, 4), "user_token": False},
    {"positions": "rotary", "norm_placement": "pre", "similarity": "cosine"},
    {"item_features": False, "user_features": False},
]
ALL = 50
"""More neighbours than any node has: each is taken once, so that nothing is left to chance."""


def build(data, **options):
    torch.manual_seed(0)
    options = {"width": 8, "heads": 2, "history_length": 4, "dropout": 0.0, "neighbourhood_dropout": 0.0, **options}
    encoder = made_with(GNN, data, Ids().fit(data), **options)
    return away_from_the_start(encoder)


@pytest.fixture
def data(tmp_path):
    return training_data(tmp_path, HISTORIES, num_items=6, **FEATURES)


def taken(gate, own, neighbours):
    """One node's gate, written out."""
    if not neighbours:
        return own
    both = torch.cat([own, torch.stack(neighbours).mean(0)])
    return own + torch.sigmoid(gate.gate(both)) * gate.value(gelu(gate.hidden(both)))


def test_two_hops_by_hand(data):
    """Users as their items say, then items as their users say; user 0 met item 1 twice, which counts twice."""
    encoder = build(data, neighbours=(ALL, ALL))
    outer, inner = encoder.items.gates
    own = encoder.items.own(torch.arange(7))
    profiles = encoder.users(torch.arange(4))
    met = [[1, 2, 1], [2, 3, 4], [3, 5], [4, 5, 1]]
    users = [taken(inner, profiles[user], [own[item] for item in items]) for user, items in enumerate(met)]
    met_by = {1: [0, 0, 3], 2: [0, 1], 3: [1, 2], 4: [1, 3], 5: [2, 3], 6: []}
    expected = [taken(outer, own[item], [users[user] for user in some]) for item, some in met_by.items()]
    torch.testing.assert_close(encoder.embed_items(torch.arange(1, 7)), torch.stack(expected))


def test_an_item_without_an_edge_is_itself_alone(data):
    encoder = build(data)
    torch.testing.assert_close(encoder.embed_items(torch.tensor([6])), encoder.items.own(torch.tensor([6])))
    clicks = build(data, graph_actions=["click"])
    torch.testing.assert_close(clicks.embed_items(torch.tensor([6])), clicks.items.own(torch.tensor([6])))
    assert not torch.allclose(clicks.embed_items(torch.tensor([1])), clicks.items.own(torch.tensor([1])))
    assert not torch.allclose(clicks.embed_items(torch.tensor([1])), encoder.embed_items(torch.tensor([1])))


def test_padding_is_zero(data):
    assert torch.equal(build(data).embed_items(torch.tensor([0])), torch.zeros(1, 8))


def test_training_starts_from_the_items_alone(data):
    torch.manual_seed(0)
    encoder = made_with(GNN, data, Ids().fit(data), width=8, history_length=4).eval()
    plain = made_with(CausalTransformer, data, Ids().fit(data), width=8, history_length=4).eval()
    own = {name.replace("items.own.", "items."): value for name, value in encoder.state_dict().items()}
    plain.load_state_dict({name: value for name, value in own.items() if not name.startswith("items.gates.")})
    batch, items = batch_of([1, 2, 3], [4]), torch.tensor([6, 1])
    for one, other in zip(encoder.embed(batch, items), plain.embed(batch, items), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("neighbours", [(ALL,), (ALL, ALL), (ALL, ALL, ALL)])
@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[1, 2, 3], [2, 3, 4]]])
def test_no_training_step_sees_an_event_of_its_rows_in_the_graph(tmp_path, neighbours, rows):
    """Two worlds that differ in the last item of user 0, a row of the batch: in training states and item vectors are
    the same, though in evaluation, where every edge is there, they differ."""
    worlds = []
    for last in (4, 5):
        histories = [[(1, 0, 1), (2, 1, 2), (3, 1, 3), (last, 1, 4)], [(2, 1, 1), (3, 0, 2), (4, 1, 3)], *HISTORIES]
        features = {**FEATURES, "user_features": {"age": [1, 2, 3, 2, None, 1]}}
        worlds.append(build(training_data(tmp_path, histories, num_items=6, **features), neighbours=neighbours))
    batch, items = batch_of(*rows, targets=[[*row[1:], 4] for row in rows]), torch.arange(1, 7)

    def results(encoder):
        return [*encoder.embed(batch, items), encoder.embed_histories(batch)]

    for one, other in zip(*(results(encoder.train()) for encoder in worlds), strict=True):
        torch.testing.assert_close(one, other)
    after, before = (results(encoder.eval()) for encoder in worlds)
    assert not torch.allclose(after[1], before[1])
    if len(neighbours) > 1:  # item 3 leads to user 0, and from there to the item that comes next
        assert not torch.allclose(after[2], before[2])


def test_users_of_other_batches_stay_in_the_graph(data):
    """Of items 1 and 2 user 0 is a neighbour, and user 2 is none."""
    encoder = build(data, neighbours=(ALL, ALL))
    items = torch.tensor([1, 2])
    whole = encoder.embed_items(items)
    encoder.train()
    torch.testing.assert_close(encoder.embed(batch_of([3], users=[2]), items)[1], whole)
    assert not torch.allclose(encoder.embed(batch_of([3], users=[0]), items)[1], whole)
    torch.testing.assert_close(encoder.embed_items(items), whole)  # nobody is hidden any longer


def test_a_share_of_items_loses_its_neighbourhood_in_training(data):
    encoder = build(data, neighbourhood_dropout=0.25).train()
    items = torch.full((4000,), 5)
    alone = encoder.items.own(torch.tensor([5]))
    share = torch.isclose(encoder.items(items), alone).all(1).float().mean()
    assert share == pytest.approx(0.25, abs=0.03)
    assert not torch.isclose(encoder.eval().items(items), alone).all(1).any()


@pytest.mark.parametrize("options", VARIANTS)
def test_embed_equals_the_two_separate_methods(data, options):
    encoder = build(data, **options)
    assert isinstance(encoder, Embedder)
    batch, items = batch_of([1, 2, 3], [4], []), torch.tensor([6, 1, 2, 1])
    states, vectors = encoder.embed(batch, items)
    torch.testing.assert_close(states[:2, -1], encoder.embed_histories(batch)[:2])
    torch.testing.assert_close(vectors, encoder.embed_items(items))


@pytest.mark.parametrize("options", VARIANTS)
def test_scores_do_not_depend_on_the_batch(data, options, monkeypatch):
    encoder = build(data, **options)
    together = encoder.embed_items(torch.arange(1, 7))
    for item in range(1, 7):
        torch.testing.assert_close(encoder.embed_items(torch.tensor([item]))[0], together[item - 1])
    alone = encoder.embed_histories(batch_of([2, 3]))
    torch.testing.assert_close(alone[0], encoder.embed_histories(batch_of([1, 2, 3, 4], [2, 3], users=[1, 0]))[1])
    monkeypatch.setattr("grbench_reference.graphs.neighbourhoods.ROWS_AT_ONCE", 2)
    with torch.no_grad():
        torch.testing.assert_close(encoder.embed_items(torch.arange(1, 7)), together)


@pytest.mark.parametrize("options", VARIANTS)
def test_no_state_sees_the_future(data, options):
    encoder = build(data, **options)
    first, second = batch_of([1, 2, 3, 4]), batch_of([1, 2, 4, 4], actions=[[2, 2, 3, 3]])
    states, other = (after_events(encoder.embed(batch, torch.tensor([1]))[0], batch) for batch in (first, second))
    torch.testing.assert_close(states[:, :2], other[:, :2])
    assert not torch.allclose(states[:, 2:], other[:, 2:])


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_reach_every_gate(data, options):
    encoder = build(data, **options).train()
    batch = batch_of([1, 2, 3, 4], [], users=[0, 2], length=4)
    states, vectors = encoder.embed(batch, torch.tensor([1, 6]))
    (states.sum() + (vectors * torch.randn(2, 8)).sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)
    assert all(p.grad is not None and p.grad.any() for p in encoder.items.gates.parameters())


def test_it_has_every_option_of_the_transformer_as_it_is_there():
    ours = {option.name: option for option in describe(GNN)}
    for option in describe(CausalTransformer):
        assert ours.pop(option.name) == option
    assert {name: option.type for name, option in ours.items()} == {
        "neighbours": "list[int >= 1]",
        "neighbourhood_dropout": "float >= 0 and < 1",
        "graph_actions": "list[str] | null",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": [0]}, r"encoder\.neighbours\.0: should be greater than or equal to 1, got 0"),
        ({"neighbours": 10}, r"encoder\.neighbours: should be a list, got 10"),
        ({"neighbors": [10]}, r"encoder\.neighbors: unknown option; did you mean neighbours\?"),
        ({"width": 0}, r"encoder\.width: should be greater than or equal to 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SuiteError, match=message):
        bind(GNN, options, "encoder")


def test_bad_options_that_only_the_data_tells(data):
    with pytest.raises(SuiteError, match=r"encoder\.neighbours: \[\] draws none; name a number for each hop"):
        build(data, neighbours=())
    with pytest.raises(SuiteError, match=r"encoder\.graph_actions: no action 'like'"):
        build(data, graph_actions=["like"])
    with pytest.raises(SuiteError, match="3 heads cannot share"):
        build(data, heads=3)


@pytest.mark.parametrize("options", [{}, {"sparse": True}])
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
def test_learns(tmp_path, options, precision):
    """Item 1 is always followed by 2, 2 by 3, .. 5 by 1."""
    histories = [[(1 + (user + place) % 5, place % 2, place) for place in range(2 + user % 5)] for user in range(25)]
    store = tiny_store(tmp_path, histories, user_features={"age": [user % 3 for user in range(25)]})
    split = Split(everything(store), None, None, None)
    torch.manual_seed(0)
    encoder = made_with(
        GNN,
        split.training,
        Ids().fit(split.training),
        **{"width": 16, "history_length": 6, "dropout": 0.1, "similarity": "cosine", "neighbours": (3, 2), **options},
    )
    loss = InfoNCE(split.training, None, negatives={"uniform": 8, "in_batch": True}, logq="negatives", temperature=0.1)
    result = train_once(
        encoder,
        [(loss, 1.0)],
        adam(nn.ModuleList([encoder, loss]), lr=0.02),
        split,
        TrainingOptions(epochs=40, batch_size=9, workers=0, precision=precision),
        seed=1,
    )
    assert result.curve[-1]["loss"] < 0.7 * result.curve[0]["loss"]
    encoder.eval()
    scores = (
        encoder.embed_histories(batch_of([1], [2], [3, 4], [5, 1, 2, 3], [3, 4, 5]))
        @ encoder.embed_items(torch.arange(1, 6)).T
    )
    assert (scores.argmax(1) + 1).tolist() == [2, 3, 5, 4, 1]
