"""Result tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from grbench.report.entries import ResultTable

_FORMULA = ("=", "+", "-", "@")
"""What a formula of a spreadsheet begins with."""


def as_csv(tables: Sequence[ResultTable]) -> str:
    """CSV with unrounded numbers, one line per row. Column `table` is the heading of the row's table, `notes` its
    footer."""
    names = dict.fromkeys(name for table in tables for row in table.values for name in row)
    text = io.StringIO()
    columns = ["table", *names, "notes"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writerow({name: _csv_escaped(name) for name in columns})
    for table in tables:
        for row in table.values:
            values = {"table": table.heading, **row, "notes": " | ".join(table.footer)}
            writer.writerow({name: _csv_escaped(value) for name, value in values.items()})
    return text.getvalue()


def _csv_escaped(value: Any) -> Any:
    """A text that a spreadsheet would compute as a formula, with the apostrophe that makes it text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value
