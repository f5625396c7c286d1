"""Events of a user with equal times are counted, whatever the blocks in which users are added."""

import numpy as np
import pytest

from grbench.data.ties import Ties, count_ties
from grbench.testing import tiny_store


def test_ties_are_those_of_one_user(tmp_path):
    """The second user's first event is as late as the first user's last: no tie. The last user's two events are one."""
    histories = [
        [(1, 0, 5), (2, 0, 7), (3, 0, 7), (1, 0, 7), (2, 0, 9)],
        [(1, 0, 9)],
        [],
        [(1, 0, 3), (2, 0, 3), (2, 0, 4)],
        [(1, 0, 4), (1, 0, 4)],
        [],
    ]
    assert tiny_store(tmp_path / "tied", histories).ties == Ties(events=7, users=3, latest=1, broken_by="file_order")
    assert tiny_store(tmp_path / "free", [[(1, 0, 3)], [(1, 0, 3)]]).ties == Ties(0, 0, 0, "file_order")
    assert tiny_store(tmp_path / "untimed", histories, has_times=False).ties is None


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    users = [np.sort(rng.integers(0, 6, length)).tolist() for length in rng.integers(0, 5, 20)]
    tied = [[times.count(time) > 1 for time in times] for times in users]
    times = np.concatenate([np.array(each, np.int64) for each in users])
    counted = count_ties(np.array([len(each) for each in users]), times[1:] == times[:-1])
    assert counted.tolist() == [sum(map(sum, tied)), sum(map(any, tied)), sum(each[-1] for each in tied if each)]
