"""Batches equal what a loop over each user's events would give, whatever the workers."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grbench.data.batches import query_batches, training_batches
from grbench.data.examples import newest_events
from grbench.data.histories import Histories
from grbench.data.queries import queries_at
from grbench.data.training_data import TrainingData
from grbench.testing import tiny_store
from grbench_reference.protocols.leave_last_out import LeaveLastOut

events = st.tuples(st.integers(1, 9), st.sampled_from([None, 0, 1]), st.integers(1, 10**10))
worlds = st.lists(st.lists(events, max_size=7), min_size=1, max_size=6).filter(any)


def token(action):
    return 1 if action is None else action + 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(world=worlds, length=st.integers(1, 8), batch_size=st.integers(1, 4), workers=st.sampled_from([0, 2]))
def test_training_batches_equal_a_loop(tmp_path_factory, world, length, batch_size, workers):
    store = tiny_store(tmp_path_factory.mktemp("store"), world, num_items=9)
    every = Histories(store, np.arange(len(world)), store.offsets[:-1], store.offsets[1:])
    data = TrainingData(store.catalogue, every)
    examples = newest_events(data, seed=3, epoch=1)
    batches = list(training_batches(data, examples, history_length=length, batch_size=batch_size, workers=workers))
    assert len(batches) == examples.num_batches(batch_size)
    seen = []
    for batch in batches:
        assert batch.items.shape == batch.targets.shape == (batch_size, length)
        for row, user in enumerate(batch.users.tolist()):
            if not batch.items[row].any():
                assert not batch.targets[row].any()  # a filler row
                continue
            seen.append(user)
            newest = world[user][-(length + 1) :]
            pad = [0] * (length - len(newest) + 1)
            assert batch.items[row].tolist() == pad + [item for item, _, _ in newest[:-1]]
            assert batch.actions[row].tolist() == pad + [token(action) for _, action, _ in newest[:-1]]
            assert batch.times[row].tolist() == pad + [time for _, _, time in newest[:-1]]
            assert batch.targets[row].tolist() == pad + [item for item, _, _ in newest[1:]]
            assert batch.next_actions[row].tolist() == pad + [token(action) for _, action, _ in newest[1:]]
    assert sorted(seen) == [user for user, history in enumerate(world) if len(history) >= 2]
    counts = np.bincount([item for history in world for item, _, _ in history], minlength=10)
    assert np.array_equal(data.item_counts(), counts)


def test_order_depends_on_seed_and_epoch_alone(tmp_path):
    store = tiny_store(tmp_path, [[(1, 0, 1), (2, 0, 2), (3, 0, 3)]] * 50)
    data = LeaveLastOut().split(store).training
    assert len(data.trainable) == 0  # one training event each: nothing to predict
    data = TrainingData(
        store.catalogue, Histories(store, np.arange(50), store.offsets[:-1].copy(), store.offsets[1:].copy())
    )

    def order(seed, epoch, workers):
        examples = newest_events(data, seed=seed, epoch=epoch)
        batches = training_batches(data, examples, history_length=2, batch_size=7, workers=workers)
        return torch.cat([batch.users for batch in batches]).tolist()

    assert order(0, 0, 0) == order(0, 0, 1) == order(0, 0, 4)
    assert order(0, 0, 0) != order(0, 1, 0)
    assert order(0, 0, 0) != order(1, 0, 0)


def test_query_batches_ask_for_the_wanted_action_last(tmp_path):
    store = tiny_store(tmp_path, [[(1, 0, 1), (2, 1, 2), (3, 0, 3), (4, 1, 4)], [(5, 1, 1), (6, 0, 2), (7, 0, 3)]])
    queries = LeaveLastOut(next_action="click").split(store).test
    ((where, batch),) = query_batches(queries, history_length=3, batch_size=8)
    assert where == slice(0, 2)
    assert batch.items.tolist() == [[1, 2, 3], [0, 5, 6]]
    assert batch.next_actions.tolist() == [[3, 2, 3], [3, 2, 3]]
    assert not batch.targets.any()
    assert not batch.user_targets.any()


def test_the_user_token_of_a_query_is_asked_what_the_last_event_is_asked(tmp_path):
    """Histories of two events, one, and none; the first is longer than the window of one event."""
    world = [[(1, 1, 1), (2, 1, 2), (3, 0, 3)], [(4, 0, 8), (5, 1, 9)], [(6, 0, 5)]]
    queries = queries_at(tiny_store(tmp_path, world), np.arange(3), np.array([2, 4, 5]), 3)
    for length, actions, times in ((1, [0, 2, 3], [0, 8, 0]), (2, [3, 2, 3], [1, 8, 0])):
        ((_, batch),) = query_batches(queries, history_length=length, batch_size=3)
        assert batch.user_next_actions.tolist() == actions  # the action asked for where there is no event
        assert batch.user_times.tolist() == times  # and no time: that of the target is not known
        assert not batch.all_targets.any()


def test_a_consumer_that_stops_early_does_not_hang(tmp_path):
    store = tiny_store(tmp_path, [[(1, 0, 1), (2, 1, 2), (3, 0, 3), (4, 1, 4)]] * 100)
    data = LeaveLastOut().split(store).training
    examples = newest_events(data, seed=0, epoch=0)
    batches = training_batches(data, examples, history_length=3, batch_size=1, workers=2)
    assert next(batches).items.shape == (1, 3)
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)
