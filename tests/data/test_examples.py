"""What an epoch trains on, by hand and against a loop over each user's events."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import training_data

from grbench.data.batches import training_batches
from grbench.data.examples import all_prefixes, consecutive_windows, newest_events
from grbench.data.training_data import TrainingData

EXPOSURE, CLICK = 0, 1


def rows_of(data, examples, length, batch_size=3):
    """[(user, items, targets)] of all rows but fillers, padding left out, sorted."""
    found = []
    for batch in training_batches(data, examples, history_length=length, batch_size=batch_size, workers=0):
        assert batch.items.shape == (batch_size, length)
        for user, items, targets in zip(batch.users.tolist(), batch.items, batch.targets, strict=True):
            held = items > 0
            if held.any():
                found.append((user, items[held].tolist(), targets[held].tolist()))
    return sorted(found)


def with_users(data, examples, length):
    """[(user, its token's target, items, targets)] of all rows but fillers, padding left out, sorted."""
    found = []
    for batch in training_batches(data, examples, history_length=length, batch_size=3, workers=0):
        columns = (batch.users, batch.user_targets, batch.items, batch.targets)
        for user, first, items, targets in zip(*(column.tolist() for column in columns), strict=True):
            if first or any(items):
                padding = next((place for place, item in enumerate(items) if item), length)
                found.append((user, first, items[padding:], targets[padding:]))
    return sorted(found)


@pytest.fixture
def data(tmp_path):
    """Six events, one, and three."""
    histories = [
        [(item, item % 2, item) for item in range(1, 7)],
        [(9, CLICK, 1)],
        [(7, CLICK, 1), (8, 0, 2), (9, 1, 3)],
    ]
    return training_data(tmp_path, histories, num_items=9)


def test_the_newest_events_of_each_user(data):
    examples = newest_events(data, seed=0, epoch=1)
    assert len(examples) == 2
    assert rows_of(data, examples, 2) == [(0, [4, 5], [5, 6]), (2, [7, 8], [8, 9])]


def test_windows_by_hand(data):
    """Of two targets each, from the newest backwards; the oldest has one."""
    assert rows_of(data, consecutive_windows(data, 2, seed=0, epoch=1), 2) == [
        (0, [1], [2]),
        (0, [2, 3], [3, 4]),
        (0, [4, 5], [5, 6]),
        (2, [7, 8], [8, 9]),
    ]


def test_prefixes_by_hand(data):
    examples = all_prefixes(data, seed=0, epoch=1)
    assert rows_of(data, examples, 3) == [
        (0, [1], [2]),
        (0, [1, 2], [0, 3]),
        (0, [1, 2, 3], [0, 0, 4]),
        (0, [2, 3, 4], [0, 0, 5]),
        (0, [3, 4, 5], [0, 0, 6]),
        (2, [7], [8]),
        (2, [7, 8], [0, 9]),
    ]


def test_prefixes_end_at_events_that_may_be_targets(data):
    examples = all_prefixes(data.with_targets(["click"], "here"), seed=0, epoch=1)
    assert rows_of(data, examples, 3) == [
        (0, [1, 2], [0, 3]),
        (0, [2, 3, 4], [0, 0, 5]),
        (2, [7, 8], [0, 9]),
    ]


def test_first_events_are_targets_of_the_user_token(data):
    """User 0's newest three of six events do not reach its first, user 1 has one event, user 2's three are all read."""
    data = data.with_first_events()
    assert with_users(data, newest_events(data, seed=0, epoch=1), 2) == [
        (0, 0, [4, 5], [5, 6]),
        (1, 9, [], []),
        (2, 7, [7, 8], [8, 9]),
    ]
    assert with_users(data, consecutive_windows(data, 2, seed=0, epoch=1), 2) == [
        (0, 0, [2, 3], [3, 4]),
        (0, 0, [4, 5], [5, 6]),
        (0, 1, [1], [2]),
        (1, 9, [], []),
        (2, 7, [7, 8], [8, 9]),
    ]
    assert with_users(data, all_prefixes(data, seed=0, epoch=1), 3) == [
        (0, 0, [1], [2]),
        (0, 0, [1, 2], [0, 3]),
        (0, 0, [1, 2, 3], [0, 0, 4]),
        (0, 0, [2, 3, 4], [0, 0, 5]),
        (0, 0, [3, 4, 5], [0, 0, 6]),
        (0, 1, [], []),
        (1, 9, [], []),
        (2, 0, [7], [8]),
        (2, 0, [7, 8], [0, 9]),
        (2, 7, [], []),
    ]


def test_first_events_that_may_not_be_targets_are_none(data):
    """User 0's first event is a click, its second an exposure; the other users begin with a click."""
    exposures = data.with_targets(["exposure"], "here").with_first_events()
    assert [row[:2] for row in with_users(exposures, newest_events(exposures, seed=0, epoch=1), 9)] == [(0, 0), (2, 0)]
    clicks = data.with_first_events().with_targets(["click"], "here")
    assert [row[:2] for row in with_users(clicks, newest_events(clicks, seed=0, epoch=1), 9)] == [
        (0, 1),
        (1, 9),
        (2, 7),
    ]
    early = TrainingData(data.catalogue, data._histories, no_target_after=(3, 0)).with_first_events()
    assert {row[1] for row in with_users(early, newest_events(early, seed=0, epoch=1), 9)} == {0}


def test_the_first_events_action_and_time_belong_to_its_target(data):
    """Also where the event may not be a target; 0 where the window does not reach it, and where nothing predicts it."""
    exposures = data.with_targets(["exposure"], "here").with_first_events()
    examples = consecutive_windows(exposures, 3, seed=0, epoch=1)
    (batch,) = training_batches(exposures, examples, history_length=3, batch_size=9, workers=0)
    rows = zip(*(column.tolist() for column in (batch.users, batch.user_next_actions, batch.user_times)), strict=True)
    assert sorted(rows) == sorted([(0, 0, 0), (0, 3, 1), (1, 3, 1), (2, 3, 1)] + [(0, 0, 0)] * 5)
    examples = consecutive_windows(data, 3, seed=0, epoch=1)
    (batch,) = training_batches(data, examples, history_length=3, batch_size=9, workers=0)
    assert not torch.stack([batch.user_targets, batch.user_next_actions, batch.user_times]).any()


def test_a_world_without_pairs_has_no_example(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 1)], [(2, 0, 1)]])
    for examples in (newest_events(data, seed=0, epoch=1), consecutive_windows(data, 3, seed=0, epoch=1)):
        assert (len(examples), examples.num_batches(4)) == (0, 0)
    assert len(all_prefixes(data, seed=0, epoch=1)) == 0
    assert len(newest_events(data.with_first_events(), seed=0, epoch=1)) == 2


def test_epochs_differ_in_order_alone(data):
    for make in (newest_events, all_prefixes, lambda *given, **named: consecutive_windows(*given, 2, **named)):
        first, same, second = (make(data, seed=0, epoch=epoch) for epoch in (1, 1, 2))
        assert np.array_equal(first.rows, same.rows)
        assert np.array_equal(first.stops, same.stops)
        assert sorted(zip(first.rows, first.stops, strict=True)) == sorted(zip(second.rows, second.stops, strict=True))
    orders = {tuple(all_prefixes(data, seed=seed, epoch=1).stops) for seed in range(8)}
    assert len(orders) > 1


def test_a_later_batch_is_where_an_epoch_goes_on(data):
    examples = all_prefixes(data, seed=0, epoch=1)
    options = {"history_length": 3, "batch_size": 2}
    whole = list(training_batches(data, examples, workers=0, **options))
    for first in range(len(whole) + 1):
        rest = list(training_batches(data, examples, first=first, workers=2, **options))
        assert [batch.targets.tolist() for batch in rest] == [batch.targets.tolist() for batch in whole[first:]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=5), length=st.integers(1, 6))
def test_each_event_but_the_first_is_a_target_once(tmp_path_factory, lengths, length):
    histories = [[(1 + event, 0, event) for event in range(events)] for events in lengths]
    data = training_data(tmp_path_factory.mktemp("world"), histories, num_items=14)
    everyone = [(user, 1 + event) for user, events in enumerate(lengths) for event in range(1, events)]
    for examples in (consecutive_windows(data, length, seed=1, epoch=1), all_prefixes(data, seed=1, epoch=1)):
        rows = rows_of(data, examples, length)
        assert sorted((user, target) for user, _, targets in rows for target in targets if target) == everyone
        for _, items, targets in rows:  # the event before a target is the newest that its position has read
            assert all(target in (0, item + 1) for item, target in zip(items, targets, strict=True))
            assert items == list(range(items[0], items[0] + len(items)))
    data = data.with_first_events()  # then each event is one, the first of the user's token
    for examples in (consecutive_windows(data, length, seed=1, epoch=1), all_prefixes(data, seed=1, epoch=1)):
        rows = with_users(data, examples, length)
        learnt = [(user, target) for user, first, _, targets in rows for target in (first, *targets) if target]
        assert sorted(learnt) == [(user, 1 + event) for user, events in enumerate(lengths) for event in range(events)]
        assert all(first in (0, 1) and (not first or items[:1] in ([], [1])) for _, first, items, _ in rows)
