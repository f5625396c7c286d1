"""The lines below a result table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from grbench.report.columns import EXTERNAL, NOT_TOLD_FROM_BASELINE, external_text, metric_label, unreachable_targets
from grbench.report.costs import cost_kinds
from grbench.report.format import plain
from grbench.report.provenance import WITHOUT_CHECKSUMS, beside_notes, checksum_notes, version_notes
from grbench.report.rows import OLDER, Row, flattened
from grbench.report.scores import RowScore
from grbench.report.view_notes import NAMES
from grbench.results.record import Record
from grbench.statistics.intervals import Over

_SETTINGS = ("Data", "Dataset", "Hardware", "Pool", "Protocol", "Ties in time", "Users", NAMES)
"""How notes begin that say what was run, and not how the table's entries are to be read."""


def is_setting(note: str) -> bool:
    """Whether a note says what was run, which a paper has in its text."""
    return note.startswith(tuple(f"{topic}: " for topic in _SETTINGS)) or note.startswith(WITHOUT_CHECKSUMS)


def footer_lines(
    records: Sequence[Record],
    rows: Sequence[Row],
    first: Record,
    letters: Mapping[str, str],
    *,
    scores: Mapping[str, Sequence[RowScore]],
    columns: Collection[str],
) -> list[str]:
    """What a reader needs to judge the table. records, rows: those that are shown; first: a record with the facts that
    all records share; letters: {machine: what stands for it}; scores: {shown metric: of each row}; columns: names of
    the columns that are shown."""
    lines = [f"Dataset: {facts_line(first.dataset)}", f"Protocol: {facts_line(first.protocol)}"]
    counts = first.counts
    if remarks := counts.get("remarks"):
        lines.append(f"Data: {'; '.join(remarks)}")
    if "evaluated" in counts:
        dropped = {reason: users for reason, users in counts.get("dropped", {}).items() if users}
        reasons = ", ".join(f"{users:,} {reason.replace('_', ' ')}" for reason, users in dropped.items()) or "none"
        lines.append(f"Users: {counts['evaluated']:,} evaluated; dropped: {reasons}")
    if (ties := counts.get("ties", {})).get("events"):
        lines.append(
            f"Ties in time: {ties['events']:,} events of {ties['users']:,} users share their time with another event "
            f"of the same user, as {ties['latest']:,} users' last event does; they are in "
            f"{ties['broken_by'].replace('_', ' ')}"
        )
    if first.pool:
        pool = f"{first.pool['size']:,} candidates (digest {first.pool['digest']})"
        lines.append(f"Pool: {pool}; ties count against the target")
    if any(unreachable_targets(row) for row in rows):
        lines.append(
            "Unreachable: targets that the row's filters leave out of its lists (history: items that the user has met "
            "before); they count as missed. Rows with other filters answer another question"
        )
    elsewhere = "ranked elsewhere and scored here, so without costs"
    lines += [f"{EXTERNAL} {row.name}: {elsewhere}; {external_text(row)}" for row in rows if row.external]
    for row in rows:
        if (short := short_lists(row)) is not None:
            lines.append(f"Short lists: {row.name} found {short[0]} of {short[1]} items for some users")
    costs = [kind for kind in cost_kinds(records) if kind.name in columns]
    if costs:
        lines += _hardware_lines(letters)
    if any(record.older_identity for record in records):
        lines.append(
            f"{OLDER.capitalize()}: written by an earlier grbench, whose identities covered less; "
            "grbench run runs the cell again"
        )
    if gone := [f"{record.method}, seed {record.seed}" for record in records if record.lists_gone]:
        named = "; ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        lines.append(f"Lists are gone, so grbench run runs again: {named}")
    lines += checksum_notes(records) + version_notes(rows)
    if scores:
        lines.append(explained(scores, first))
    if costs:
        lines += _cost_lines(first, rows, [kind.title for kind in costs])
    return lines


def _hardware_lines(letters: Mapping[str, str]) -> list[str]:
    if len(letters) > 1:
        named = "; ".join(f"[{letter}] {machine}" for machine, letter in letters.items())
        return [f"Hardware differs, compare costs only within a letter: {named}"]
    return [f"Hardware: {machine}" for machine in letters]


def _cost_lines(first: Record, rows: Sequence[Row], titles: Sequence[str]) -> list[str]:
    batch = first.cost.get("phases", {}).get("search", {}).get("batch_size")
    of_batch = f", p99 that of a batch of {batch:,} queries" if batch and "p99 ms" in titles else ""
    lines = [f"Costs are means over seeds, memory the largest{of_batch}", *beside_notes(rows)]
    if by_cpu := [title for title in titles if title in ("CPU min", "users/CPU s")]:
        lines.append(f"{' and '.join(by_cpu)}: of training, by the processor time of all its threads")
    return lines


def short_lists(row: Row) -> tuple[int, int] | None:
    """(fewest items in a list that is scored, the metrics' largest cutoff) where a seed has too few."""
    lengths = [_list_lengths(record) for record in row.done]
    return min(((fewest, cutoff) for fewest, cutoff in lengths if fewest is not None and fewest < cutoff), default=None)


def _list_lengths(record: Record) -> tuple[int | None, int]:
    """(fewest items in a list, None where the record does not say; the metrics' largest cutoff). A re-scored record may
    have other cutoffs than those that its lists were made for; above them, metrics are of the longer lists."""
    scored = record.lists.get("scored") or 0
    cutoffs = [metric.get("options", {}).get("k") or 0 for metric in record.identity.get("metrics", ())]
    cutoff = max(cutoffs, default=0) or scored
    return record.lists.get("shortest" if cutoff <= scored else "kept_shortest"), cutoff


def explained(columns: Mapping[str, Sequence[RowScore]], first: Record) -> str:
    """What the scores, their intervals and marks stand for. columns: {metric: its scores}."""
    together = {name: facts for name, facts in first.metrics.items() if name in columns and of_all_lists(facts)}
    scores = [score for name, column in columns.items() if name not in together for score in column]
    text = "Scores are means over users and seeds"
    if together:
        labels = ", ".join(metric_label(name, facts) for name, facts in together.items())
        text += f" ({labels}: of all lists together, so that users' values give neither interval nor mark)"
    over = {score.estimate.over for score in scores if score.estimate is not None}
    if not over:
        return f"{text}; without the users' values, there is neither interval nor mark" if scores else text
    text += interval_text(over)
    if any(score.best for score in scores):
        text += "; bold: the best, and what cannot be told from it (paired over users, Holm's correction, 5 %)"
    if any(score.versus_baseline is not None and not score.versus_baseline.differs for score in scores):
        text += f"; {NOT_TOLD_FROM_BASELINE}: cannot be told from {first.baseline}, the baseline, in the same way"
    return text


def interval_text(over: Collection[Over]) -> str:
    """What stands behind a mean's ±. over: what the intervals of a table are over."""
    only = " only: there are too few seeds to know how much these vary"
    return f", ± half the width of their 95 % interval over users{only if 'users' in over else ' and seeds'}"


def of_all_lists(facts: Mapping[str, Any]) -> bool:
    """Whether a metric is a property of all lists together, so that its users' values give neither interval nor test.
    facts: the record's about the metric."""
    return facts.get("per_user") is False


def facts_line(facts: Mapping[str, Any]) -> str:
    """Facts about a dataset or a protocol in one line."""
    switches = {key: value for key, value in flattened(facts).items() if key not in ("name", "digest")}
    digest = f" (digest {facts['digest']})" if facts.get("digest") else ""
    listed = ", ".join(f"{key.removeprefix('options.')}={plain(value)}" for key, value in switches.items())
    return f"{facts.get('name', 'unknown')}{digest}" + (f"; {listed}" if listed else "")
