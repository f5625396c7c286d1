"""Popularity before an event against hand-worked and naive counts, and that nothing later is counted."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import training_data

from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.testing import tiny_store
from grbench.types import Batch
from grbench_reference.features import popularity
from grbench_reference.features.popularity import PopularityFeature, event_days

DAY = 86_400
START = 20_000 * DAY


def at(day, second=0):
    return START + day * DAY + second


def counts(data, windows, *asked):
    """asked: (item, time) each."""
    items, times = (torch.tensor([column]) for column in zip(*asked, strict=True))
    return PopularityFeature(data, windows, 4).counts(times, items)[0].tolist()


@pytest.fixture
def data(tmp_path):
    """Item 1: twice on day 0, once on days 1 and 3; item 2: once on day 2; item 3 never."""
    return training_data(
        tmp_path,
        [[(1, 0, at(0)), (1, 1, at(0, 5)), (2, 0, at(2, 7))], [(1, 0, at(1, DAY - 1)), (1, 0, at(3))]],
        num_items=3,
    )


def test_whole_days_before_the_events_own(data):
    asked = [(1, at(0, 9)), (1, at(1)), (1, at(2)), (1, at(3, 9)), (1, at(4)), (1, at(100)), (2, at(3)), (3, at(3))]
    assert counts(data, [1, 3, 1000], *asked) == [
        [0, 0, 0],  # nothing of the day itself, not even what came before on it
        [2, 2, 2],
        [1, 3, 3],
        [0, 3, 3],
        [1, 2, 4],
        [0, 0, 4],
        [1, 1, 1],
        [0, 0, 0],
    ]
    assert counts(data, [2], (0, 0), (1, at(-5))) == [[0], [0]]


def test_buckets_are_doublings(tmp_path):
    many = [(1, 0, at(0))] * 9 + [(2, 0, at(0))] * 4 + [(3, 0, at(0))] * 3 + [(4, 0, at(0))]
    part = PopularityFeature(training_data(tmp_path, [many], num_items=5), [7], 4)
    items = torch.arange(1, 6).unsqueeze(0)
    assert part.bucketed(torch.full_like(items, at(1)), items)[0, :, 0].tolist() == [4, 3, 2, 1, 0]


def test_a_vector_is_the_sum_of_its_windows_rows(data):
    part = PopularityFeature(data, [1, 3], 4)
    table = part.buckets.table.weight
    batch = one_row((0, 0), (1, at(2)))
    buckets = part.bucketed(batch.times, batch.items)[0, 1].tolist()
    assert buckets == [1, 2]  # of the counts 1 and 3
    sizes = len(part.doublings) + 1
    vectors = part(batch, torch.tensor([1, -1]))
    torch.testing.assert_close(vectors[0], table[1 + 1 + 1] + table[1 + (sizes + 1) + 1 + 2])
    assert (vectors[1] == 0).all()


def test_hidden_buckets_have_a_learnt_row(data):
    part = PopularityFeature(data, [1, 3], 4, dropout=0.9999999).train()
    part(one_row((1, at(2))), torch.tensor([0])).sum().backward()
    assert part.buckets.table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == part.buckets.hidden.tolist()


def test_events_of_other_splits_are_not_counted(tmp_path):
    """The second user's events, and the first one's last, are held out."""
    store = tiny_store(tmp_path, [[(1, 0, at(0)), (1, 0, at(1))], [(1, 0, at(0))]])
    histories = Histories(store, np.array([0]), np.array([0]), np.array([1]))
    assert counts(TrainingData(store.catalogue, histories), [9], (1, at(5))) == [[1]]


def test_a_dataset_without_times_says_so(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 0), (2, 0, 0)]], has_times=False)
    with pytest.raises(SuiteError, match=r"encoder.popularity_windows: this dataset has no times"):
        PopularityFeature(data, [1], 4)


def test_no_event_at_all(tmp_path):
    store = tiny_store(tmp_path, [[(1, 0, at(0))]])
    nobody = np.zeros(0, np.int64)
    data = TrainingData(store.catalogue, Histories(store, nobody, nobody, nobody))
    assert counts(data, [1], (1, at(1))) == [[0]]


def test_counted_once_for_a_split(data):
    assert event_days(data) is event_days(data)


events = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12 * DAY)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=40)
@given(
    seen=events,
    asked=events,
    windows=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    at_once=st.integers(1, 40),
)
def test_equals_a_naive_count(seen, asked, windows, at_once):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(popularity, "EVENTS_AT_ONCE", at_once)
        data = world(folder, seen)
        expected = [
            [
                sum(item == wanted and day(time) - window <= day(when) < day(time) for item, when in seen)
                for window in windows
            ]
            for wanted, time in asked
        ]
        assert counts(data, windows, *((item, START + time) for item, time in asked)) == expected


@settings(deadline=None, max_examples=40)
@given(seen=events, asked=events, later=events)
def test_later_events_never_change_what_was_said(seen, asked, later):
    """Events on the day of an event or after it, whatever they are, leave its buckets as they were."""
    newest = max(time for _, time in seen + asked) // DAY * DAY
    more = seen + [(item, newest + time) for item, time in later]
    items, times = (torch.tensor([column]) for column in zip(*asked, strict=True))
    with TemporaryDirectory() as folder:
        said = [
            PopularityFeature(world(Path(folder) / name, history), [1, 7], 4).bucketed(times + START, items)
            for name, history in (("before", seen), ("after", more))
        ]
    assert torch.equal(*said)


def world(folder, seen):
    history = [(item, 0, START + time) for item, time in sorted(seen, key=lambda event: event[1])]
    half = len(history) // 2
    return training_data(Path(folder), [row for row in (history[:half], history[half:]) if row], num_items=4)


def day(time):
    return time // DAY


def one_row(*asked) -> Batch:
    items, times = (torch.tensor([column]) for column in zip(*asked, strict=True))
    return Batch(
        torch.zeros(1, dtype=torch.long), items, items * 0 + 2, times, items * 0, items * 0 + 2, *(items[:, 0] * 0,) * 3
    )
