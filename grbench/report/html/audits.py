"""What the leak audits came to."""

from __future__ import annotations

from collections.abc import Iterator

from grbench.report.format import counted, duration
from grbench.report.html.blocks import Block, Entry, Grid, Heading, Notes, Paragraph, Section, Tone
from grbench.report.html.results import Results
from grbench.results.audit_file import SuiteAudit, Verdict

WORDS: dict[Verdict, tuple[str, Tone]] = {
    "pass": ("pass", "good"),
    "leak": ("LEAK", "bad"),
    "unknown": ("unknown", "unsure"),
}


def audits(results: Results) -> Section:
    """Each suite's verdicts as a table, and what was found."""
    without = [name for name in results.suites if name not in results.audits]
    absent = (
        f"Leak audits: there are none of {', '.join(without)}; "
        f"{' and '.join(f'grbench audit {name}' for name in without[:3])} makes them, beside the records."
    )
    if not results.audits:
        return Section("audits", "Leak audits", absent=absent)
    blocks = [block for audit in results.audits.values() for block in _blocks(audit)]
    return Section(
        "audits",
        "Leak audits",
        "Whether anything of the test reaches a method before it should: each was run on a small world in which "
        "leaks show.",
        (*blocks, *([Paragraph(absent)] if without else [])),
    )


def _blocks(audit: SuiteAudit) -> Iterator[Block]:
    rows = []
    for method in audit.methods:
        verdicts = {result.audit: result.verdict for result in method.results}
        entries = [WORDS[verdicts[name]] if name in verdicts else ("—", "") for name in audit.meanings]
        rows.append([Entry(method.method), *(Entry(text, tone=tone) for text, tone in entries)])
    verdicts_ = [result.verdict for method in audit.methods for result in method.results]
    yield Grid(
        f"{audit.suite}: {counted(len(verdicts_), 'audit')}, {counted(verdicts_.count('leak'), 'leak')}, "
        f"{verdicts_.count('unknown')} could not be made; by grbench {audit.grbench}, {audit.finished[:10]}",
        [
            Heading("method", numeric=False),
            *(Heading(name.replace("_", " "), numeric=False) for name in audit.meanings),
        ],
        rows,
    )
    found = [
        f"{method.method}, {result.audit}: {result.detail}"
        for method in audit.methods
        for result in method.results
        if result.verdict != "pass"
    ]
    if found:
        yield Notes(found)
    yield Notes(
        [f"{name}: {meaning}" for name, meaning in audit.meanings.items()], title="What a failure of each audit means"
    )
    passed = [
        f"{method.method}, {result.audit}: {result.detail}"
        for method in audit.methods
        for result in method.results
        if result.verdict == "pass" and result.detail
    ]
    passed += [f"{method.method}: {note}" for method in audit.methods for note in method.notes]
    worlds = dict.fromkeys(method.world for method in audit.methods if method.world)
    seconds = sum(method.cpu_seconds for method in audit.methods)
    yield Notes(
        [*passed, *(f"Data: {world}" for world in worlds), f"the audits took {duration(seconds)} of CPU time"],
        title="What was looked at",
    )
