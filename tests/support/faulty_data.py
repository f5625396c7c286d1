"""Datasets and protocols with one fault each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from faulty_parts import fails

from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData
from grbench.errors import DataError
from grbench.interfaces import Dataset
from grbench.testing.checks.plain_parts import PlainProtocol
from grbench.types import FIRST_ACTION

# --- datasets


class Lines(Dataset):
    """One user a line, whose items are numbers.

    Args:
        path: the file
        repeats: how often each user's events are written
    """

    def __init__(self, *, path: Path, repeats: int = 1) -> None:
        self.path, self.repeats = path, repeats

    def digest(self):
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such file")
        return f"{self.path.read_text()} {self.repeats}"

    def write(self, writer):
        users = [[*map(int, line.split())] * self.repeats for line in self.path.read_text().splitlines()]
        lengths, items = np.array([*map(len, users)]), np.concatenate(users)
        writer.actions, writer.has_times = ("click",), True
        times = np.concatenate([np.arange(length) for length in lengths])
        writer.add_users(np.arange(len(users)), lengths, items, np.full(len(items), FIRST_ACTION), self.times(times))
        writer.set_items(np.arange(items.max() + 1))

    def times(self, times):
        return times


def write_lines(path: Path) -> Path:
    path.write_text("1 2 3 1\n2 3 4\n4 1\n")
    return path


@fails("datasets", "store_is_whole")
class Backwards(Lines):
    def times(self, times):
        return -times


@fails("datasets", "writes_the_same_twice")
class RandomTimes(Lines):
    def times(self, times):
        return times + np.random.default_rng().integers(1_000_000)


@fails("datasets", "digest_follows_content")
class DigestOfTheName(Lines):
    def digest(self):
        super().digest()
        return f"{self.path} {self.repeats}"


@fails("datasets", "digest_follows_options")
class DigestOfTheFileAlone(Lines):
    def digest(self):
        super().digest()
        return self.path.read_text()


@fails("datasets", "a_missing_source_is_told")
class OpensWithoutLooking(Lines):
    def digest(self):
        return f"{self.path.read_text()} {self.repeats}"


@fails("datasets", "validates")
class ValidatesInWords(Lines):
    def validate(self, progress):
        return ["all is well"]


@fails("datasets", "stand_in_has_the_same_fields")
class NoStandIn(Lines):
    def stand_in(self):
        return {"name": "nowhere"}


# --- protocols


@fails("protocols", "split_is_whole")
class CandidatesTwice(PlainProtocol):
    def split(self, store):
        split = super().split(store)
        return dataclasses.replace(split, candidates=np.repeat(split.candidates, 2))


@fails("protocols", "splits_the_same_twice")
class RandomPool(PlainProtocol):
    def split(self, store):
        split = super().split(store)
        return dataclasses.replace(split, candidates=split.candidates[np.random.random(len(split.candidates)) < 0.5])  # noqa: NPY002


@fails("protocols", "histories_end_before_targets")
class HistoriesWithTheTarget(PlainProtocol):
    def split(self, store):
        split = super().split(store)
        users = split.test.users
        whole = Histories(store, users, np.asarray(store.offsets[users]), np.asarray(store.offsets[users + 1]))
        return dataclasses.replace(split, test=dataclasses.replace(split.test, histories=whole))


@fails("protocols", "says_when_nobody_can_be_evaluated")
class TakesHistoriesForGranted(PlainProtocol):
    def split(self, store):
        lengths = np.diff(store.offsets)
        lengths[lengths >= 3].max()
        return super().split(store)


class TrainsOnTargets(PlainProtocol):
    """Every event of every user is learnt from."""

    def split(self, store):
        split = super().split(store)
        users = split.training.users
        whole = Histories(store, users, np.asarray(store.offsets[users]), np.asarray(store.offsets[users + 1]))
        return dataclasses.replace(split, training=TrainingData(store.catalogue, whole))


fails("protocols", "no_targets_in_training")(TrainsOnTargets)


@fails("protocols", "no_futures_in_training")
class TrainsOnTheLast(PlainProtocol):
    """Leaves the validation's target out, and learns from what comes after it."""

    def split(self, store):
        split = super().split(store)
        ends = np.asarray(store.offsets[1:])
        every = np.arange(len(ends))
        late = Histories(store, every, np.maximum(ends - 1, 0), ends)
        return dataclasses.replace(split, training=TrainingData(store.catalogue, late))


@fails("protocols", "targets_are_found_by_chance")
class RanksTargets(PlainProtocol):
    """The pool is the items that are a target, and some more."""

    def split(self, store):
        split = super().split(store)
        return dataclasses.replace(split, candidates=np.union1d(split.test.targets[:10], np.arange(1, 20)))
