"""Does anything know the test targets?"""

from __future__ import annotations

from grbench.audit.audit import Audit
from grbench.audit.audited_method import AuditedMethod
from grbench.results.audit_file import AuditResult


class UnseenTargets(Audit):
    """Trains and ranks with other targets in the store, and compares all that crosses an interface, byte for byte."""

    name = "test_targets"
    meaning = (
        "Something that is trained on or ranked by depends on the test targets. Look at the part that is named: it "
        "must read events through the data that it is given, and a protocol must leave targets out of these."
    )

    def run(self, method: AuditedMethod) -> AuditResult:
        """See Audit."""
        return self.compared(method, method.on_redrawn, changed=method.redrawn.changed, ranked=True)
