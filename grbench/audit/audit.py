"""The interface of an audit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from grbench.audit.audited_method import AuditedMethod, AuditRun, crossing_at
from grbench.results.audit_file import AuditResult


class Audit(ABC):
    """An experiment on a method. name: in a suite's table; meaning: a sentence that says what a failure means and how
    to mend it."""

    name: ClassVar[str]
    meaning: ClassVar[str]

    @abstractmethod
    def run(self, method: AuditedMethod) -> AuditResult:
        """Makes the experiment. What it raises is the reason why the method could not be audited."""

    def passed(self, detail: str) -> AuditResult:
        """detail: what was looked at."""
        return AuditResult(self.name, "pass", detail)

    def leak(self, detail: str) -> AuditResult:
        """detail: what was found."""
        return AuditResult(self.name, "leak", detail)

    def unknown(self, detail: str) -> AuditResult:
        """detail: why nothing can be said."""
        return AuditResult(self.name, "unknown", detail)

    def compared(self, method: AuditedMethod, other: AuditRun, *, changed: str, ranked: bool) -> AuditResult:
        """The plain run against one on a world in which `changed` differs, which nothing may show. ranked: whether what
        depends on the test queries' histories is compared too."""
        index = method.plain.trace.first_difference(other.trace, ranked=ranked)
        if index is None:
            compared = sum(ranked or not each.ranked for each in other.trace.crossings)
            return self.passed(f"with other values of {changed}, all {compared} things that crossed are the same")
        found = crossing_at(index, method.plain.trace, other.trace)
        if method.not_repeatable is not None:
            return self.unknown(
                f"two equal runs differ, first in {method.not_repeatable.text}, so runs cannot be compared"
            )
        return self.leak(f"other values of {changed} change {found.text}")
