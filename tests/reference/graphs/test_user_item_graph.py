"""The graph of users and items: its edges by hand, drawn neighbours, sums over edges, and no held-out event in it."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import everything, training_data

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.testing import tiny_store
from grbench_reference.graphs.user_item_graph import AdjacencyList, _bags, _spread_product, user_item_graph
from grbench_reference.protocols.last_positive import LastPositive
from grbench_reference.protocols.leave_last_out import LeaveLastOut

HISTORIES = [
    [(1, 0, 10), (2, 1, 20), (1, 1, 30)],
    [(3, None, 10), (2, 1, 20)],
    [],
    [(5, 0, 5)],
]


@pytest.fixture
def data(tmp_path):
    return training_data(tmp_path, HISTORIES, num_items=6)


def lists(table):
    return [some.tolist() for some in torch.tensor_split(table.columns, table.offsets[1:-1])]


def edges(graph):
    return Counter((user, item) for user, items in enumerate(lists(graph.items_of)) for item in items)


def test_both_tables_by_hand(data):
    graph = user_item_graph(data)
    assert lists(graph.items_of) == [[1, 2, 1], [3, 2], [], [5]]
    assert lists(graph.users_of) == [[], [0, 0], [0, 1], [1], [], [3], []]
    assert graph.num_edges == 6
    assert graph.users_of.degrees.tolist() == [0, 2, 2, 1, 0, 1, 0]
    assert {graph.items_of.columns.dtype, graph.users_of.columns.dtype} == {torch.int32}


def test_distinct_edges_count_a_pair_once(data):
    graph = user_item_graph(data, distinct=True)
    assert lists(graph.items_of) == [[1, 2], [2, 3], [], [5]]
    assert lists(graph.users_of) == [[], [0], [0, 1], [1], [], [3], []]


def test_edges_of_some_actions_only(data):
    graph = user_item_graph(data, actions=["click"])
    assert lists(graph.items_of) == [[2, 1], [2], [], []]
    assert lists(graph.users_of) == [[], [0], [0, 1], [], [], [], []]


def test_rows_in_any_order_and_streamed_in_pieces(tmp_path, monkeypatch):
    store = tiny_store(tmp_path, HISTORIES, num_items=6)
    whole = user_item_graph(everything(store))
    monkeypatch.setattr(
        TrainingData, "stream", lambda self, events_at_once=2: self._histories.stream(events_at_once), raising=True
    )
    pieces = user_item_graph(everything(store, [3, 0, 2, 1]))
    assert (lists(pieces.items_of), lists(pieces.users_of)) == (lists(whole.items_of), lists(whole.users_of))


def test_what_is_not_among_the_users_is_not_in_the_graph(tmp_path):
    store = tiny_store(tmp_path, HISTORIES, num_items=6)
    assert lists(user_item_graph(everything(store, [1, 3])).items_of) == [[], [3, 2], [], [5]]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([], r"encoder\.graph_actions: \[\] leaves no edge"),
        (["like"], r"encoder\.graph_actions: no action 'like' in this dataset; it has exposure, click"),
        (["exposure"], r"encoder\.graph_actions: no training event is a exposure, so the graph has no edge"),
    ],
)
def test_a_graph_without_edges_is_refused(tmp_path, actions, message):
    with pytest.raises(SuiteError, match=message):
        user_item_graph(training_data(tmp_path, [[(1, 1, 1), (2, 1, 2)]]), actions=actions)


def table_of(*rows):
    return AdjacencyList(np.cumsum([0, *map(len, rows)]), np.array(list(itertools.chain(*rows)) or [0]))


def test_evaluation_takes_evenly_spaced_neighbours():
    """Of 8 edges 4 are places 1, 3, 5, 7, each in the middle of its quarter; of 5 edges 2 are places 1 and 3."""
    table = table_of(range(10, 18), range(20, 25), [7, 9], []).eval()
    four, found = table.sample(torch.arange(4), 4)
    assert four.tolist() == [[11, 13, 15, 17], [20, 21, 23, 24], [7, 9, 0, 0], [0, 0, 0, 0]]
    assert found.tolist() == [[True] * 4, [True] * 4, [True, True, False, False], [False] * 4]
    assert table.sample(torch.tensor([1]), 2)[0].tolist() == [[21, 23]]


def test_evaluation_does_not_depend_on_the_batch():
    table = table_of(range(10, 18), range(20, 25), [7, 9]).eval()
    alone = table.sample(torch.tensor([1]), 3)[0]
    assert torch.equal(table.sample(torch.tensor([2, 1, 0, 1]), 3)[0][[1, 3]], alone.expand(2, -1))


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.lists(st.integers(1, 50), max_size=12), min_size=1, max_size=6),
    count=st.integers(1, 6),
    training=st.booleans(),
)
def test_only_neighbours_are_drawn(rows, count, training):
    table = table_of(*rows).train(training)
    nodes = torch.arange(len(rows)).repeat(3)
    neighbours, found = table.sample(nodes, count)
    for node, drawn, real in zip(nodes.tolist(), neighbours.tolist(), found.tolist(), strict=True):
        assert sum(real) == min(count, len(rows[node]))
        kept = [neighbour for neighbour, there in zip(drawn, real, strict=True) if there]
        if len(rows[node]) <= count:
            assert kept == rows[node]
        assert set(kept) <= set(rows[node])
        assert not any(neighbour for neighbour, there in zip(drawn, real, strict=True) if not there)


def test_training_draws_every_edge_as_often():
    torch.manual_seed(0)
    table = table_of([1, 2, 2, 3, 4])
    drawn = table.sample(torch.zeros(20_000, dtype=torch.int64), 3)[0]
    shares = torch.bincount(drawn.reshape(-1), minlength=5) / drawn.numel()
    torch.testing.assert_close(shares, torch.tensor([0, 0.2, 0.4, 0.2, 0.2]), atol=0.01, rtol=0)


@pytest.mark.parametrize("distinct", [False, True])
def test_sums_over_edges_equal_the_dense_product(data, distinct):
    graph = user_item_graph(data, distinct=distinct)
    dense = torch.zeros(4, 7, dtype=torch.float64)
    for (user, item), count in edges(graph).items():
        dense[user, item] = count
    items = torch.randn(7, 3, dtype=torch.float64).float().requires_grad_()
    users = torch.randn(4, 3).requires_grad_()
    torch.testing.assert_close(graph.sum_items(items), dense.float() @ items)
    torch.testing.assert_close(graph.sum_users(users), dense.float().T @ users)
    weight = torch.randn(4, 3)
    (graph.sum_items(items) * weight).sum().backward()
    torch.testing.assert_close(items.grad, dense.float().T @ weight)
    weight = torch.randn(7, 3)
    (graph.sum_users(users) * weight).sum().backward()
    torch.testing.assert_close(users.grad, dense.float() @ weight)


def test_the_gpus_way_to_sum_equals_the_cpus(data):
    table = user_item_graph(data).users_of
    offsets, vectors = table.offsets.int(), torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spread = _spread_product(offsets, table.columns, vectors)
    torch.testing.assert_close(spread, _bags(offsets, table.columns, vectors))


def test_sums_stay_in_float32_under_autocast(data):
    graph = user_item_graph(data)
    items = torch.randn(7, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(graph.sum_items(items), graph.sum_items(items.float()))
        assert graph.sum_items(items.bfloat16()).dtype == torch.float32


worlds = st.lists(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0, 1])), min_size=2, max_size=6), min_size=4, max_size=8
)


@settings(deadline=None, max_examples=25)
@given(world=worlds, seed=st.integers(0, 5), last_positive=st.booleans(), with_history=st.booleans())
def test_no_held_out_event_is_reachable(tmp_path_factory, world, seed, last_positive, with_history):
    """A target that is changed, and every event from it on, changes nothing in the graph."""
    world[0] = [*world[0], (1, 1)]
    histories = [[(item, action, time) for time, (item, action) in enumerate(user)] for user in world]
    for history in histories:
        history.append((2, 1, len(history)))  # nobody is without a positive
    protocol = (
        LastPositive(
            positives=["click"],
            pool="catalogue",
            evaluation_share=0.5,
            seed=seed,
            train_on_evaluation_history=with_history,
        )
        if last_positive
        else LeaveLastOut()
    )
    store = tiny_store(tmp_path_factory.mktemp("store"), histories, num_items=7)
    split = protocol.split(store)
    graph = user_item_graph(split.training)
    seen = Counter(
        (int(user), int(item))
        for events in split.training.stream()
        for user, start, stop in zip(events.users, events.offsets[:-1], events.offsets[1:], strict=True)
        for item in events.items[start:stop]
    )
    assert edges(graph) == seen

    ends = dict(zip(split.test.users.tolist(), split.test.histories.lengths.tolist(), strict=True))
    if split.validation is not None:  # leave-last-out: the validation event goes before the test event
        ends |= dict(zip(split.validation.users.tolist(), split.validation.histories.lengths.tolist(), strict=True))
    changed = [
        [(item if place < ends.get(user, len(history)) else 7, *rest) for place, (item, *rest) in enumerate(history)]
        for user, history in enumerate(histories)
    ]
    other = protocol.split(tiny_store(tmp_path_factory.mktemp("store"), changed, num_items=7))
    assert other.test.users.tolist() == split.test.users.tolist()
    assert edges(user_item_graph(other.training)) == edges(graph)
    assert 7 not in user_item_graph(other.training).items_of.columns.tolist()
