"""Time features against hand-worked answers, and that no event is told of a later one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import training_data

from grbench.errors import SuiteError
from grbench.types import Batch
from grbench_reference.features.time_features import DAY, DAYS_APART, GAP_BUCKETS, HOUR, PERIODS, PLACES, TimeFeatures

ALL = ["hour", "weekday", "day", "gap", "request", "session", "cross_day", "fourier"]
# 2025-06-02, a Monday, 00:00 UTC
MONDAY = 1_748_822_400


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training events on Monday and on Thursday of one week."""
    return training_data(tmp_path_factory.mktemp("week"), [[(1, 0, MONDAY + 5), (2, 0, MONDAY + 3 * DAY + 7)]])


def bucketed(data, names, *rows):
    """Rows of times, left-padded, one item each -> [B, T, C] as lists."""
    batch = batch_at(*rows)
    return TimeFeatures(data, names, 4).bucketed(batch.times, batch.items)


def batch_at(*rows) -> Batch:
    length = max(map(len, rows))
    times = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows])
    items = (times > 0).long()
    return Batch(torch.arange(len(rows)), items, items * 2, times, items, items * 2, *(items[:, 0] * 0,) * 3)


def columns(data, names, row):
    return bucketed(data, names, row)[0].T.tolist()


def test_dates(data):
    row = [MONDAY - DAY, MONDAY, MONDAY + HOUR - 1, MONDAY + HOUR, MONDAY + 3 * DAY, MONDAY + 6 * DAY - 1]
    hours, weekdays, days = columns(data, ["hour", "weekday", "day"], row)
    assert hours == [0, 0, 0, 1, 0, 23]
    assert weekdays == [6, 0, 0, 0, 3, 5]
    assert days == [0, 0, 0, 0, 3, 3], "before the first training day and after the last: those days"


def test_gaps_are_doublings_and_the_first_event_has_none(data):
    seconds = [0, 0, 1, 2, 3, 4, 7, 8, 2**20, 2**40]
    row = [MONDAY + sum(seconds[: place + 1]) for place in range(len(seconds))]
    assert columns(data, ["gap"], row) == [[0, 1, 2, 3, 3, 4, 4, 5, 22, GAP_BUCKETS]]


def test_a_request_is_events_of_one_time(data):
    row = [MONDAY, MONDAY, MONDAY, MONDAY + 1, MONDAY + 2, MONDAY + 2]
    assert columns(data, ["request"], row) == [[0, 1, 2, 0, 0, 1]]


def test_a_session_ends_after_half_an_hour(data):
    row = [MONDAY, MONDAY + 1800, MONDAY + 3601, MONDAY + 3601, MONDAY + 9000]
    numbers, places = columns(data, ["session"], row)
    assert numbers == [0, 0, 1, 1, 2]
    assert places == [0, 1, 0, 1, 0]


def test_days_since_the_last_active_one_hold_all_day(data):
    row = [MONDAY, MONDAY + 1, MONDAY + DAY, MONDAY + DAY + 9, MONDAY + 4 * DAY, MONDAY + 200 * DAY]
    apart, numbers = columns(data, ["cross_day"], row)
    assert apart == [0, 0, 1, 1, 3, DAYS_APART - 1]
    assert numbers == [0, 0, 1, 1, 2, 3]


def test_long_histories_stay_within_the_tables(data):
    row = [MONDAY] * (PLACES + 5)
    assert columns(data, ["request"], row)[0][-6:] == [PLACES - 1] * 6
    long = [MONDAY + place * DAY for place in range(PLACES + 5)]
    assert columns(data, ["session"], long)[0][-1] == PLACES - 1
    TimeFeatures(data, ALL, 4)(batch_at(row, long), torch.arange(2 * len(row)))


def test_padding_is_no_event(data):
    """A row reads the same whatever stands before it, and tokens that are no event are zero."""
    row = [MONDAY, MONDAY + 60, MONDAY + 2 * DAY]
    longer = bucketed(data, ALL[:-1], row, [*row, *row])
    assert torch.equal(longer[0, 3:], bucketed(data, ALL[:-1], row)[0])
    features = TimeFeatures(data, ALL, 4)
    vectors = features(batch_at(row), torch.tensor([-1, 2, 0]))
    assert (vectors[0] == 0).all()
    torch.testing.assert_close(vectors[1:], features(batch_at(row), torch.tensor([2, 0])))


def test_a_vector_is_the_sum_of_its_buckets_rows(data):
    features = TimeFeatures(data, ["weekday", "hour"], 4)
    table = features.buckets.table.weight
    vector = features(batch_at([MONDAY + HOUR]), torch.tensor([0]))[0]
    torch.testing.assert_close(vector, table[1 + 1 + 0] + table[1 + 8 + 1 + 1])


def test_fourier_terms_repeat_with_their_periods(data):
    features = TimeFeatures(data, ["fourier"], 2 * len(PERIODS))
    with torch.no_grad():
        features.waves.weight.copy_(torch.eye(2 * len(PERIODS)))
    shifted = features(batch_at([MONDAY, MONDAY + HOUR // 4]), torch.arange(2))
    day = PERIODS.index(DAY)
    torch.testing.assert_close(shifted[0, day], torch.tensor(0.0), atol=1e-4, rtol=0)  # midnight
    torch.testing.assert_close(shifted[0, len(PERIODS) + day], torch.tensor(1.0))
    turns = torch.tensor([(MONDAY + HOUR // 4) % period / period for period in PERIODS], dtype=torch.float64)
    expected = torch.cat([(turns * 2 * torch.pi).sin(), (turns * 2 * torch.pi).cos()]).float()
    torch.testing.assert_close(shifted[1], expected, atol=1e-5, rtol=0)
    assert shifted[1, 0].item() == pytest.approx(1.0), "a quarter of an hour"


def test_hidden_buckets_have_a_learnt_row(data):
    features = TimeFeatures(data, ALL, 4, dropout=0.9999999).train()
    assert (features(batch_at([MONDAY, MONDAY + 1]), torch.arange(2)) == 0).all(), "untaught, what is hidden is silent"
    features(batch_at([MONDAY, MONDAY + 1]), torch.tensor([0, 1, -1])).sum().backward()
    assert (features.buckets.table.weight.grad[features.buckets.hidden] == 2).all()
    assert features.buckets.table.weight.grad.sum() == 2 * 4 * len(features.buckets.hidden)
    assert features.no_waves.grad.tolist() == [2.0] * 4
    assert features.eval()(batch_at([MONDAY]), torch.arange(1)).abs().sum() > 0


def test_a_dataset_without_times_says_so(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 0), (2, 0, 0)]], has_times=False)
    with pytest.raises(SuiteError, match=r"encoder.time_features: this dataset has no times"):
        TimeFeatures(data, ["hour"], 4)


moments = st.lists(st.integers(0, 40 * DAY) | st.integers(0, 3 * HOUR), min_size=1, max_size=8)


@given(earlier=moments, later=moments, others=moments)
def test_no_event_depends_on_a_later_one(data, earlier, later, others):
    """Whatever follows, what is said of an event is the same."""
    earlier = sorted(MONDAY + moment for moment in earlier)
    features = TimeFeatures(data, ALL, 4).eval()

    def said(following):
        row = [*earlier, *sorted(earlier[-1] + moment for moment in following)]
        batch = batch_at(row)
        return features.bucketed(batch.times, batch.items)[0], features(batch, torch.arange(len(row)))

    for one, other in zip(said(later), said(others), strict=True):
        torch.testing.assert_close(one[: len(earlier)], other[: len(earlier)], rtol=0, atol=0)
