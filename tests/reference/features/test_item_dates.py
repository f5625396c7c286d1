"""Dates of items against hand-worked and naive ones, and that nothing held out is read."""

import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import away_from_the_start, made_with, training_data

from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.testing import tiny_store
from grbench.types import FIRST_VALUE, MISSING, PADDING
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.encoders.gnn import GNN
from grbench_reference.encoders.hstu import HSTU
from grbench_reference.encoders.sid_decoder import SIDDecoder
from grbench_reference.features.item_dates import ItemDates, item_days
from grbench_reference.protocols.last_positive import LastPositive
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.tokenizers.ids import Ids


def at(*date):
    """Seconds of a moment in UTC."""
    return int(datetime.datetime(*date, tzinfo=datetime.UTC).timestamp())


def dates(data):
    """The six values of each item, years as such; None where missing."""
    part = ItemDates(data, data.item_counts() > 0, width=2)
    days = item_days(data)
    trained = np.flatnonzero(data.item_counts())
    first_year = days.first[trained].astype("datetime64[D]").astype("datetime64[Y]").astype(int).min() + 1970
    said = []
    for row in part.codes.tolist()[1:]:
        if set(row) == {MISSING}:
            said.append(None)
        else:
            year, month, day, last_year, last_month, last_day = (code - FIRST_VALUE for code in row)
            said.append((first_year + year, month + 1, day + 1, first_year + last_year, last_month + 1, last_day + 1))
    assert part.codes[0].tolist() == [PADDING] * 6
    return said


def test_days_of_utc(tmp_path):
    """Item 1 from the last second of a year to a leap day; item 2 once; item 3 never."""
    data = training_data(
        tmp_path,
        [
            [(1, 0, at(2023, 12, 31, 23, 59, 59)), (2, 0, at(2024, 2, 29))],
            [(1, 1, at(2024, 2, 29, 12)), (1, 0, at(2024, 1, 1))],
        ],
        num_items=3,
    )
    assert dates(data) == [(2023, 12, 31, 2024, 2, 29), (2024, 2, 29, 2024, 2, 29), None]


def test_each_field_has_its_own_rows_and_a_missing_date_none_that_speaks(tmp_path):
    data = training_data(tmp_path, [[(1, 0, at(2024, 3, 3)), (2, 0, at(2025, 3, 3))]], num_items=3)
    part = ItemDates(data, data.item_counts() > 0, width=2).eval()
    rows = part.rows(torch.arange(4))
    assert len(set(rows[1].tolist())) == 6  # year, month and day of the first and the last day: all different fields
    assert [(rows[1, column] == rows[2, column]).item() for column in range(6)] == [False, True, True] * 2
    assert (part(torch.tensor([0, 3])) == 0).all()
    assert (part(torch.tensor([1])) != 0).all()
    assert set(rows[3].tolist()).isdisjoint(rows[1:3].flatten().tolist())


def test_a_dataset_without_times_says_so(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 0), (2, 0, 0)]], has_times=False)
    with pytest.raises(SuiteError, match=r"encoder.item_dates: this dataset has no times"):
        item_days(data)


def test_no_event_at_all(tmp_path):
    store = tiny_store(tmp_path, [[(1, 0, at(2024, 1, 1))]])
    nobody = np.zeros(0, np.int64)
    data = TrainingData(store.catalogue, Histories(store, nobody, nobody, nobody))
    assert ItemDates(data, data.item_counts() > 0, width=2).codes[1:].tolist() == [[MISSING] * 6]


def test_read_once_for_a_split(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 5)]])
    assert item_days(data) is item_days(data)


events = st.lists(st.tuples(st.integers(1, 4), st.integers(-(10**9), 4 * 10**9)), min_size=1, max_size=20)


@settings(deadline=None, max_examples=40)
@given(seen=events)
def test_equals_datetime(seen):
    expected = []
    for item in range(1, 5):
        times = [time for one, time in seen if one == item]
        moments = (
            [datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (min(times), max(times))] if times else []
        )
        expected.append(tuple(part for each in moments for part in (each.year, each.month, each.day)) or None)
    with TemporaryDirectory() as folder:
        half = len(seen) // 2
        data = training_data(
            Path(folder), [[(item, 0, time) for item, time in some] for some in (seen[:half], seen[half:])], num_items=4
        )
        assert dates(data) == expected


PROTOCOLS = [
    LastPositive(evaluation_share=0.5, pool="catalogue"),
    LastPositive(evaluation_share=0.5, pool="catalogue", train_on_evaluation_history=True),
    LeaveLastOut(),
]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=["last_positive", "with_history", "leave_last_out"])
def test_held_out_events_change_nothing(tmp_path, protocol):
    """Whatever the held-out events are, of an item that training knows or not, before or after all others."""

    def world(name, evaluated, item, time):
        """A click and an exposure end each history: those of `evaluated` users are of this item, at this time."""
        store = tiny_store(
            tmp_path / name,
            [
                [(1 + (user + place) % 5, 0, at(2024, 1 + user, 1 + place)) for place in range(4)]
                + [(item, 1, time), (item, 0, time)] * (user in evaluated)
                + [(1, 1, at(2023, 5, 5)), (1, 0, at(2025, 5, 5))] * (user not in evaluated)
                for user in range(6)
            ],
            num_items=6,
        )
        return protocol.split(store)

    split = world("before", (), 1, 0)
    evaluated = set(split.test.users.tolist())
    said = dates(split.training)
    assert said[5] is None
    for name, item, time in (("late", 1, at(2031, 7, 7)), ("early", 1, at(1999, 9, 9)), ("new", 6, at(2024, 1, 1))):
        assert dates(world(name, evaluated, item, time).training) == said


@pytest.mark.parametrize("encoder", [CausalTransformer, HSTU, GNN, SIDDecoder])
def test_every_encoder_that_takes_item_features_takes_dates(tmp_path, encoder):
    data = training_data(tmp_path, [[(1, 0, at(2024, 1, 1))], [(2, 0, at(2024, 2, 3))]])
    codes = Ids().fit(data)
    made = away_from_the_start(made_with(encoder, data, codes, width=8, heads=2, history_length=4, item_dates=True))
    (part,) = (module for module in made.modules() if isinstance(module, ItemDates))
    before = made.embed_items(torch.tensor([1, 2]))
    with torch.no_grad():
        part.table.weight[part.rows(torch.tensor([2]))[0, 1]] += 1  # February
    after = made.embed_items(torch.tensor([1, 2]))
    torch.testing.assert_close(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-3
