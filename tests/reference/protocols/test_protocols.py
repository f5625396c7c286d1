"""The splits, worked out by hand, and the promise that no test row reaches training."""

from dataclasses import replace

import numpy as np
import pytest

from grbench.data.batches import query_batches, training_batches
from grbench.data.examples import newest_events
from grbench.errors import DataError, SuiteError
from grbench.registry.options import bind
from grbench.testing import tiny_store
from grbench_reference.protocols import last_positive
from grbench_reference.protocols.last_positive import LastPositive, ascending
from grbench_reference.protocols.leave_last_out import LeaveLastOut

E, C = 0, 1  # exposure, click


def history(*events):
    return [(item, action, 100 + at) for at, (item, action) in enumerate(events)]


def clickers(users=40, items=30):
    """Users of six events, a click at the fourth and a later exposure."""
    rng = np.random.default_rng(0)
    return [
        history(*[(int(item), C if at == 3 else E) for at, item in enumerate(rng.integers(1, items + 1, 6))])
        for _ in range(users)
    ]


def test_target_is_last_click_and_history_ends_strictly_before_it(tmp_path):
    world = clickers()
    split = LastPositive(pool="catalogue").split(tiny_store(tmp_path, world, num_items=30))
    assert len(split.test) == split.counts["evaluated"] == 4
    for query, user in enumerate(split.test.users):
        assert split.test.targets[query, 0] == world[user][3][0]
        assert split.test.histories.items_of(np.array([query]))[0].tolist() == [item for item, _, _ in world[user][:3]]
    assert split.test.target_actions.tolist() == [[C + 2]] * 4


def test_user_split_is_torchs_random_split(tmp_path):
    import torch

    split = LastPositive(pool="catalogue", seed=2025).split(tiny_store(tmp_path, clickers(1005), num_items=30))
    parts = torch.utils.data.random_split(range(1005), [0.9, 0.1], generator=torch.Generator().manual_seed(2025))
    assert split.test.users.tolist() == sorted(parts[1])
    assert split.training.users.tolist() == sorted(parts[0])


@pytest.mark.parametrize("as_text", [False, True])
def test_the_order_of_the_files_does_not_decide_who_is_evaluated(tmp_path, as_text):
    """A store whose users came in another order evaluates the same ids; text that is a number counts by its value."""
    world, shuffled = clickers(205), np.random.default_rng(7).permutation(205)

    def evaluated(order):
        store = tiny_store(tmp_path / str(order[0]), [world[user] for user in order], num_items=30)
        ids = np.asarray(order) + 95  # 95 to 299: as text, 100 comes before 95
        if as_text:  # as a store holds text
            ids = ids.astype(np.dtypes.StringDType())
        store = replace(store, catalogue=replace(store.catalogue, user_ids=ids))
        split = LastPositive(pool="catalogue").split(store)
        assert (np.diff(split.test.users) > 0).all()
        assert (np.diff(split.training.users) > 0).all()
        return sorted(int(each) for each in store.catalogue.user_ids[split.test.users])

    assert evaluated(np.arange(205)) == evaluated(shuffled)


@pytest.mark.parametrize(
    ("ids", "order"),
    [
        (["b10", "b9", "a"], [2, 0, 1]),
        (["010", "9", "100"], [1, 0, 2]),
        (["100000000000000000000", "9223372036854775808", "9", "0"], [3, 2, 1, 0]),  # two beyond 64 bits
        (["10", "9", "x"], [0, 1, 2]),
    ],
)
def test_text_is_ordered_by_value_where_all_of_it_is_digits(ids, order):
    assert ascending(np.array(ids, np.dtypes.StringDType())).tolist() == order


def test_counts_that_differ_from_the_published_ones_are_said_where_the_data_is_the_release(tmp_path, monkeypatch):
    world = clickers(40)
    store = tiny_store(tmp_path, world, num_items=30, candidates=range(1, 31))
    assert LastPositive().split(store).remarks == ()  # other data
    monkeypatch.setattr(last_positive, "PUBLISHED_USERS", 40)
    monkeypatch.setattr(last_positive, "PUBLISHED_CANDIDATES", 30)
    counts = {"evaluation_users": 4, "dropped_no_positive": 0, "dropped_out_of_pool": 0, "evaluated": 4}
    monkeypatch.setattr(last_positive, "PUBLISHED_COUNTS", counts)
    assert LastPositive().split(store).remarks == ()  # the same counts
    monkeypatch.setattr(last_positive, "PUBLISHED_COUNTS", {**counts, "evaluated": 3})
    (remark,) = LastPositive().split(store).remarks
    assert remark.endswith("evaluated 4 (published: 3)")
    assert LastPositive(seed=1).split(store).remarks == ()  # another protocol


def test_dropped_users_are_counted_by_reason(tmp_path):
    world = [history((1, E), (2, E)), history((1, E), (2, C)), history((1, E), (3, C)), history((2, C), (1, E))] * 10
    split = LastPositive(evaluation_share=0.5).split(tiny_store(tmp_path, world, candidates=[1, 2]))
    kinds = np.setdiff1d(np.arange(40), split.training.users) % 4
    assert split.counts == {
        "evaluation_users": 20,
        "dropped_no_positive": int((kinds == 0).sum()),
        "dropped_out_of_pool": int((kinds == 2).sum()),
        "evaluated": int(np.isin(kinds, [1, 3]).sum()),
        "evaluated_without_history": int((kinds == 3).sum()),
    }
    added = LastPositive(evaluation_share=0.5, out_of_pool="add").split(tiny_store(tmp_path, world, candidates=[1, 2]))
    assert added.candidates.tolist() == [1, 2, 3]
    assert added.counts["dropped_out_of_pool"] == 0
    assert added.pool_digest != split.pool_digest


def test_leave_last_out_by_hand(tmp_path):
    world = [history((1, E), (2, E), (3, E), (4, E)), history((2, E), (1, E)), history((4, E), (4, E), (1, E))]
    split = LeaveLastOut().split(tiny_store(tmp_path, world))
    assert split.test.users.tolist() == [0, 2]
    assert split.test.targets.tolist() == [[4], [1]]
    assert split.validation is not None
    assert split.validation.targets.tolist() == [[3], [4]]
    assert split.test.histories.items_of(np.array([0])).tolist() == [[1, 2, 3]]
    assert split.training.item_counts().tolist() == [0, 2, 2, 0, 1]
    assert split.counts["dropped_too_few_events"] == 1


def test_exposures_after_a_date_and_non_positives_are_no_targets(tmp_path):
    world = [history((1, E), (2, C), (3, E), (4, C), (5, E))] * 20
    store = tiny_store(tmp_path, world)

    def targets(**options):
        data = LastPositive(pool="catalogue", **options).split(store).training
        batches = training_batches(data, newest_events(data, seed=0, epoch=0), history_length=4, batch_size=18)
        return next(iter(batches)).targets[0].tolist()

    assert targets() == [2, 3, 4, 5]
    assert targets(targets="positives") == [2, 0, 4, 0]
    assert targets(exposures_until=102) == [2, 3, 4, 0]


@pytest.mark.parametrize("earlier", [False, True])
def test_no_test_row_reaches_training(tmp_path, earlier):
    """Poison every event from the held-out one on: nothing that training can see may change."""
    world = clickers()
    protocol = LastPositive(pool="catalogue", train_on_evaluation_history=earlier)
    clean = protocol.split(tiny_store(tmp_path, world, num_items=30))
    held_out = set(clean.test.users.tolist())
    poisoned_world = [
        events[:3] + [(30 - at, action, 999) for at, (_, action, _) in enumerate(events[3:])]
        if user in held_out
        else events
        for user, events in enumerate(world)
    ]
    poisoned = protocol.split(tiny_store(tmp_path, poisoned_world, num_items=30))
    assert not np.array_equal(clean.test.targets, poisoned.test.targets)
    assert np.array_equal(clean.training.item_counts(), poisoned.training.item_counts())
    learnt = (
        training_batches(data, newest_events(data, seed=1, epoch=0), history_length=5, batch_size=8)
        for data in (clean.training, poisoned.training)
    )
    for ours, theirs in zip(*learnt, strict=True):
        assert all(bool((getattr(ours, name) == getattr(theirs, name)).all()) for name in ours.__dataclass_fields__)
    for (_, ours), (_, theirs) in zip(
        query_batches(clean.test, history_length=5, batch_size=3),
        query_batches(poisoned.test, history_length=5, batch_size=3),
        strict=True,
    ):
        assert all(bool((getattr(ours, name) == getattr(theirs, name)).all()) for name in ours.__dataclass_fields__)


def test_evaluation_history_is_learnt_only_when_asked(tmp_path):
    store = tiny_store(tmp_path, clickers(), num_items=30)
    without = LastPositive(pool="catalogue").split(store).training
    with_it = LastPositive(pool="catalogue", train_on_evaluation_history=True).split(store).training
    assert without.num_events == 36 * 6
    assert with_it.num_events == 36 * 6 + 4 * 3


def test_validation_users_are_neither_trained_on_nor_tested(tmp_path):
    split = LastPositive(pool="catalogue", validation_share=0.2).split(tiny_store(tmp_path, clickers(), num_items=30))
    assert split.validation is not None
    groups = [set(split.training.users), set(split.validation.users), set(split.test.users)]
    assert [len(group) for group in groups] == [28, 8, 4]
    assert len(set.union(*groups)) == 40


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (LastPositive(), "no candidate pool"),
        (LastPositive(pool="catalogue", positives=["conversion"]), "no action 'conversion'"),
        (LastPositive(pool="catalogue", positives=["click"], evaluation_share=0.01), "leaves"),
        (LeaveLastOut(min_events=50), "leaves no user to evaluate"),
    ],
)
def test_a_protocol_that_cannot_be_says_why(tmp_path, protocol, message):
    with pytest.raises(DataError, match=message):
        protocol.split(tiny_store(tmp_path, clickers(), num_items=30))


def test_users_without_a_positive_leave_nobody(tmp_path):
    with pytest.raises(DataError, match="have no click event"):
        LastPositive(pool="catalogue").split(tiny_store(tmp_path, [history((1, E), (2, E))] * 20))


def test_no_positive_action_is_refused_before_data_is_read():
    with pytest.raises(SuiteError, match=r"protocol\.positives"):
        bind(LastPositive, {"positives": []}, "protocol")


def test_late_exposures_are_found_by_name_wherever_the_dataset_lists_them(tmp_path):
    """Actions in alphabetical order, as a log with text actions has them: click first."""
    world = [history((1, 1), (2, 0), (3, 1), (4, 0), (5, 1))] * 20
    store = tiny_store(tmp_path, world, actions=("click", "exposure"))
    data = LastPositive(pool="catalogue", exposures_until=101).split(store).training
    batches = training_batches(data, newest_events(data, seed=0, epoch=0), history_length=4, batch_size=18)
    assert next(iter(batches)).targets[0].tolist() == [2, 0, 4, 0]
