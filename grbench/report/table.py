"""Result tables, computed from records. `columns.py` and `footer.py` make their parts; `render.py` formats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from grbench.report.choice import choice, validation_columns
from grbench.report.columns import cost_columns, filter_columns, metric_columns, name_column, run_columns
from grbench.report.compared import title_of
from grbench.report.costs import hardware
from grbench.report.entries import Column, ResultTable
from grbench.report.footer import footer_lines, of_all_lists
from grbench.report.published import Sources, beside_ours, published_footer
from grbench.report.rows import comparable_groups, comparison_facts, differing_keys, rows_of
from grbench.report.scores import shown_scores
from grbench.report.view import EVERYTHING, View
from grbench.report.view_notes import view_notes
from grbench.results.checksums import refuse_altered
from grbench.results.integrity import altered_lists
from grbench.results.record import Record
from grbench.results.record_files import latest


def tables(records: Sequence[Record], view: View = EVERYTHING) -> list[ResultTable]:
    """One table for each group of comparable records; its heading says in what the groups differ. A table that has none
    of the rows that `view` chooses is left out.

    Raises AlteredError that names the lists that were altered after they were written, or are gone, and RunError where
    the view names a row, a column or a metric that there is not."""
    newest = latest(records)
    refuse_altered(filter(None, map(altered_lists, newest)))
    groups = comparable_groups(newest)
    differing = differing_keys([comparison_facts(group[0]) for group in groups])
    view.check([row for group in groups for row in rows_of(group)], metrics_in(newest))
    made, columns = list[ResultTable](), list[Column]()
    for position, group in enumerate(groups, 1):
        if not view.places(rows_of(group)):
            continue
        whole, shown = _table(group, view, heading_of(view, group[0], differing, position, len(groups)))
        made.append(shown.printable())
        columns += whole.printable().columns
    view.check_columns(columns)
    return made


def _table(group: Sequence[Record], view: View, heading: str) -> tuple[ResultTable, ResultTable]:
    """(the shown rows with all columns, the same with the shown ones)."""
    every = view.named(rows_of(group))
    records = [record for row in every for record in row.records]
    first = next((record for record in records if record.status == "ok"), records[0])
    metrics = view.metrics_of({**first.metrics, **metrics_in(records)})
    first = replace(first, metrics={name: dict(facts) for name, facts in metrics.items()})
    higher_is_better = {name: bool(facts.get("higher_is_better", True)) for name, facts in metrics.items()}
    together = [name for name, facts in metrics.items() if of_all_lists(facts)]
    chosen = choice(every)
    of_all = shown_scores(every, higher_is_better, chosen.hidden, baseline=first.baseline, together=together)
    places = view.places(every)
    rows = [every[place] for place in places]
    records = [record for row in rows for record in row.records]
    scores = {name: [column[place] for place in places] for name, column in of_all.items()}
    machines = list(dict.fromkeys(hardware(each) for each in records if each.status == "ok" and not each.external))
    letters = {machine: chr(ord("a") + index % 26) for index, machine in enumerate(machines)}
    published, sources = beside_ours(rows, scores), Sources()
    parts = [
        name_column(rows),
        *(metric_columns(name, facts, scores[name], published.get(name), sources) for name, facts in metrics.items()),
        validation_columns(rows, chosen, metrics),
        filter_columns(rows),
        cost_columns(rows, records),
        run_columns(rows, letters),
    ]
    whole = ResultTable(
        heading=heading,
        columns=tuple(column for part in parts for column in part.columns),
        rows=tuple(tuple(entry for part in parts for entry in part.entries[row]) for row in range(len(rows))),
        footer=(),
        values=tuple(
            {name: value for part in parts for name, value in part.numbers[row].items()} for row in range(len(rows))
        ),
    )
    shown = view.of_table(whole)
    names = {column.name for column in shown.columns}
    scores = {name: column for name, column in scores.items() if name in names}
    published = {name: column for name, column in published.items() if f"{name} published" in names}
    footer = (
        *footer_lines(records, rows, first, letters, scores=scores, columns=names),
        *view_notes(whole, shown, every, places, {name: of_all[name] for name in scores}),
        *chosen.notes,
        *published_footer(published, sources),
    )
    return whole, replace(shown, footer=footer)


def metrics_in(records: Sequence[Record]) -> dict[str, Any]:
    """{name: facts} of all metrics of the records."""
    return {name: facts for each in records for name, facts in each.metrics.items()}


def heading_of(view: View, first: Record, differing: list[str], position: int, total: int) -> str:
    """The heading of a table of records such as `first`: the view's own, and in what the table differs from others."""
    if view.caption is None:
        return title_of(first, differing, position, total)
    return view.caption if total == 1 else f"{view.caption}: {title_of(first, differing, position, total)}"
