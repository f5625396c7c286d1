"""Checks of metrics.

Shapes: Q queries, K list length, G targets per query.
"""

from __future__ import annotations

import copy
import re
from dataclasses import fields, replace

import numpy as np

from grbench.evaluation.scoring import empty_ranking
from grbench.interfaces import Metric
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.rankings import LENGTH, QUERIES, mixed, ranking_of
from grbench.types import Ranking

CHECKS = KindChecks("metrics")


def metric_of(plugin: CheckedPlugin) -> Metric:
    """With its options."""
    made: Metric = plugin.make()
    return made


def _values(metric: Metric, ranking: Ranking) -> np.ndarray:
    return np.asarray(metric(ranking), np.float64)


@CHECKS.add(
    base=True,
    means="Tables cannot name the metric or say which values are better.",
    mend="Set `name` to text that is the same for equal options, with the cutoff (`ndcg@10`), and `higher_is_better` "
    "to a bool.",
)
def interface(plugin: CheckedPlugin) -> None:
    """Name and direction."""
    metric = metric_of(plugin)
    require(isinstance(metric.name, str) and metric.name, f"name is {metric.name!r}")
    require(isinstance(metric.higher_is_better, bool), f"higher_is_better is {metric.higher_is_better!r}")
    require(metric_of(plugin).name == metric.name, "two metrics of the same options have different names")
    if cutoff := plugin.options.get("k"):
        require(re.search(rf"@{cutoff}\b", metric.name), f"with k {cutoff}, the name is {metric.name!r}")


@CHECKS.add(
    base=True,
    means="The run stops with an error when the lists are scored.",
    mend="Return an array of shape [Q] with one finite number for each query, not a mean.",
)
def one_value_a_query(plugin: CheckedPlugin) -> None:
    """Shape and finiteness."""
    values = _values(metric_of(plugin), mixed(plugin.world))
    require(values.shape == (QUERIES,), f"for {QUERIES} queries it returns shape {values.shape}")
    require(np.isfinite(values).all(), f"the value of query {int(np.argmin(np.isfinite(values)))} is not finite")


@CHECKS.add(
    means="A suite with the metric is refused, since metrics are tried without queries before training.",
    mend="Let arrays of no queries through: no mean, maximum or division over them.",
)
def no_queries(plugin: CheckedPlugin) -> None:
    """A ranking without queries has no values."""
    values = _values(metric_of(plugin), empty_ranking(plugin.world.split, LENGTH))
    require(values.shape == (0,), f"for no queries it returns shape {values.shape}")


@CHECKS.add(
    means="Lists that a retriever could not fill, which end with item 0, get no number.",
    mend="Leave places with item 0 out, and give a list without any item a finite value.",
)
def lists_that_are_not_full(plugin: CheckedPlugin) -> None:
    """Some lists are cut off, one has no item at all."""
    ranking = mixed(plugin.world)
    items, kept = ranking.items.copy(), np.arange(QUERIES) % LENGTH
    empty = np.arange(LENGTH) >= kept[:, None]
    items[empty] = 0
    ranks = np.where(ranking.ranks <= kept[:, None], ranking.ranks, 0)
    scores = np.where(empty, -np.inf, ranking.scores).astype(np.float32)
    values = _values(metric_of(plugin), replace(ranking, items=items, scores=scores, ranks=ranks))
    require(np.isfinite(values).all(), f"a list of {int(kept[~np.isfinite(values)][:1].sum())} items gets no number")


@CHECKS.add(
    means="Protocols with several targets a query cannot be scored.",
    mend="Targets and ranks are [Q, G], filled up with 0: take the maximum or the sum over G.",
)
def several_targets(plugin: CheckedPlugin) -> None:
    """The second of two targets, or none."""
    ranking = mixed(plugin.world)
    second = np.where(np.arange(QUERIES) % 2, ranking.items[:, -1], 0)[:, None]
    second = np.where(second == ranking.targets, 0, second)
    two = replace(
        ranking,
        targets=np.concatenate([ranking.targets, second], axis=1),
        target_actions=np.concatenate([ranking.target_actions, np.where(second > 0, 2, 0)], axis=1),
        ranks=np.concatenate([ranking.ranks, np.where(second > 0, LENGTH, 0)], axis=1),
        target_times=None if ranking.target_times is None else np.repeat(ranking.target_times, 2, axis=1),
    )
    values = _values(metric_of(plugin), two)
    require(values.shape == (QUERIES,), f"for two targets a query it returns shape {values.shape}")
    require(np.isfinite(values).all(), "a query with two targets gets no number")


def _at_each_place(plugin: CheckedPlugin) -> np.ndarray:
    """[LENGTH + 1, Q] goodness, larger = better, with all targets in no list (row 0) and at each place. Skips where the
    targets do not matter."""
    metric = metric_of(plugin)
    sign = 1 if metric.higher_is_better else -1
    ranking = mixed(plugin.world)
    unfound = replace(ranking, ranks=np.zeros_like(ranking.ranks))
    skip_unless(
        not np.array_equal(_values(metric, ranking), _values(metric, unfound)), "the values do not depend on targets"
    )
    return sign * np.stack([_values(metric, ranking_of(plugin.world, place)) for place in range(LENGTH + 1)])


@CHECKS.add(
    means="A method that finds nothing is not scored as the worst, so that the table is upside down or a rank of 0, "
    "which means not found, counts as a hit.",
    mend="Treat rank 0 as not found, and look at higher_is_better.",
)
def worst_case(plugin: CheckedPlugin) -> None:
    """No target is in any list."""
    goodness = _at_each_place(plugin)
    better = goodness[0] > goodness[1:].min(axis=0)
    require(not better.any(), "a query whose target is in no list is scored better than one whose target is found")


@CHECKS.add(
    means="A method that puts every target first is not scored as the best, so that the table is wrong at its top.",
    mend="Rank 1 is the first place: look for an index that begins at 0, and at higher_is_better.",
)
def perfect_case(plugin: CheckedPlugin) -> None:
    """Every target is first."""
    goodness = _at_each_place(plugin)
    require((goodness[1] >= goodness.max(axis=0)).all(), "a query whose target is first is not scored best")
    require((goodness[1] > goodness[0]).any(), "lists with all targets first are scored like lists without any")


@CHECKS.add(
    means="Of two methods the one that puts targets further down can win.",
    mend="Let a value never get better as the rank grows.",
)
def earlier_is_not_worse(plugin: CheckedPlugin) -> None:
    """From the first place to the last."""
    goodness = _at_each_place(plugin)[1:]
    rising = (np.diff(goodness, axis=0) > 1e-12).any(axis=1)
    place = int(rising.argmax()) + 1
    require(not rising.any(), f"place {place + 1} is scored better than place {place}")


@CHECKS.add(
    means="Values for k depend on how long the lists happen to be, so that they differ between suites.",
    mend="Look at the first k items (`ranking.items[:, :k]`) and at ranks up to k only.",
)
def only_the_first_k_count(plugin: CheckedPlugin) -> None:
    """Lists cut to k, and longer ones."""
    skip_unless("k" in plugin.options, "it has no option k")
    metric, ranking, k = metric_of(plugin), mixed(plugin.world), int(plugin.options["k"])
    skip_unless(k < LENGTH, f"the lists of this check are shorter than {k}")
    same = np.allclose(_values(metric, ranking), _values(metric, ranking.cut(k)))
    require(same, f"lists of {LENGTH} have other values than the same lists cut to {k}")


@CHECKS.add(
    means="A query's value depends on other queries, so that intervals over users and paired tests are wrong.",
    mend="Compute each query's value from its own row, or say `per_user = False` for a property of all lists together.",
)
def a_query_alone(plugin: CheckedPlugin) -> None:
    """Half of the queries have the values that they have among all."""
    metric = metric_of(plugin)
    skip_unless(getattr(metric, "per_user", Metric.per_user), "it says that it is a property of all lists together")
    ranking, half = mixed(plugin.world), np.arange(0, QUERIES, 2)
    own = {
        field.name: getattr(ranking, field.name)[half]
        for field in fields(ranking)
        if isinstance(getattr(ranking, field.name), np.ndarray)
    }
    assert ranking.histories is not None
    fewer = replace(ranking, **own, histories=ranking.histories.select(half))
    same = np.allclose(_values(metric, ranking)[half], _values(metric, fewer))
    require(same, "without every second query, the values of the others change")


@CHECKS.add(
    means="What is scored after this metric, or scored again later, gets other numbers.",
    mend="Copy arrays before you change them, and draw no random numbers.",
)
def pure(plugin: CheckedPlugin) -> None:
    """The ranking stays as it is, and a second call gives the same."""
    metric, ranking = metric_of(plugin), mixed(plugin.world)
    arrays = {
        field.name: copy.copy(getattr(ranking, field.name))
        for field in fields(ranking)
        if isinstance(getattr(ranking, field.name), np.ndarray)
    }
    first = _values(metric, ranking).copy()
    changed = [name for name, before in arrays.items() if not np.array_equal(before, getattr(ranking, name))]
    require(not changed, f"it changes {', '.join(changed)} of the ranking")
    require(np.array_equal(first, _values(metric_of(plugin), ranking)), "a second call gives other values")
