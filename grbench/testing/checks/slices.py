"""Checks of slices."""

from __future__ import annotations

import copy
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np

from grbench.evaluation.scoring import empty_ranking
from grbench.interfaces import Slice, optional
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.rankings import LENGTH, QUERIES, mixed
from grbench.types import Ranking

CHECKS = KindChecks("slices")


def _groups(groups: Any) -> list[str]:
    """[Q], "" for no group."""
    return ["" if group is None else str(group) for group in np.asarray(groups, object)]


@CHECKS.add(
    base=True,
    means="A suite cannot name the slice, or two slices with other options have one name.",
    mend="Set `name` to letters, digits and `_`, with options that are not their defaults after an `@`.",
)
def interface(plugin: CheckedPlugin) -> None:
    """The name."""
    name = plugin.make().name
    right = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_]+(@\S+)?", name)
    require(right, f"name is {name!r}")


@CHECKS.add(
    base=True,
    means="The run stops when users are divided into groups.",
    mend='Return an array of shape [Q] with the name of each query\'s group, "" or None for none.',
)
def one_group_a_query(plugin: CheckedPlugin) -> None:
    """Shape and type."""
    groups = plugin.make()(mixed(plugin.world))
    shape = np.shape(groups)
    require(shape == (QUERIES,), f"for {QUERIES} queries it returns shape {shape}")
    other = [group for group in np.asarray(groups, object) if not (group is None or isinstance(group, str))]
    require(not other, f"a group is {other[:1]}, not text")


@CHECKS.add(
    means="Methods have different groups, so that their scores within a group are of different users.",
    mend="Read histories, targets and training data only; not items, scores and ranks of the lists.",
)
def lists_have_no_influence(plugin: CheckedPlugin) -> None:
    """Other lists of the same queries."""
    ranking = mixed(plugin.world)
    items = np.roll(ranking.items[:, ::-1], 1, axis=0)
    other = replace(ranking, items=items, scores=ranking.scores * 2, ranks=np.roll(ranking.ranks, 3, axis=0))
    same = _groups(plugin.make()(ranking)) == _groups(plugin.make()(other))
    require(same, "with other lists, queries are in other groups")


@CHECKS.add(
    means="A user's group depends on who else is evaluated, so that groups differ between suites of one data set.",
    mend="Take bounds from options or from the training data, not from the queries.",
)
def a_query_alone(plugin: CheckedPlugin) -> None:
    """Half of the queries are in the groups that they are in among all."""
    ranking, half = mixed(plugin.world), np.arange(0, QUERIES, 2)
    own = {
        field.name: getattr(ranking, field.name)[half]
        for field in fields(ranking)
        if isinstance(getattr(ranking, field.name), np.ndarray)
    }
    assert ranking.histories is not None
    fewer = replace(ranking, **own, histories=ranking.histories.select(half))
    among_all = _groups(plugin.make()(ranking))
    same = _groups(plugin.make()(fewer)) == [among_all[row] for row in half]
    require(same, "without every second query, others are in other groups")


@CHECKS.add(
    means="A column of a table is missing, or its place depends on the data.",
    mend="Let order() name every group once, also those that no query is in, or return ().",
)
def order_names_every_group(plugin: CheckedPlugin) -> None:
    """Of the queries here."""
    ranking = mixed(plugin.world)
    order = list(optional(plugin.make(), Slice.order)(ranking))
    skip_unless(order, "it leaves the order to the tables")
    require(len(order) == len({*order}), f"order() names a group twice: {order}")
    missing = sorted({*_groups(plugin.make()(ranking))} - {"", *order})
    require(not missing, f"order() does not name {', '.join(missing)}")


@CHECKS.add(
    means="Suites whose data set has no times, or whose protocol does not give histories, stop.",
    mend='Where ranking.histories or ranking.target_times is None, return no group ("") or do without.',
)
def unknown_is_no_error(plugin: CheckedPlugin) -> None:
    """Without histories, and without times of targets."""
    ranking = mixed(plugin.world)
    for unknown in ({"histories": None}, {"target_times": None}, {"histories": None, "target_times": None}):
        part: Ranking = replace(ranking, **unknown)  # type: ignore[arg-type]
        shape = np.shape(plugin.make()(part))
        require(shape == (QUERIES,), f"without {' and '.join(unknown)} it returns shape {shape}")


@CHECKS.add(
    means="A suite with the slice is refused where nobody is evaluated.",
    mend="Let arrays of no queries through: no maximum or quantile over them.",
)
def no_queries(plugin: CheckedPlugin) -> None:
    """A ranking without queries has no groups."""
    shape = np.shape(plugin.make()(empty_ranking(plugin.world.split, LENGTH)))
    require(shape == (0,), f"for no queries it returns shape {shape}")


@CHECKS.add(
    means="What is divided or scored after this slice gets other numbers.",
    mend="Copy arrays before you change them, and draw no random numbers.",
)
def pure(plugin: CheckedPlugin) -> None:
    """The ranking stays as it is, and a second call gives the same."""
    ranking, made = mixed(plugin.world), plugin.make()
    arrays = {
        field.name: copy.copy(getattr(ranking, field.name))
        for field in fields(ranking)
        if isinstance(getattr(ranking, field.name), np.ndarray)
    }
    first = _groups(made(ranking))
    changed = [name for name, before in arrays.items() if not np.array_equal(before, getattr(ranking, name))]
    require(not changed, f"it changes {', '.join(changed)} of the ranking")
    require(first == _groups(plugin.make()(ranking)), "a second call gives other groups")
