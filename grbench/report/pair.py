"""The two rows that are compared: which records they are of, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from grbench.errors import RunError, cut
from grbench.registry.options import suggestion
from grbench.report.choice import hidden_records, place_key
from grbench.report.format import counted
from grbench.report.rows import Row, comparison_facts, differing_keys, rows_of
from grbench.results.lists import column_names
from grbench.results.record import Record
from grbench.results.record_files import latest, ranking_path
from grbench.results.values import PREFIX, read_values


@dataclass(frozen=True)
class Pair:
    """Two rows that are compared, and all rows of their suites that are comparable with them, these two first."""

    first: Row
    second: Row
    rows: tuple[Row, ...]

    @property
    def one(self) -> Record:
        """A finished record, for what is equal in both rows."""
        return self.first.done[0]


def choose_pair(records: Sequence[Record], first: str, second: str) -> Pair:
    """The rows that two names stand for. Where a name is in several suites, but the two are together in one only, it is
    that one's. Raises RunError where a name is unknown or may be several rows."""
    by_suite: dict[str, list[Record]] = {}
    for record in latest(records):
        by_suite.setdefault(record.suite, []).append(record)
    rows = {f"{suite}/{row.name}": row for suite, group in by_suite.items() for row in rows_of(group)}
    ours, theirs = _named(rows, first), _named(rows, second)
    together = {_suite(one) for one in ours} & {_suite(other) for other in theirs}
    if len(together) == 1:
        ours, theirs = ([key for key in keys if _suite(key) in together] for keys in (ours, theirs))
    chosen = [rows[_only(keys, name)] for keys, name in ((ours, first), (theirs, second))]
    if chosen[0] is chosen[1]:
        raise RunError(f"{first} and {second} are the same row; name two methods")
    hidden = hidden_records(records)
    for row in chosen:
        if any(place_key(record) in hidden for record in row.records):
            raise RunError(
                f"{row.name} is a row of a grid that was not chosen on validation, so its test scores are not shown; "
                "ablation: true in the suite shows those of all rows"
            )
        if not row.done:
            reason = (row.failed[-1].error or {}).get("message", "").strip().partition("\n")[0]
            raise RunError(f"{row.name} has no finished cell ({row.failed[-1].status}: {cut(reason, 200)})")
    if chosen[0].name == chosen[1].name:
        chosen = [replace(row, name=f"{row.records[0].suite}/{row.name}") for row in chosen]
    return Pair(chosen[0], chosen[1], tuple(chosen))


def _named(rows: Mapping[str, Row], name: str) -> list[str]:
    """Keys `suite/row` of the rows that a name stands for: rows of this name, else all variants of the method."""
    exact = [key for key in rows if name in (key, key.partition("/")[2])]
    variants = [
        key for key, row in rows.items() if name in (row.records[0].method, f"{_suite(key)}/{row.records[0].method}")
    ]
    if not (exact or variants):
        names = list(dict.fromkeys(key.partition("/")[2] for key in rows))
        raise RunError(f"there is no method {cut(name)!r} in these results; {suggestion(name, names)}")
    return exact or variants


def _suite(key: str) -> str:
    return key.partition("/")[0]


def _only(keys: Sequence[str], name: str) -> str:
    if len(keys) > 1:
        named = ", ".join(repr(key) for key in keys[:10]) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")
        raise RunError(f"{name} may be {named}; write one of these, or give the folder of one suite (--results)")
    return keys[0]


def shared_metrics(pair: Pair, asked: Sequence[str]) -> list[str]:
    """The metrics to compare by: those asked for, else all that both have."""
    ours, theirs = pair.first.done[0].metrics, pair.second.done[0].metrics
    shared = [metric for metric in ours if metric in theirs]
    for metric in asked:
        if metric not in shared:
            raise RunError(
                f"--metric {cut(metric)}: the two have no such metric in common; {suggestion(metric, shared)}"
            )
    if not shared:
        raise RunError(
            f"{pair.first.name} has the metrics {', '.join(ours)}, {pair.second.name} has {', '.join(theirs)}: none in "
            "common; list the same metrics in both suites and run them again, which scores the lists that there are"
        )
    return list(dict.fromkeys(asked)) or shared


def with_comparable_rows(pair: Pair, records: Sequence[Record], metrics: Sequence[str]) -> Pair:
    """The pair with all rows of its suites that are comparable by these metrics, over which the variance between seeds
    is pooled as in a table. Raises RunError where the two are not comparable."""

    def facts(record: Record) -> dict[str, Any]:
        every = comparison_facts(record)
        return {**every, "metrics": {metric: every["metrics"].get(metric) for metric in metrics}}

    ours, theirs = facts(pair.first.done[0]), facts(pair.second.done[0])
    if ours != theirs:
        raise RunError(
            f"{pair.first.name} and {pair.second.name} cannot be compared: {', '.join(differing_keys([ours, theirs]))} "
            "differ; only results of the same data, protocol, candidate pool and metric versions are"
        )
    own = {place_key(record) for row in (pair.first, pair.second) for record in row.records}
    suites = {pair.first.done[0].suite, pair.second.done[0].suite}
    left_out = own | hidden_records(records)  # as in a table, the values of rows that were not chosen count nowhere
    same = [record for record in latest(records) if record.suite in suites and place_key(record) not in left_out]
    others = rows_of([record for record in same if record.status == "ok" and facts(record) == ours])
    # Two suites may have methods of one name, and a name stands for one row's values.
    named = (replace(row, name=f"{row.records[0].suite}/{row.name}") for row in others)
    return Pair(pair.first, pair.second, (pair.first, pair.second, *named))


def check_users(pair: Pair, metrics: Sequence[str], ids: np.ndarray | None) -> None:
    """Raises RunError where a record of the two rows has no users' values at all, or other users than the others."""
    for record in (*pair.first.done, *pair.second.done):
        path = ranking_path(record.folder or Path(), record.digest)
        if (read := read_values(path, metrics)) is None:
            raise RunError(
                f"{record.method}, seed {record.seed}: its lists are gone, and the users' values with them; "
                "grbench run runs the cell again"
            )
        users, values = read
        if ids is not None and not np.array_equal(users, ids):
            differing = len(np.setxor1d(users.astype(str), ids.astype(str)))
            raise RunError(
                f"{path}: its users are others than those of {pair.first.name} ({counted(len(users), 'user')} and "
                f"{len(ids):,}, {differing:,} in one of them only), though data and protocol are the same; grbench run "
                "--force runs the cell again"
            )
        if not values and not any(name.startswith(PREFIX) for name in column_names(path)):
            raise RunError(
                f"{path}: has no users' values; grbench rescore {path.parent} --metric {metrics[0]} computes them from "
                "the lists"
            )
