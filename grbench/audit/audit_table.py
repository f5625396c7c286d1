"""The audits of a suite as text: a table of verdicts, what was found, and what is declared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

from grbench.report.format import counted, duration
from grbench.results.audit_file import SuiteAudit, Verdict

WORDS: dict[Verdict, str] = {"pass": "pass", "leak": "LEAK", "unknown": "unknown"}
DECLARED = "declared"
"""Passes whose details have this word are told, since they say what a reader should know."""


def audit_table(audit: SuiteAudit, form: Literal["terminal", "md"]) -> str:
    """The audit as text for a terminal, or in Markdown."""
    from tabulate import tabulate

    rows = []
    for method in audit.methods:
        verdicts = {result.audit: WORDS[result.verdict] for result in method.results}
        rows.append([method.method, *(verdicts.get(name, "") for name in audit.meanings)])
    layout = "github" if form == "md" else "simple"
    table = tabulate(rows, headers=["method", *audit.meanings], tablefmt=layout, disable_numparse=True)
    title = f"{audit.title or audit.suite}: leak audits"
    heading = f"## {title}\n" if form == "md" else title
    sections = [heading, table, *_leaks(audit), *_not_made(audit), *_remarks(audit, form), "", _totals(audit)]
    return "\n".join(sections) + "\n"


def _leaks(audit: SuiteAudit) -> Iterator[str]:
    """What was found, by audit, with what it means."""
    for name, meaning in audit.meanings.items():
        found = [
            f"- {method.method}: {result.detail}"
            for method in audit.methods
            for result in method.results
            if result.audit == name and result.verdict == "leak"
        ]
        if found:
            yield "\n".join(["", f"{name}: {meaning}", "", *found])


def _not_made(audit: SuiteAudit) -> Iterator[str]:
    """Which audits could not be made, by method and reason."""
    audits: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for method in audit.methods:
        for result in method.results:
            if result.verdict == "unknown":
                audits[method.method, result.detail].append(result.audit)
    if audits:
        yield "\nCould not be audited:\n"
    for (of, reason), names in audits.items():
        yield f"- {of}: {'' if len(names) == len(audit.meanings) else ', '.join(names) + ': '}{reason}"


def _remarks(audit: SuiteAudit, form: str) -> Iterator[str]:
    """What is declared and what was replaced, each once with the methods that it holds of."""
    methods: defaultdict[str, list[str]] = defaultdict(list)
    for method in audit.methods:
        for result in method.results:
            if result.verdict == "pass" and result.audit in ("causality", "files") and DECLARED in result.detail:
                said = result.detail.partition("; ")[2] or result.detail
                methods[f"{result.audit}: {said}"].append(method.method)
        for note in method.notes:
            methods[note].append(method.method)
    if methods:
        yield ""
    for said, of in methods.items():
        yield f"{'- ' if form == 'md' else ''}note: {', '.join(of)}: {said}"


def _totals(audit: SuiteAudit) -> str:
    verdicts = [result.verdict for method in audit.methods for result in method.results]
    seconds = sum(method.cpu_seconds for method in audit.methods)
    worlds = "; ".join(dict.fromkeys(method.world for method in audit.methods if method.world))
    return (
        f"{counted(len(audit.methods), 'method')}, {counted(len(verdicts), 'audit')}: "
        f"{counted(verdicts.count('leak'), 'leak')}, {verdicts.count('unknown')} could not be made. "
        f"Data: {worlds or 'none'}. The audits took {duration(seconds)} of CPU time, beside reading suite and plug-ins"
    )
