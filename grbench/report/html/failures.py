"""The cells that have no result, and why."""

from __future__ import annotations

from grbench.report.format import counted, duration
from grbench.report.html.blocks import Block, CodeText, Entry, Grid, Heading, Section
from grbench.report.html.results import Results
from grbench.results.record import Record

MEANINGS = {
    "error": "an exception",
    "oom": "memory ran out, as the library or the kernel said",
    "killed": "its process was killed by another",
    "timeout": "it took longer than --timeout",
    "interrupted": "it was interrupted, and goes on when it is run again",
}


def failures(results: Results) -> Section:
    """A row a failed cell, with its reason, and the tracebacks below."""
    records = results.compared.records
    failed = [record for record in records if record.status != "ok"]
    if not failed:
        return Section("failures", "Failures", absent=f"Failures: none; {counted(len(records), 'cell')} finished.")
    headings = [
        Heading("method", numeric=False),
        Heading("seed"),
        Heading("status", numeric=False),
        Heading("reason", numeric=False),
        Heading("after"),
    ]
    rows = [
        [
            Entry(record.method),
            Entry(str(record.seed), record.seed),
            Entry(
                record.status, tone="bad" if record.status != "interrupted" else "unsure", more=MEANINGS[record.status]
            ),
            Entry(_reason(record)),
            Entry(duration(record.cost.get("total_seconds")), record.cost.get("total_seconds")),
        ]
        for record in failed
    ]
    tracebacks: dict[str, list[str]] = {}
    for record in failed:
        if text := (record.error or {}).get("traceback", "").strip():
            tracebacks.setdefault(text, []).append(f"{record.method}, seed {record.seed}")
    blocks: list[Block] = [
        CodeText(text, "traceback", title=f"Traceback of {'; '.join(cells)}") for text, cells in tracebacks.items()
    ]
    lead = (
        f"{len(failed)} of {counted(len(records), 'cell')} have no result. They are rows of the leaderboard too; the "
        "same grbench run tries them again."
    )
    return Section("failures", "Failures", lead, (Grid(counted(len(failed), "failed cell"), headings, rows), *blocks))


def _reason(record: Record) -> str:
    error = record.error or {}
    kind, message = error.get("type", ""), error.get("message", "").strip()
    return f"{kind}: {message}" if kind and message else message or kind or "not recorded"
