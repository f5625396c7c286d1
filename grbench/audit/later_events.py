"""Histories whose events after a place are other ones.

Shapes: B users, T history length, R rows: one for each user and number of events that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from grbench.data.batches import training_batches
from grbench.data.examples import Examples
from grbench.data.training_data import TrainingData
from grbench.types import FIRST_ACTION, Batch

USERS, LENGTH = 8, 12
"""The longest histories, cut to so many events."""
SECONDS_LATER = 3 * 86_400 + 5_003
"""By which each of the later events is put off, more than the one before it: another hour and another day."""


@dataclass(frozen=True)
class LaterEvents:
    """Each history once for every number of its events that are kept.

    batch: [R, T]; changed: the same where all events after the first `kept` [R] of a row have other items, actions and
    times, and so have the targets and next actions that are among these; but not the next action of the newest kept
    event. number: [R, T], of each event, 1 = the first of its row, 0 = padding.
    """

    batch: Batch
    changed: Batch
    kept: Tensor
    number: Tensor

    @property
    def unchanged(self) -> Tensor:
        """[R, T] bool, the events that are kept, whose states must not change."""
        return (self.number > 0) & (self.number <= self.kept.unsqueeze(1))

    @property
    def taught(self) -> Tensor:
        """[R, T + 1] bool, of the user's token and of each event, whether its target is kept."""
        followed = (self.number > 0) & (self.number < self.kept.unsqueeze(1))
        return torch.cat([(self.kept > 0).unsqueeze(1), followed], 1)

    @property
    def first_changed(self) -> Tensor:
        """[R, T + 1] bool, of the user's token and of each event, whether its target is the first that changes."""
        newest = (self.number > 0) & (self.number == self.kept.unsqueeze(1))
        return torch.cat([(self.kept == 0).unsqueeze(1), newest], 1)

    def with_other_next_actions(self, actions: int) -> Batch:
        """The histories with other next actions, of events and of the user's token, and nothing else. actions: how many
        the dataset has."""
        return replace(
            self.batch,
            next_actions=_other_actions(self.batch.next_actions, actions),
            user_next_actions=_other_actions(self.batch.user_next_actions, actions),
        )

    def shortened(self) -> Batch:
        """Only the kept events of each row, the newest in the last column."""
        length = self.number.shape[1]
        source = torch.arange(length) - (self.number[:, -1] - self.kept).unsqueeze(1)
        inside = source >= 0

        def moved(column: Tensor) -> Tensor:
            return column.gather(1, source.clamp(min=0)) * inside

        names = ("items", "actions", "times", "targets", "next_actions")
        return replace(self.batch, **{name: moved(getattr(self.batch, name)) for name in names})


def later_events(data: TrainingData, history_length: int) -> LaterEvents:
    """Of the users with the longest histories. data: as the encoder is trained on it."""
    length = min(history_length, LENGTH)
    users = data.trainable[data.lengths[data.trainable].argsort(kind="stable")[::-1][:USERS]].copy()
    examples = Examples(users, data.lengths[users].clip(max=length + 1))
    few = next(training_batches(data, examples, history_length=length, batch_size=len(users), workers=0))
    numbers = (few.items > 0).cumsum(1)
    lengths = numbers[:, -1]
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    kept = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]
    batch = Batch(**{name: getattr(few, name)[row] for name in Batch.__dataclass_fields__})
    number = numbers[row] * (batch.items > 0)
    return LaterEvents(batch, _changed(batch, kept, number, data), kept, number)


def _changed(batch: Batch, kept: Tensor, number: Tensor, data: TrainingData) -> Batch:
    catalogue, generator = data.catalogue, torch.Generator().manual_seed(0)
    bound = kept.unsqueeze(1)
    later = number > bound
    shift = torch.randint(1, max(catalogue.num_items, 2), batch.items.shape, generator=generator)

    def other_items(items: Tensor, by: Tensor) -> Tensor:
        return (items - 1 + by) % catalogue.num_items + 1

    items = torch.where(later, other_items(batch.items, shift), batch.items)
    actions = torch.where(later, _other_actions(batch.actions, len(catalogue.actions)), batch.actions)
    put_off = (number - bound) * SECONDS_LATER if catalogue.has_times else torch.zeros_like(batch.times)
    times = torch.where(later, batch.times + put_off, batch.times)
    # A target is the next event's item; the newest event's is an event that the batch does not hold.
    following = pad(items[:, 1:], (0, 1))
    following[:, -1] = other_items(batch.targets[:, -1], shift[:, -1])
    has_other = (number >= bound) & (number > 0) & (batch.targets > 0)
    other_next = (number > bound) & (number > 0)
    all_gone, first = kept == 0, (number == 1).int().argmax(1, keepdim=True)
    return replace(
        batch,
        items=items,
        actions=actions,
        times=times,
        targets=torch.where(has_other, following, batch.targets),
        next_actions=torch.where(
            other_next, _other_actions(batch.next_actions, len(catalogue.actions)), batch.next_actions
        ),
        user_targets=torch.where(
            all_gone & (batch.user_targets > 0), items.gather(1, first).squeeze(1), batch.user_targets
        ),
        user_times=torch.where(all_gone & (batch.user_times > 0), times.gather(1, first).squeeze(1), batch.user_times),
    )


def _other_actions(actions: Tensor, count: int) -> Tensor:
    """Each action token of the dataset's becomes the next one; padding and missing stay."""
    known = actions >= FIRST_ACTION
    return torch.where(known, (actions - FIRST_ACTION + 1) % max(count, 1) + FIRST_ACTION, actions)
