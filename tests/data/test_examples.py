"""What an epoch trains on, by hand and against a loop over each user's events."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import training_data

from grbench.data.batches import training_batches
from grbench.data.examples import all_prefixes, consecutive_windows, newest_events

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


def test_a_world_without_pairs_has_no_example(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 1)], [(2, 0, 1)]])
    for examples in (newest_events(data, seed=0, epoch=1), consecutive_windows(data, 3, seed=0, epoch=1)):
        assert (len(examples), examples.num_batches(4)) == (0, 0)
    assert len(all_prefixes(data, seed=0, epoch=1)) == 0


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
