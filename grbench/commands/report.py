"""`grbench report`: makes an HTML report from records."""

from __future__ import annotations

from pathlib import Path

import click

from grbench.commands.streams import complain, say
from grbench.errors import RunError


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The page, a .html file.")
def report(results: tuple[Path, ...], out: Path) -> None:
    """Make a report of records, in folders of results or single record files: one HTML file that opens offline.

    It has the table with filters, quality against cost, learning curves, groups of users, codes, costs by phase,
    tuning, published figures, audits, failures, the environment, and the suite and commands to do it again.
    Records that cannot be compared have parts of their own. Altered records and lists are refused, as by `grbench
    table`. Needs grbench[report].

    \b
    grbench report results/quickstart --out report.html
    grbench report results/final_round other_machine/final_round --out report.html
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"{out}: a report is written as .html")
    from rich.console import Console

    from grbench.report.html.page import html_report
    from grbench.results.atomic import write_atomically
    from grbench.results.audit_file import read_audit
    from grbench.results.integrity import intact_records
    from grbench.results.record_files import read_records

    with Console(stderr=True).status("reading the records"):
        records = intact_records(results, note=lambda text: complain(f"note: {text}"))
        if not records:
            raise RunError(f"{', '.join(map(str, results))}: there are no records; grbench run SUITE writes them")
        trials = read_records(results, lambda _: None, trials=True)
        folders = dict.fromkeys(record.folder for record in records if record.folder is not None)
        audits = {audit.suite: audit for folder in folders if (audit := read_audit(folder)) is not None}
    with Console(stderr=True).status("making the report"):
        page = html_report(records, trials, audits).encode()
    write_atomically(out, lambda file: file.write(page))
    say(f"{out}: {len(page) / 1e6:.1f} MB, opens in any browser, offline")
