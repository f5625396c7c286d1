"""Histories that are other ones after a place, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from worlds import training_data

from grbench.audit.later_events import later_events

# One user, four events; three are the history, the fourth is the target of the third.
HISTORY = [(1, 0, 10), (2, 1, 20), (3, 0, 30), (4, 1, 40)]


def test_each_number_of_kept_events_is_a_row(tmp_path: Path) -> None:
    events = later_events(training_data(tmp_path, [HISTORY], num_items=9).with_first_events(), 3)
    assert events.kept.tolist() == [0, 1, 2]
    assert events.number.tolist() == [[1, 2, 3]] * 3
    assert events.batch.items.tolist() == [[1, 2, 3]] * 3
    assert events.batch.targets.tolist() == [[2, 3, 4]] * 3
    assert events.unchanged.tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    # Of the user's token and the three events: the targets are events 1 to 4.
    assert events.taught.tolist() == [[False] * 4, [True] + [False] * 3, [True, True, False, False]]
    assert events.first_changed.tolist() == [
        [True] + [False] * 3,
        [False, True, False, False],
        [False] * 2 + [True, False],
    ]


def test_what_comes_after_the_kept_events_is_changed_and_nothing_else(tmp_path: Path) -> None:
    events = later_events(training_data(tmp_path, [HISTORY], num_items=9).with_first_events(), 3)
    before, after, kept = events.batch, events.changed, events.unchanged
    for name in ("items", "actions", "times"):
        assert torch.equal(getattr(before, name) == getattr(after, name), kept), name
    assert (after.times[:, 1:] >= after.times[:, :-1]).all()
    # A target is the item of the event that follows.
    assert torch.equal(after.targets[:, :-1], after.items[:, 1:])
    assert torch.equal(before.targets == after.targets, events.taught[:, 1:])
    # The next action of the newest event that is kept stays, as do those before.
    assert torch.equal(before.next_actions == after.next_actions, kept)
    assert torch.equal(before.user_targets == after.user_targets, torch.tensor([False, True, True]))
    assert torch.equal(before.user_times == after.user_times, torch.tensor([False, True, True]))
    assert torch.equal(after.user_targets[0], after.items[0, 0])
    assert torch.equal(before.user_next_actions, after.user_next_actions)


def test_shortened_histories_end_with_the_newest_kept_event(tmp_path: Path) -> None:
    short = later_events(training_data(tmp_path, [HISTORY], num_items=9), 3).shortened()
    assert short.items.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2]]
    assert short.times.tolist() == [[0, 0, 0], [0, 0, 10], [0, 10, 20]]
    assert short.targets.tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 3]]
