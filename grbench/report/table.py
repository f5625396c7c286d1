"""Result tables, computed from records. `columns.py` and `footer.py` make their parts; `render.py` formats them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grbench.report.choice import validation_columns
from grbench.report.columns import cost_columns, filter_columns, metric_columns, name_column, run_columns
from grbench.report.compared import ComparedRows, compared_rows
from grbench.report.costs import hardware
from grbench.report.entries import Column, ResultTable
from grbench.report.footer import footer_lines
from grbench.report.published import Sources, beside_ours, published_footer
from grbench.report.view import EVERYTHING, View
from grbench.report.view_notes import view_notes
from grbench.results.record import Record


def tables(records: Sequence[Record], view: View = EVERYTHING) -> list[ResultTable]:
    """One table for each group of comparable records; its heading says in what the groups differ. A table that has none
    of the rows that `view` chooses is left out.

    Raises AlteredError that names the lists that were altered after they were written, or are gone, and RunError where
    the view names a row, a column or a metric that there is not."""
    found = compared_rows(records)
    view.check(
        [row for each in found for row in each.rows],
        {name: facts for each in found for name, facts in each.metrics.items()},
    )
    made, columns = list[ResultTable](), list[Column]()
    for each in found:
        if not view.places(each.rows):
            continue
        whole, shown = _table(each.named(view), view, heading_of(view, each.title, len(found)))
        made.append(shown.printable())
        columns += whole.printable().columns
    view.check_columns(columns)
    return made


def _table(compared: ComparedRows, view: View, heading: str) -> tuple[ResultTable, ResultTable]:
    """(the shown rows with all columns, the same with the shown ones). compared: under the names of the view."""
    every, chosen = compared.rows, compared.chosen
    metrics = view.metrics_of(compared.metrics)
    first = replace(compared.first, metrics={name: dict(facts) for name, facts in metrics.items()})
    of_all = compared.scores(list(metrics))
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


def heading_of(view: View, title: str, total: int) -> str:
    """The heading of one of so many tables: the view's own, and in what the table differs from others. title: as
    `ComparedRows` has it."""
    if view.caption is None:
        return title
    return view.caption if total == 1 else f"{view.caption}: {title}"
