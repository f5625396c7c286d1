"""The table of a suite's audits."""

from __future__ import annotations

from grbench.audit.audit_table import audit_table
from grbench.results.audit_file import AuditResult, MethodAudit, SuiteAudit

DEPENDS = "12 states are the same whatever comes after them; as declared, they depend on the action of the next event"
AUDIT = SuiteAudit(
    "tiny",
    {"causality": "A state depends on events after it.", "files": "A part reads a file that no option names."},
    (
        MethodAudit("a", "0", (AuditResult("causality", "pass", DEPENDS), AuditResult("files", "pass", "none"))),
        MethodAudit(
            "b", "1", (AuditResult("causality", "pass", DEPENDS), AuditResult("files", "leak", "undeclared: x"))
        ),
        MethodAudit("c", "2", (AuditResult("files", "unknown", "ValueError: no"),), notes=("codes stand in",)),
    ),
    title="Tiny",
)


def test_verdicts_faults_with_their_meaning_and_what_is_declared() -> None:
    text = audit_table(AUDIT, "md")
    assert text.startswith("## Tiny: leak audits\n\n| method   | causality   | files   |\n")
    assert "| a        | pass        | pass    |" in text
    assert "| b        | pass        | LEAK    |" in text
    assert "| c        |             | unknown |" in text
    assert "files: A part reads a file that no option names.\n\n- b: undeclared: x\n" in text
    assert "Could not be audited:\n\n- c: files: ValueError: no\n" in text
    assert "A state depends on events after it." not in text
    assert "- note: a, b: causality: as declared, they depend on the action of the next event\n" in text
    assert "- note: c: codes stand in\n" in text
    assert "3 methods, 5 audits: 1 leak, 1 could not be made." in text


def test_a_terminal_gets_no_markup() -> None:
    text = audit_table(AUDIT, "terminal")
    assert text.startswith("Tiny: leak audits\nmethod    causality    files\n")
    assert "|" not in text
