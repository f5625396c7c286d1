"""What came of checks, as text that the author of a plug-in understands: a line as soon as a check is done, then each
failure with what was seen, what it means and how to mend it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from grbench.report.format import counted
from grbench.testing.checks.check import Check
from grbench.testing.checks.run_checks import CheckOutcome

WIDTH = 100


def names_of(checks: Sequence[Check]) -> list[str]:
    """The beginnings of a plug-in's lines, of equal length."""
    longest = max((len(check.name) for check in checks), default=0)
    return [f"  {check.name:<{longest}}  " for check in checks]


def verdict_of(outcome: CheckOutcome) -> str:
    """The end of a line."""
    if outcome.verdict == "failed":
        return "FAILED"
    return outcome.verdict + (f"  {outcome.seen}" if outcome.verdict == "skipped" else "")


def failures_of(outcomes: Sequence[CheckOutcome]) -> Iterator[str]:
    """The lines that explain a plug-in's failures."""
    for outcome in outcomes:
        if outcome.verdict == "failed":
            yield ""
            yield f"  {outcome.check.name}"
            yield from _explained("seen", outcome.seen)
            yield from _explained("means", outcome.check.means)
            yield from _explained("mend", outcome.check.mend)


def summary_of(outcomes: Sequence[CheckOutcome]) -> str:
    """The last line."""
    plugins = {outcome.plugin for outcome in outcomes}
    verdicts = [outcome.verdict for outcome in outcomes]
    return (
        f"{counted(len(plugins), 'plug-in')}, {counted(len(outcomes), 'check')}: {verdicts.count('passed')} passed, "
        f"{verdicts.count('failed')} failed, {verdicts.count('skipped')} skipped"
    )


def _explained(word: str, text: str) -> Iterator[str]:
    first = f"    {word + ':':<7}"
    yield from textwrap.wrap(
        " ".join(text.split()), WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False
    )
