"""How to do it again: the suite as the records have it, and the commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from grbench.output import printable
from grbench.report.html.blocks import Block, CodeText, Entry, Grid, Heading, Section
from grbench.report.html.environment import distributions
from grbench.report.html.recorded_suite import RecordedSuite, recorded_suite
from grbench.report.html.results import Results
from grbench.results.record import Record

CONTINUED = "\\\n  "


def again(results: Results) -> Section:
    """Commands, the suite of each name, and the digests that say whether a cell is the same."""
    blocks: list[Block] = []
    for name in results.suites:
        records = [record for record in results.compared.records if record.suite == name]
        suite = recorded_suite(name, records)
        blocks.append(CodeText(_commands(name, suite, records), f"commands for {name}"))
        if suite is not None:
            blocks.append(CodeText(suite.text, f"suite {name}", title=f"{name}.yaml, put together from the records"))
    headings = [
        Heading("method", numeric=False),
        Heading("seed"),
        Heading("status", numeric=False),
        Heading("record", numeric=False),
        Heading("training", numeric=False),
        Heading("lists", numeric=False),
        Heading("finished (UTC)", numeric=False),
    ]
    rows = [
        [
            Entry(record.method),
            Entry(str(record.seed), record.seed),
            Entry(record.status),
            Entry(record.digest),
            Entry(record.training_digest or "—"),
            Entry(record.lists_digest or "—"),
            Entry(record.finished[:16].replace("T", " ") or "—"),
        ]
        for record in results.compared.records
    ]
    blocks.append(Grid("All cells", headings, rows, title="Digests of all cells"))
    return Section(
        "again",
        "Do it again",
        "A digest names everything that a cell's numbers depend on: with the same data, plug-ins and versions, the "
        "same commands give records with the same digests.",
        blocks,
    )


def _commands(name: str, suite: RecordedSuite | None, records: Sequence[Record]) -> str:
    """Lines for a shell. Names are somebody else's: no line end within them ends a comment or begins a command."""
    name = printable(name)
    file, results = shlex.quote(f"{name}.yaml"), shlex.quote(f"results/{name}")
    commits = dict.fromkeys(str(record.environment.get("git_commit") or "") for record in records)
    lines = [f"# distributions: {printable(', '.join(distributions(records))) or 'not recorded'}"]
    lines += [f"git checkout {commit}" for commit in commits if re.fullmatch(r"[0-9a-f]{7,64}", commit)]
    if any(record.environment.get("git_changed") for record in records):
        lines.append("# files were changed since that commit when some of the cells ran")
    if suite is not None:
        lines.append(f"# save the suite below as {file}")
        for seeds, methods in suite.seeds.items():
            lines.append(_run(file, seeds, methods, suite))
    lines += [f"grbench verify {results}", f"grbench table {results}", f"grbench report {results} --out report.html"]
    return "\n".join(lines) + "\n"


def _run(file: str, seeds: Sequence[int], methods: Sequence[str], suite: RecordedSuite) -> str:
    if len(suite.seeds) == 1:
        return f"grbench run {file}"
    given = [*(f"--only {shlex.quote(method)}" for method in methods), f"--set seeds=[{','.join(map(str, seeds))}]"]
    return f" {CONTINUED}".join([f"grbench run {file}", *given])
