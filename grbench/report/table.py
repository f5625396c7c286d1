"""Result tables, computed from records: columns, entries and footer. `render.py` formats a `ResultTable` as text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from grbench.output import printable
from grbench.report.format import GIB, count, label_of, number, plain, significant
from grbench.report.provenance import beside_notes, checksum_notes, measured_alone, ran_beside, version_notes
from grbench.report.published import Sources, beside_ours, published_footer, published_numbers, published_text
from grbench.report.rows import (
    OLDER,
    Row,
    comparable_groups,
    comparison_facts,
    differing_keys,
    flattened,
    mean_of_known,
    rows_of,
    training_cpu,
)
from grbench.report.scores import RowScore, row_scores
from grbench.results.checksums import refuse_altered
from grbench.results.integrity import altered_lists
from grbench.results.record import Record, latest
from grbench.statistics.intervals import Over

NOT_TOLD_FROM_BASELINE = "°"
"""Beside a score whose difference from the baseline's is not significant."""
EXTERNAL = "‡"
"""Beside a method whose lists were made elsewhere."""

CSV_COSTS = (
    "train_users_per_second",
    "train_cpu_seconds",
    "train_users_per_cpu_second",
    "train_tflops_per_second",
    "train_share_of_peak",
)
"""Costs that are in the CSV even where they have no column in the other formats, to save width."""


@dataclass(frozen=True)
class TableEntry:
    """text: the formatted value; spread: half the width of its interval, empty without one; best: whether it is the
    best of its column, or cannot be told from the best; mark: a sign that the footer explains."""

    text: str
    spread: str = ""
    best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """title: the heading; numeric: whether the entries are numbers; metric: name of the metric in the column, None for
    other columns."""

    title: str
    numeric: bool = True
    metric: str | None = None


@dataclass(frozen=True)
class ResultTable:
    """A table of comparable rows. values: each row's unrounded numbers by name, for CSV."""

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[TableEntry, ...], ...]
    footer: tuple[str, ...]
    values: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def printable(self) -> ResultTable:
        """The same table, all of whose texts can be shown anywhere: records may be somebody else's."""
        return ResultTable(
            heading=printable(self.heading),
            columns=tuple(replace(column, title=printable(column.title)) for column in self.columns),
            rows=tuple(tuple(replace(entry, text=printable(entry.text)) for entry in row) for row in self.rows),
            footer=tuple(map(printable, self.footer)),
            values=tuple(
                {printable(key): printable(each) if isinstance(each, str) else each for key, each in row.items()}
                for row in self.values
            ),
        )


def tables(records: Sequence[Record]) -> list[ResultTable]:
    """One table for each group of comparable records; its heading says in what the groups differ.

    Raises AlteredError that names the lists that were altered after they were written, or are gone."""
    newest = latest(records)
    refuse_altered(filter(None, map(altered_lists, newest)))
    groups = comparable_groups(newest)
    differing = differing_keys([comparison_facts(group[0]) for group in groups])
    return [_table(group, differing, position, len(groups)).printable() for position, group in enumerate(groups, 1)]


def hardware(record: Record) -> str:
    """CPU, threads, memory and GPU of the machine that a record's costs were measured on, in one line."""
    facts = record.environment
    parts = [str(facts.get("cpu") or "unknown CPU")]
    if facts.get("cpu_threads"):
        parts.append(f"{facts['cpu_threads']} threads")
    if facts.get("ram_bytes"):
        parts.append(f"{facts['ram_bytes'] / GIB:.0f} GiB RAM")
    parts.append(str(facts.get("gpu") or "no GPU used"))
    return ", ".join(parts)


def _table(records: list[Record], differing: list[str], position: int, total: int) -> ResultTable:
    rows = rows_of(records)
    first = next((record for record in records if record.status == "ok"), records[0])
    facts_of_metrics = {**first.metrics, **{name: facts for each in records for name, facts in each.metrics.items()}}
    machines = list(dict.fromkeys(hardware(each) for each in records if each.status == "ok" and not each.external))
    letters = {machine: chr(ord("a") + index % 26) for index, machine in enumerate(machines)}
    costs = _cost_columns(records)
    failing = any(row.failed for row in rows)
    filtering, unreachable = any(_filters(row) for row in rows), any(_unreachable(row) for row in rows)

    higher_is_better = {name: bool(facts.get("higher_is_better", True)) for name, facts in facts_of_metrics.items()}
    together = [name for name, facts in facts_of_metrics.items() if of_all_lists(facts)]
    scores = row_scores(rows, higher_is_better, baseline=first.baseline, together=together)
    published, sources = beside_ours(rows, scores), Sources()

    columns = [Column("method", numeric=False)]
    for name, facts in facts_of_metrics.items():
        columns += [Column(metric_heading(name, facts), metric=name)]
        columns += [Column(f"published {_label(name, facts)}", numeric=False)] * (name in published)
    columns += [Column("filters", numeric=False)] * filtering + [Column("unreachable")] * unreachable
    columns += [*(Column(title) for title, *_ in costs), Column("seeds")]
    columns += [Column("hardware", numeric=False)] * (len(machines) > 1)
    columns += [Column("failed", numeric=False)] * failing

    body, values = [], []
    for index, row in enumerate(rows):
        used = list(dict.fromkeys(hardware(record) for record in row.done if not record.external))
        numbers = {"method": row.name, "seeds": len(row.done), "seeds_planned": len(row.records)}
        entries = [TableEntry(row.name, mark=f" {EXTERNAL}" if row.external else "")]
        for name in facts_of_metrics:
            score = scores[name][index]
            entries.append(score_entry(score))
            numbers |= {name: score.mean, f"{name} ±": score.half_width}
            if (versus := score.versus_baseline) is not None:
                numbers |= {
                    f"{name} - baseline": versus.difference.value,
                    f"{name} - baseline ±": versus.difference.half_width(),
                    f"{name} p": versus.p,
                }
            if name in published:
                entries.append(TableEntry(published_text(published[name][index], sources)))
                numbers |= published_numbers(name, published[name][index])
        missed = _unreachable(row)
        if filtering:
            entries.append(TableEntry(_filters(row) or "—"))
        if unreachable:
            entries.append(TableEntry("—" if missed is None else f"{missed:,}"))
        numbers |= {"filters": _filters(row), "unreachable": missed}
        for _, name, format_cost, combine in costs:
            # Costs of different machines, and of cells that ran alone or beside others, are not averaged.
            measured, mark = measured_alone(row.done, name)
            cost = combine([_cost(record, name) for record in measured])
            mixed = len(used) > 1
            entries.append(TableEntry("mixed" if mixed else format_cost(cost), mark="" if cost is None else mark))
            numbers[name] = None if mixed else cost
        for name in CSV_COSTS:
            timed, _ = measured_alone(row.done, name)
            numbers[name] = None if len(used) > 1 else mean_of_known([_cost(record, name) for record in timed])
        numbers["ran_beside"] = bool(row.done) and all(map(ran_beside, row.done))
        entries.append(TableEntry(seeds_text(row)))
        if len(machines) > 1:
            entries.append(TableEntry(", ".join(letters[machine] for machine in used) or "—"))
        if failing:
            entries.append(TableEntry(_reasons(row)))
        external = {"external": _external(row)} if any(each.external for each in rows) else {}
        numbers |= {"hardware": "; ".join(used), "failed": _reasons(row), **external}
        body.append(tuple(entries))
        values.append(numbers)
    return ResultTable(
        heading=title_of(first, differing, position, total),
        columns=tuple(columns),
        rows=tuple(body),
        footer=(*_footer(records, rows, first, letters, scores), *published_footer(published, sources)),
        values=tuple(values),
    )


def score_entry(score: RowScore) -> TableEntry:
    """A score as it is shown."""
    width, versus = score.half_width, score.versus_baseline
    mark = NOT_TOLD_FROM_BASELINE if versus is not None and not versus.differs else ""
    return TableEntry(number(score.mean), "" if width is None else number(width), score.best, mark)


def _external(row: Row) -> str:
    """Which files its lists are from, and what is known of them; empty for a row that was run here."""
    texts = []
    for record in row.done:
        facts = record.external or {}
        if facts:
            missing = facts.get("users_without_list")
            parts = [
                f"{facts['file']} (sha256 {facts['sha256'][:12]})",
                *[f"{missing:,} users without a list count as missed"] * bool(missing),
                *[facts["note"]] * bool(facts["note"]),
            ]
            texts.append(", ".join(parts))
    return "; ".join(texts)


def _filters(row: Row) -> str:
    """The filters of the row's lists, which are part of its identity, as in the suite."""
    identity = row.records[0].identity
    return ", ".join(identity.get("ranking", identity).get("filters") or ())


def _unreachable(row: Row) -> int | None:
    """Targets that the row's filters leave out of its lists; None without filters, or where a record does not know."""
    counts = [(record.counts.get("unreachable") or {}).get("any") for record in row.done]
    return max((count for count in counts if count is not None), default=None)


def _short_lists(row: Row) -> tuple[int, int] | None:
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


def metric_heading(name: str, facts: Mapping[str, Any]) -> str:
    """A metric's column: its label, and an arrow in the direction of better values."""
    return f"{_label(name, facts)} {'↑' if facts.get('higher_is_better', True) else '↓'}"


def _label(name: str, facts: Mapping[str, Any]) -> str:
    return str(facts.get("label") or label_of(name))


Combine = Callable[[Sequence[float | None]], float | None]


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _cost(record: Record, name: str) -> float | None:
    value: float | None = {**record.counts, **training_cpu(record), **record.cost}.get(name)
    return value


def _minutes(seconds: float | None) -> str:
    return significant(None if seconds is None else seconds / 60)


def _cost_columns(records: Sequence[Record]) -> list[tuple[str, str, Callable[[float | None], str], Combine]]:
    """(title, name of the cost, formatter, how to combine the seeds' values) of each column. On a CPU, the rate of
    training is that of a CPU second, which other jobs on the machine hardly change, where it is known of all rows."""
    on_gpu = any(record.cost.get("peak_gpu_bytes") for record in records)
    memory = ("GPU GiB", "peak_gpu_bytes") if on_gpu else ("RAM GiB", "peak_process_bytes")
    trained = [record for record in records if record.cost.get("train_users_per_second") is not None]
    known = sum(_cost(record, "train_users_per_cpu_second") is not None for record in trained)
    by_cpu = known > 0 and not on_gpu
    return [
        ("train min", "train_seconds", _minutes, mean_of_known),
        *[("CPU min", "train_cpu_seconds", _minutes, mean_of_known)] * by_cpu,
        *[("users/s", "train_users_per_second", significant, mean_of_known)] * (not by_cpu or known < len(trained)),
        *[("users/CPU s", "train_users_per_cpu_second", significant, mean_of_known)] * by_cpu,
        (*memory, lambda size: significant(None if size is None else size / GIB), _largest),
        ("search q/s", "search_queries_per_second", significant, mean_of_known),
        ("p99 ms", "search_p99_ms", significant, mean_of_known),
        ("params", "parameters", count, mean_of_known),
    ]


def seeds_text(row: Row) -> str:
    """How many seeds a row has, and of how many."""
    return str(len(row.done)) if not row.failed else f"{len(row.done)} of {len(row.records)}"


def _reasons(row: Row) -> str:
    """Each status and message once, with its seeds: `oom, seed 1, 2: CUDA out of memory`."""
    seeds: dict[str, list[str]] = {}
    for record in row.failed:
        message = (record.error or {}).get("message", "").strip().partition("\n")[0]
        seeds.setdefault(f"{record.status}\0{message}", []).append(str(record.seed))
    lines = []
    for reason, which in seeds.items():
        status, _, message = reason.partition("\0")
        lines.append(f"{status}, seed {', '.join(which)}" + (f": {message}" if message else ""))
    return "; ".join(lines)


def title_of(first: Record, differing: list[str], position: int, total: int) -> str:
    """The heading of a table of records such as `first`, which says in what it differs from the other tables."""
    name = f"{first.suite}: {first.title}" if first.title else first.suite
    if total == 1:
        return name
    keys = ", ".join(differing) or "their facts"
    return f"{name}, table {position} of {total}, not comparable with the others ({keys} differ)"


def _footer(
    records: Sequence[Record],
    rows: Sequence[Row],
    first: Record,
    letters: Mapping[str, str],
    scores: Mapping[str, Sequence[RowScore]],
) -> list[str]:
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
    if any(_unreachable(row) for row in rows):
        lines.append(
            "Unreachable: targets that the row's filters leave out of its lists (history: items that the user has met "
            "before); they count as missed. Rows with other filters answer another question"
        )
    elsewhere = "ranked elsewhere and scored here, so without costs"
    lines += [f"{EXTERNAL} {row.name}: {elsewhere}; {_external(row)}" for row in rows if row.external]
    for row in rows:
        if (short := _short_lists(row)) is not None:
            lines.append(f"Short lists: {row.name} found {short[0]} of {short[1]} items for some users")
    if len(letters) > 1:
        named = "; ".join(f"[{letter}] {machine}" for machine, letter in letters.items())
        lines.append(f"Hardware differs, compare costs only within a letter: {named}")
    elif letters:
        lines.append(f"Hardware: {next(iter(letters))}")
    batch = first.cost.get("phases", {}).get("search", {}).get("batch_size")
    if any(record.older_identity for record in records):
        lines.append(
            f"{OLDER.capitalize()}: written by an earlier grbench, whose identities covered less; "
            "grbench run runs the cell again"
        )
    if gone := [f"{record.method}, seed {record.seed}" for record in records if record.lists_gone]:
        named = "; ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        lines.append(f"Lists are gone, so grbench run runs again: {named}")
    lines += checksum_notes(records) + version_notes(rows)
    lines.append(explained(scores, first))
    lines.append(
        "Costs are means over seeds, memory the largest"
        + (f", p99 that of a batch of {batch:,} queries" if batch else "")
    )
    lines += beside_notes(rows)
    if any(title == "CPU min" for title, *_ in _cost_columns(records)):
        lines.append("CPU min and users/CPU s: of training, by the processor time of all its threads")
    return lines


def explained(columns: Mapping[str, Sequence[RowScore]], first: Record) -> str:
    """What the scores, their intervals and marks stand for. columns: {metric: its scores}."""
    together = {name: facts for name, facts in first.metrics.items() if name in columns and of_all_lists(facts)}
    scores = [score for name, column in columns.items() if name not in together for score in column]
    text = "Scores are means over users and seeds"
    if together:
        labels = ", ".join(_label(name, facts) for name, facts in together.items())
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
