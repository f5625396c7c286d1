"""Two methods against each other: by each metric, all users or groups of them, and the users for whom they differ most.

Shapes: U users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grbench.report.columns import metric_heading
from grbench.report.entries import Column, ResultTable, TableEntry
from grbench.report.footer import facts_line, interval_text, of_all_lists
from grbench.report.format import counted, number
from grbench.report.pair import Pair, check_users, choose_pair, shared_metrics, with_comparable_rows
from grbench.report.scores import recorded_means, user_scores
from grbench.report.slices import ALL, NO_VARIANCE, grouping_of, groups_text, of_users, varies
from grbench.results.lists import read_lists
from grbench.results.record import Record
from grbench.results.record_files import ranking_path
from grbench.results.slices import Grouping
from grbench.statistics.comparison import LEVEL, UsersWon, holm, users_won
from grbench.statistics.intervals import Estimate, Over, interval_of_difference, interval_of_mean
from grbench.statistics.scores import Scores, pooled_seed_variance

Groups = tuple[str, Grouping]
"""A slice's name, and the users' groups by it."""


@dataclass(frozen=True)
class PairTest:
    """The comparison of two rows by one metric within a group of users. size: number of users; means: of the first and
    the second row; difference: the first minus the second; p: two-sided, before correction, None where a single user
    leaves nothing to test. Estimates without variance between users have no interval."""

    metric: str
    group: str
    size: int
    means: tuple[Estimate, Estimate]
    difference: Estimate
    p: float | None
    won: UsersWon
    with_interval: tuple[bool, bool, bool]


def compare(
    records: Sequence[Record],
    first: str,
    second: str,
    *,
    metrics: Sequence[str] = (),
    by: str | None = None,
    users: int = 10,
) -> list[ResultTable]:
    """[means, difference and users won by each metric, the users for whom the methods differ most, if there are any].

    first, second: rows of tables, or suite/row; metrics: () = all that both have; by: a slice, in whose groups they are
    compared too; users: how many are shown, 0 = the second table is left out.

    Raises RunError where a method, metric or slice is not there, the methods cannot be compared, or there are no users'
    values of them.
    """
    pair = choose_pair(records, first, second)
    chosen = shared_metrics(pair, metrics)
    pair = with_comparable_rows(pair, records, chosen)
    ids, known = user_scores(pair.rows, chosen)
    tested = [
        metric
        for metric in chosen
        if {pair.first.name, pair.second.name} <= known[metric].keys() and not of_all_lists(pair.one.metrics[metric])
    ]
    check_users(pair, chosen, ids)
    groups = None if by is None else (by, grouping_of([pair.first, pair.second], by))
    tests = [test for metric in tested for test in _tests(pair, metric, known[metric], groups)]
    shown = [_summary(pair, chosen, tests, groups)]
    if users and tested and ids is not None:
        shown.append(_users_table(pair, tested[0], known[tested[0]], ids, groups, most=users))
    return [table.printable() for table in shown if table.rows]


def _tests(pair: Pair, metric: str, known: Mapping[str, Scores], groups: Groups | None) -> list[PairTest]:
    """Tests over all users, and within each group. known: users' values of all rows that have them."""
    higher = _higher_is_better(pair, metric)
    everybody = np.arange(known[pair.first.name].values.shape[1])
    tests = []
    for group, users in {ALL: everybody, **({} if groups is None else groups[1].members())}.items():
        within = {row: of_users(scores, users) for row, scores in known.items()}
        ours, theirs, seeds = within[pair.first.name], within[pair.second.name], pooled_seed_variance(within.values())
        difference = interval_of_difference(ours, theirs, seeds)
        tests.append(
            PairTest(
                metric=metric,
                group=group,
                size=len(users),
                means=(interval_of_mean(ours, seeds), interval_of_mean(theirs, seeds)),
                difference=difference,
                p=difference.p_value if len(users) > 1 else None,
                won=users_won(ours, theirs, higher_is_better=higher),
                with_interval=(varies(ours), varies(theirs), varies(Scores(ours.by_user[None] - theirs.by_user))),
            )
        )
    return tests


def _higher_is_better(pair: Pair, metric: str) -> bool:
    return bool(pair.one.metrics[metric].get("higher_is_better", True))


def _summary(pair: Pair, metrics: Sequence[str], tests: Sequence[PairTest], groups: Groups | None) -> ResultTable:
    corrected = iter(holm([test.p for test in tests if test.p is not None]).tolist())
    rows, values = [], []
    for test in tests:
        p = None if test.p is None else next(corrected)
        rows.append(_summary_row(pair, test, p, groups))
        values.append(_summary_numbers(pair, test, p, groups))
    untested = [metric for metric in metrics if metric not in {test.metric for test in tests}]
    for metric in untested:
        means = [recorded_means([row], metric)[0] for row in (pair.first, pair.second)]
        texts = [metric_heading(metric, pair.one.metrics[metric]), *[ALL] * bool(groups), *map(number, means)]
        rows.append(tuple(TableEntry(text) for text in (*texts, *["—"] * 5)))
        values.append({**_names(pair), "metric": metric, "first mean": means[0], "second mean": means[1]})
    one = pair.one
    over: set[Over] = {estimate.over for test in tests for estimate in (*test.means, test.difference)}
    footer = [f"Dataset: {facts_line(one.dataset)}", f"Protocol: {facts_line(one.protocol)}"]
    footer.append(
        f"Seeds: {len(pair.first.done)} of {pair.first.name}, {len(pair.second.done)} of {pair.second.name}; "
        f"differences are {pair.first.name} minus {pair.second.name}"
    )
    if tests:
        tested = counted(sum(test.p is not None for test in tests), "test")
        footer.append(f"Scores are means over users and seeds{interval_text(over)}")
        footer.append(
            f"p: two-sided, paired over users, after Holm's correction over the {tested} of this table; bold: the "
            f"better of two that differ at {LEVEL * 100:.0f} %"
        )
        footer.append(
            f"Users won and lost: those for whom {pair.first.name} has the better and the worse mean over its seeds"
        )
    if untested:
        footer.append(f"Without a value for each user, there is neither interval nor test: {', '.join(untested)}")
    if groups is not None:
        footer += [groups_text(*groups), NO_VARIANCE]
    return ResultTable(
        heading=f"{one.suite}: {pair.first.name} against {pair.second.name}",
        columns=(
            Column("metric", numeric=False),
            *([] if groups is None else [Column(f"{groups[0]} (users)", numeric=False)]),
            *(Column(title) for title in (pair.first.name, pair.second.name, "difference", "p", "won", "lost", "same")),
        ),
        rows=tuple(rows),
        footer=tuple(footer),
        values=tuple(values),
    )


def _summary_row(pair: Pair, test: PairTest, p: float | None, groups: Groups | None) -> tuple[TableEntry, ...]:
    differ = p is not None and p < LEVEL
    ahead = (test.difference.value > 0) == _higher_is_better(pair, test.metric)
    ours, theirs, change = (
        number(each.half_width()) if shown else ""
        for each, shown in zip((*test.means, test.difference), test.with_interval, strict=True)
    )
    return (
        TableEntry(metric_heading(test.metric, pair.one.metrics[test.metric])),
        *([] if groups is None else [TableEntry(f"{test.group} ({test.size:,})")]),
        TableEntry(number(test.means[0].value), ours, differ and ahead),
        TableEntry(number(test.means[1].value), theirs, differ and not ahead),
        TableEntry(_signed(test.difference.value), change),
        TableEntry(_p_text(p)),
        *(TableEntry(f"{users:,}") for users in (test.won.better, test.won.worse, test.won.same)),
    )


def _summary_numbers(pair: Pair, test: PairTest, p: float | None, groups: Groups | None) -> dict[str, Any]:
    """Unrounded numbers of a test by name, for CSV."""
    numbers: dict[str, Any] = {**_names(pair), "metric": test.metric}
    if groups is not None:
        numbers |= {"slice": groups[0], "group": test.group}
    numbers["users"] = test.size
    titles, estimates = ("first", "second", "difference"), (*test.means, test.difference)
    for name, estimate, shown in zip(titles, estimates, test.with_interval, strict=True):
        width = estimate.half_width() if shown else None
        numbers |= {name if name == "difference" else f"{name} mean": estimate.value, f"{name} ±": width}
    return numbers | {"p": p, "won": test.won.better, "lost": test.won.worse, "same": test.won.same}


def _names(pair: Pair) -> dict[str, str]:
    return {"first": pair.first.name, "second": pair.second.name}


def _users_table(
    pair: Pair, metric: str, known: Mapping[str, Scores], ids: np.ndarray, groups: Groups | None, *, most: int
) -> ResultTable:
    """The users with the largest differences, the largest first, equal ones in the order of the lists. ids: [U]."""
    ours, theirs = known[pair.first.name].by_user, known[pair.second.name].by_user
    difference = ours - theirs
    order = np.argsort(-np.abs(difference), kind="stable")[:most]
    order = order[difference[order] != 0]
    lengths = _history_lengths(pair.one)
    texts = [[str(user) for user in ids[order].tolist()]]
    numbers: dict[str, list[Any]] = {"user": texts[0]}
    columns = [Column("user", numeric=False)]
    if lengths is not None:
        numbers["history"] = lengths[order].tolist()
        texts.append([f"{length:,}" for length in numbers["history"]])
        columns.append(Column("history"))
    if groups is not None:
        by, grouping = groups
        numbers["group"] = [(*grouping.groups, "—")[code] for code in grouping.codes[order].tolist()]  # -1 is the last
        texts.append(numbers["group"])
        columns.append(Column(by, numeric=False))
    for title, name, each, shown in (
        (pair.first.name, "first mean", ours, number),
        (pair.second.name, "second mean", theirs, number),
        ("difference", "difference", difference, _signed),
    ):
        numbers[name] = each[order].tolist()
        texts.append([*map(shown, numbers[name])])
        columns.append(Column(title))
    differing = int(np.count_nonzero(difference))
    return ResultTable(
        heading=f"{counted(len(order), 'user')} for whom {metric} differs most, of {differing:,} for whom it differs",
        columns=tuple(columns),
        rows=tuple(tuple(map(TableEntry, row)) for row in zip(*texts, strict=True)),
        footer=(
            "Values are means over seeds; user: the id in the source"
            + ("" if lengths is None else "; history: events before the target"),
        ),
        values=tuple(
            {**_names(pair), "metric": metric, **dict(zip(numbers, row, strict=True))}
            for row in zip(*numbers.values(), strict=True)
        ),
    )


def _history_lengths(record: Record) -> np.ndarray | None:
    """[U], events of each user's history; None where the record does not have them."""
    assert record.folder is not None
    table = read_lists(ranking_path(record.folder, record.digest), ["history_length"])
    return table["history_length"].to_numpy() if table.column_names else None


def _signed(value: float) -> str:
    return "+" * (value > 0) + number(value)


def _p_text(p: float | None) -> str:
    """Three decimals without a leading zero, as in papers; None is —."""
    if p is None:
        return "—"
    return "<.001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")
