"""Checks of protocols, on the made-up store and, for leaks, by the audits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grbench.audit.audit import Audit
from grbench.audit.audited_method import AuditedMethod
from grbench.audit.chance import Chance
from grbench.audit.futures import EvaluatedFutures
from grbench.audit.run_audits import audit_results
from grbench.audit.targets import UnseenTargets
from grbench.audit.world import World, made_up_store
from grbench.data.split import Queries, Split
from grbench.errors import DataError
from grbench.hookspecs import Register, hookimpl
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.suite.method import Method, Stage
from grbench.suite.suite import Cell
from grbench.temporary import temporary_folder
from grbench.testing.checks.check import KindChecks, require
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.plain_parts import PlainParts

CHECKS = KindChecks("protocols")

USERS, ITEMS = 300, 120
"""Of the store that leaks are looked for in: enough that chance can be told from knowledge."""


def _queries(split: Split) -> list[tuple[str, Queries]]:
    both = [("test", split.test), ("validation", split.validation)]
    return [(name, queries) for name, queries in both if queries is not None]


@CHECKS.add(
    base=True,
    means="The run stops, or ranks items that are none.",
    mend="Return a Split: candidates ascending without repeats, from 1 to N; one target or more for each query; users "
    "that are rows of the store, each once.",
)
def split_is_whole(plugin: CheckedPlugin) -> None:
    """Candidates, users, targets and actions are there."""
    store = plugin.world.store
    split = plugin.make().split(store)
    candidates, items = np.asarray(split.candidates), store.catalogue.num_items
    require(len(candidates) and candidates.dtype == np.int64, f"candidates are {len(candidates)} of {candidates.dtype}")
    require((np.diff(candidates) > 0).all(), "candidates are not ascending without repeats")
    require(candidates[0] >= 1 and candidates[-1] <= items, "a candidate is no item of the catalogue")
    require(len(split.test), "no test user is evaluated")
    require(split.training.num_events, "there is no training event")
    for name, queries in _queries(split):
        targets, actions = queries.targets, queries.target_actions
        require(
            targets.ndim == 2 and targets.shape == actions.shape, f"{name} targets are not [Q, G] like their actions"
        )
        require(len(queries.histories) == len(targets), f"there are not as many {name} histories as targets")
        require((targets > 0).any(axis=1).all(), f"a {name} query has no target")
        require(((targets >= 0) & (targets <= items)).all(), f"a {name} target is no item of the catalogue")
        require(len(np.unique(queries.users)) == len(queries.users), f"a {name} user is evaluated twice")
        known = np.isin(queries.users, np.arange(store.catalogue.num_users)).all()
        require(known, f"a {name} user is no row of the store")
        most = len(store.catalogue.actions) + 1
        require(1 <= queries.next_action <= most, f"the next action of {name} queries is token {queries.next_action}")
        shown = ((actions[targets > 0] >= 1) & (actions[targets > 0] <= most)).all()
        require(shown, f"the action of a {name} target is no action of the dataset")
    whole = all(isinstance(count, int) and not isinstance(count, bool) for count in split.counts.values())
    require(whole, f"counts are {split.counts}, not whole numbers")


@CHECKS.add(
    means="Two runs of a suite evaluate other users or targets, so that they cannot be compared.",
    mend="Draw users by an own generator of a fixed seed, an option of the protocol.",
)
def splits_the_same_twice(plugin: CheckedPlugin) -> None:
    """By two protocols, with other states of the random generators."""
    one, other = (_seeded(seed, plugin) for seed in (0, 1))
    require(one.pool_digest == other.pool_digest, "two splits have different candidates")
    for (name, mine), (_, theirs) in zip(_queries(one), _queries(other), strict=True):
        same = np.array_equal(mine.users, theirs.users) and np.array_equal(mine.targets, theirs.targets)
        require(same, f"two splits have different {name} users or targets")
        require(
            np.array_equal(mine.histories.lengths, theirs.histories.lengths),
            f"two splits have different {name} histories",
        )
    same = (
        np.array_equal(one.training.users, other.training.users)
        and one.training.num_events == other.training.num_events
    )
    require(same, "two splits have different training data")


def _seeded(seed: int, plugin: CheckedPlugin) -> Split:
    from grbench.training.numerics import seed_everything

    seed_everything(seed)
    split: Split = plugin.make().split(plugin.world.store)
    return split


@CHECKS.add(
    means="A query's history holds events that come after its target, or the target itself.",
    mend="End each history at the event before the target (`queries_at` does).",
)
def histories_end_before_targets(plugin: CheckedPlugin) -> None:
    """By the times of events, and by their numbers."""
    store = plugin.world.store
    split = plugin.make().split(store)
    for name, queries in _queries(split):
        last = queries.histories.newest(np.arange(len(queries)), 1)[2][:, 0]
        whole = np.diff(store.offsets)[queries.users]
        require(
            (queries.histories.lengths < whole).all(), f"a {name} history holds all events of its user, the target too"
        )
        if queries.target_times is not None:
            first = np.where(queries.targets > 0, queries.target_times, np.iinfo(np.int64).max).min(axis=1)
            require((last <= first).all(), f"a {name} history has an event that is later than its target")


@CHECKS.add(
    means="A run on a small or odd data set ends in a traceback.",
    mend="Raise grbench.errors.DataError with what the data lacks, and what would be right.",
)
def says_when_nobody_can_be_evaluated(plugin: CheckedPlugin) -> None:
    """A store in which each user has one event."""
    store = plugin.world.store
    firsts = np.asarray(store.offsets[:-1])
    single = replace(
        store,
        offsets=np.arange(len(store.offsets)),
        items=store.items[firsts],
        actions=store.actions[firsts],
        times=store.times[firsts],
    )
    try:
        split = plugin.make().split(single)
    except DataError:
        return
    require(len(split.test), "for users with one event each it returns a split without queries")


def _audited(plugin: CheckedPlugin, audit: Audit, folder: Path) -> None:
    """Raises CheckFailedError where a plain method under the protocol does not pass the audit."""
    registry = Registry()
    registry.add("plain", "grbench", "", PlainParts)
    registry.add("checked", plugin.plugin.distribution, "", lambda: _Checked(plugin))
    training = {"epochs": 1, "batch_size": 32, "workers": 0}
    stage = Stage("", None, ((Component("plain"), 1.0),), Component("plain"), Component("plain"), training)
    parts = Component("plain"), Component("plain"), Component("plain"), (stage,), (), ()
    metric = Component("plain", {"k": 5})
    protocol = Component("checked", plugin.options)
    cell = Cell("checked", Component("made_up"), protocol, (metric,), Method("plain", *parts), 0)
    world = World(made_up_store(folder, users=USERS, items=ITEMS), "made up", own=False)
    (result,) = audit_results(AuditedMethod(cell, registry, world, cache=folder), [audit])
    require(result.verdict == "pass", result.detail)


class _Checked:
    """Registers the protocol, so that nothing else that is installed is needed."""

    def __init__(self, plugin: CheckedPlugin) -> None:
        self._factory: Any = plugin.plugin.factory

    @hookimpl
    def register_protocols(self, register: Register) -> None:
        register("checked", self._factory)


@CHECKS.add(
    means=UnseenTargets.meaning, mend="Leave the targets out of the training data, of candidates and of histories."
)
def no_targets_in_training(plugin: CheckedPlugin) -> None:
    """The leak audit test_targets."""
    with temporary_folder() as folder:
        _audited(plugin, UnseenTargets(), folder)


@CHECKS.add(
    means=EvaluatedFutures.meaning,
    mend="End the training events of an evaluated user at the history's end, and take candidates from the catalogue.",
)
def no_futures_in_training(plugin: CheckedPlugin) -> None:
    """The leak audit evaluated_futures."""
    with temporary_folder() as folder:
        _audited(plugin, EvaluatedFutures(), folder)


@CHECKS.add(
    means=Chance.meaning,
    mend="Let neither the pool nor the order of candidates depend on targets, or say so by adds_targets_to_pool().",
)
def targets_are_found_by_chance(plugin: CheckedPlugin) -> None:
    """The leak audit chance."""
    with temporary_folder() as folder:
        _audited(plugin, Chance(), folder)
