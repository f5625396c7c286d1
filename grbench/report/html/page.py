"""The report as one HTML file. It loads nothing and sends nothing, and a browser runs no script of it but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from grbench import __version__
from grbench.errors import RunError
from grbench.output import printable
from grbench.report.costs import hardware
from grbench.report.format import counted
from grbench.report.html.again import again
from grbench.report.html.audits import audits as audits_section
from grbench.report.html.blocks import Chapter, Section
from grbench.report.html.codes import code_quality
from grbench.report.html.environment import environment
from grbench.report.html.failures import failures
from grbench.report.html.leaderboard import leaderboard
from grbench.report.html.learning_curves import learning_curves
from grbench.report.html.phases import cost_by_phase
from grbench.report.html.published import published_figures
from grbench.report.html.results import Results, results_of
from grbench.report.html.trade_offs import trade_offs
from grbench.report.html.tuning import tuning
from grbench.report.html.user_groups import user_groups
from grbench.results.audit_file import SuiteAudit
from grbench.results.record import Record, now

TEMPLATES = Path(__file__).parent / "templates"
MISSING = "grbench report needs plotly, which is not installed: pip install 'grbench[report]'"

SECTIONS = (
    leaderboard,
    trade_offs,
    learning_curves,
    user_groups,
    code_quality,
    cost_by_phase,
    tuning,
    published_figures,
    audits_section,
    failures,
    environment,
    again,
)
"""In the order of the page."""


def html_report(
    records: Sequence[Record], trials: Sequence[Record] = (), audits: Mapping[str, SuiteAudit] | None = None
) -> str:
    """The page: a chapter for each group of comparable records. trials: of tuned methods; audits: {suite: its leak
    audits}.

    Raises AlteredError as tables do, and RunError where plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise RunError(MISSING) from error
    found = results_of(records, trials, audits or {})
    chapters = [_chapter(results, position) for position, results in enumerate(found, 1)]
    environment_ = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment_.filters["breakable"] = _breakable
    plotly, script = get_plotlyjs(), (TEMPLATES / "page.js").read_text(encoding="utf-8")
    title = chapters[0].title if len(chapters) == 1 else "Results of " + ", ".join(_suites(found))
    return environment_.get_template("page.html").render(
        title=title,
        chapters=chapters,
        made=now(),
        version=__version__,
        style=_trusted((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        scripts=[_trusted(plotly), _trusted(script)],
        policy=_policy(plotly, script),
    )


def _chapter(results: Results, position: int) -> Chapter:
    return Chapter(f"part{position}", results.table.heading, _facts(results), _sections(results))


def _sections(results: Results) -> list[Section]:
    return [section(results) for section in SECTIONS]


def _facts(results: Results) -> list[tuple[str, str]]:
    """What a reader wants to know before any number."""
    records, first = results.compared.records, results.compared.first
    interrupted = sum(record.status == "interrupted" for record in records)
    failed = sum(record.status != "ok" for record in records) - interrupted
    without = [f"{number} {word}" for number, word in ((failed, "failed"), (interrupted, "interrupted")) if number]
    machines = dict.fromkeys(hardware(record) for record in records if record.status == "ok" and not record.external)
    finished = max((record.finished for record in records), default="")[:10]
    facts = [
        ("Dataset", _dataset(first)),
        ("Protocol", str(first.protocol.get("name", "unknown"))),
        ("Evaluated", counted(first.counts["evaluated"], "user") if "evaluated" in first.counts else ""),
        ("Ranked", counted(first.pool["size"], "candidate") if first.pool else ""),
        ("Compared", counted(len(results.compared.rows), "method")),
        ("Cells", f"{len(records)} ({', '.join(without)})" if without else f"{len(records)}, all finished"),
        ("Machine", next(iter(machines), "") if len(machines) < 2 else f"{len(machines)} different ones"),
        ("Last result", finished),
    ]
    return [(name, value) for name, value in facts if value]


def _dataset(record: Record) -> str:
    name, path = str(record.dataset.get("name", "unknown")), (record.dataset.get("options") or {}).get("path")
    return f"{name}, {path}" if isinstance(path, str) else name


def _suites(found: Sequence[Results]) -> list[str]:
    return list(dict.fromkeys(name for results in found for name in results.suites))


def _visible(value: Any) -> Any:
    """What the template shows of a text that is not its own: control characters as escapes."""
    return printable(value, "\n") if type(value) is str else value


def _breakable(text: str) -> Any:
    """A name or a sentence, escaped, that may be broken between the words of names too: `one_way[|width=|64]`."""
    from markupsafe import Markup, escape

    parts = re.split(r"(?<=[_\[,=/.])(?=[^\s_])", printable(text, "\n"))
    return Markup("<wbr>").join(escape(part) for part in parts)


def _trusted(text: str) -> Any:
    """Our own style or script, which is not escaped. Raises ValueError where it would end its element."""
    from markupsafe import Markup

    if re.search(r"</(script|style)", text, re.IGNORECASE):
        raise ValueError("a script or style of the page holds the end of its own element")
    return Markup(text)


def _policy(*scripts: str) -> str:
    """The page's content security policy: no request to anywhere, and no script but these."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
