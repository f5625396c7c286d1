"""What came of checks, as text that the author of a plug-in understands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from grbench.report.format import counted
from grbench.testing.checks.run_checks import CheckOutcome

WIDTH = 100


def outcome_table(outcomes: Sequence[CheckOutcome], not_checked: Mapping[str, str]) -> str:
    """One line a check by plug-in, then each failure with what was seen, what it means and how to mend it.
    not_checked: {plug-in: why it could not be checked}."""
    plugins = list(dict.fromkeys(outcome.plugin for outcome in outcomes))
    lines: list[str] = []
    for plugin in plugins:
        lines += [*_of_plugin(plugin, [each for each in outcomes if each.plugin == plugin]), ""]
    for plugin, reason in not_checked.items():
        lines += [f"{plugin}: not checked: {reason}", ""]
    verdicts = [outcome.verdict for outcome in outcomes]
    lines.append(
        f"{counted(len(plugins), 'plug-in')}, {counted(len(outcomes), 'check')}: {verdicts.count('passed')} passed, "
        f"{verdicts.count('failed')} failed, {verdicts.count('skipped')} skipped"
    )
    return "\n".join(lines) + "\n"


def _of_plugin(plugin: str, outcomes: Sequence[CheckOutcome]) -> Iterator[str]:
    yield plugin
    longest = max(len(outcome.check.name) for outcome in outcomes)
    for outcome in outcomes:
        word = "FAILED" if outcome.verdict == "failed" else outcome.verdict
        why = f"  {outcome.seen}" if outcome.verdict == "skipped" else ""
        yield f"  {outcome.check.name:<{longest}}  {word}{why}"
    for outcome in outcomes:
        if outcome.verdict == "failed":
            yield ""
            yield f"  {outcome.check.name}"
            yield from _explained("seen", outcome.seen)
            yield from _explained("means", outcome.check.means)
            yield from _explained("mend", outcome.check.mend)


def _explained(word: str, text: str) -> Iterator[str]:
    first = f"    {word + ':':<7}"
    yield from textwrap.wrap(
        " ".join(text.split()), WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False
    )
