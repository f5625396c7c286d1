"""The same events with other targets."""

import numpy as np
import pytest

from grbench.data.batches import training_batches
from grbench.data.examples import newest_events
from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData
from grbench.errors import DataError
from grbench.testing import tiny_store

EXPOSURE, CLICK, CONVERSION = 0, 1, 2


@pytest.fixture
def data(tmp_path):
    histories = [[(1, EXPOSURE, 1), (2, CLICK, 2), (3, EXPOSURE, 3)], [(4, CLICK, 1), (5, None, 2)]]
    store = tiny_store(tmp_path, histories, actions=("exposure", "click", "conversion"))
    return TrainingData(store.catalogue, Histories(store, np.arange(2), store.offsets[:-1], store.offsets[1:]))


def targets(data):
    examples = newest_events(data, seed=0, epoch=1)
    (batch,) = training_batches(data, examples, history_length=2, batch_size=2, workers=0)
    rows = batch.users.argsort()
    return batch.targets[rows].tolist()


def test_only_events_of_the_named_actions_are_learnt(data):
    assert targets(data) == [[2, 3], [0, 5]]
    assert targets(data.with_targets(["click"], "here")) == [[2, 0], [0, 0]]
    assert targets(data.with_targets(["exposure", "click"], "here")) == [[2, 3], [0, 0]]
    assert targets(data) == [[2, 3], [0, 5]]


def test_what_is_counted_is_counted_once(data):
    clicks = data.with_targets(["click"], "here")
    assert clicks.item_counts() is data.item_counts()
    assert data.item_counts(["click"]) is clicks.item_counts(["click"])
    assert (clicks.num_events, clicks.users.tolist()) == (data.num_events, [0, 1])


def test_an_action_that_is_not_there_is_named(data):
    with pytest.raises(DataError, match=r"here: no action 'clicks' in this dataset; it has exp"):
        data.with_targets(["clicks"], "here")
    with pytest.raises(DataError, match=r"here: no training event is a conversion, so there is nothing to learn"):
        data.with_targets(["conversion"], "here")
