"""Result tables, computed from records. `columns.py` and `footer.py` make their parts; `render.py` formats them."""

from __future__ import annotations

from collections.abc import Sequence

from grbench.report.choice import choice, validation_columns
from grbench.report.columns import cost_columns, filter_columns, metric_columns, name_column, run_columns
from grbench.report.costs import hardware
from grbench.report.entries import ResultTable
from grbench.report.footer import footer_lines, of_all_lists
from grbench.report.published import Sources, beside_ours, published_footer
from grbench.report.rows import comparable_groups, comparison_facts, differing_keys, rows_of
from grbench.report.scores import shown_scores
from grbench.results.checksums import refuse_altered
from grbench.results.integrity import altered_lists
from grbench.results.record import Record
from grbench.results.record_files import latest


def tables(records: Sequence[Record]) -> list[ResultTable]:
    """One table for each group of comparable records; its heading says in what the groups differ.

    Raises AlteredError that names the lists that were altered after they were written, or are gone."""
    newest = latest(records)
    refuse_altered(filter(None, map(altered_lists, newest)))
    groups = comparable_groups(newest)
    differing = differing_keys([comparison_facts(group[0]) for group in groups])
    return [_table(group, differing, position, len(groups)).printable() for position, group in enumerate(groups, 1)]


def _table(records: list[Record], differing: list[str], position: int, total: int) -> ResultTable:
    rows = rows_of(records)
    first = next((record for record in records if record.status == "ok"), records[0])
    metrics = {**first.metrics, **{name: facts for each in records for name, facts in each.metrics.items()}}
    machines = list(dict.fromkeys(hardware(each) for each in records if each.status == "ok" and not each.external))
    letters = {machine: chr(ord("a") + index % 26) for index, machine in enumerate(machines)}
    higher_is_better = {name: bool(facts.get("higher_is_better", True)) for name, facts in metrics.items()}
    together = [name for name, facts in metrics.items() if of_all_lists(facts)]
    chosen = choice(rows)
    scores = shown_scores(rows, higher_is_better, chosen.hidden, baseline=first.baseline, together=together)
    published, sources = beside_ours(rows, scores), Sources()
    parts = [
        name_column(rows),
        *(metric_columns(name, facts, scores[name], published.get(name), sources) for name, facts in metrics.items()),
        validation_columns(rows, chosen, metrics),
        filter_columns(rows),
        cost_columns(rows, records),
        run_columns(rows, letters),
    ]
    return ResultTable(
        heading=title_of(first, differing, position, total),
        columns=tuple(column for part in parts for column in part.columns),
        rows=tuple(tuple(entry for part in parts for entry in part.entries[row]) for row in range(len(rows))),
        footer=(
            *footer_lines(records, rows, first, letters, scores),
            *chosen.notes,
            *published_footer(published, sources),
        ),
        values=tuple(
            {name: value for part in parts for name, value in part.numbers[row].items()} for row in range(len(rows))
        ),
    )


def title_of(first: Record, differing: list[str], position: int, total: int) -> str:
    """The heading of a table of records such as `first`, which says in what it differs from the other tables."""
    name = f"{first.suite}: {first.title}" if first.title else first.suite
    if total == 1:
        return name
    keys = ", ".join(differing) or "their facts"
    return f"{name}, table {position} of {total}, not comparable with the others ({keys} differ)"
