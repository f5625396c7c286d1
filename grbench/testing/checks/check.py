"""A check of a plug-in: what is tried, what a failure means, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grbench.testing.checks.checked_plugin import CheckedPlugin

Try = Callable[["CheckedPlugin"], None]
"""Tries a plug-in; raises CheckFailedError, or whatever the plug-in raises, where it does not pass, and
CheckSkippedError where there is nothing to try."""


class CheckFailedError(AssertionError):
    """The plug-in does not pass the check; the message says what was seen."""


class CheckSkippedError(Exception):
    """The check does not apply to the plug-in; the message says why."""


@dataclass(frozen=True)
class Check:
    """One check.

    kind: of the plug-ins that it is for, plural; name: of letters and `_`; means: a sentence that says what a failure
    means; mend: one that says how to mend it; needs: the checks without which this one would show nothing but their
    failure, so that it is skipped where one of them fails.
    """

    kind: str
    name: str
    means: str
    mend: str
    run: Try
    needs: tuple[Check, ...] = ()


@dataclass
class KindChecks:
    """The checks of a kind, in the order of a table. base: those that all later ones need."""

    kind: str
    all: list[Check] = field(default_factory=list)
    base: list[Check] = field(default_factory=list)

    def add(self, *, means: str, mend: str, base: bool = False, needs: Collection[str] = ()) -> Callable[[Try], Try]:
        """A decorator that makes a function a check by the function's name. base: all later checks need it; needs:
        names of earlier ones that this one needs besides."""

        def added(run: Try) -> Try:
            needed = (*self.base, *(check for check in self.all if check.name in needs))
            check = Check(self.kind, run.__name__, means, mend, run, needed)
            self.all.append(check)
            if base:
                self.base.append(check)
            return run

        return added


def require(held: object, seen: str) -> None:
    """Raises CheckFailedError with what was seen, unless it held."""
    if not held:
        raise CheckFailedError(seen)


def skip_unless(applies: object, reason: str) -> None:
    """Raises CheckSkippedError with the reason, unless the check applies."""
    if not applies:
        raise CheckSkippedError(reason)
