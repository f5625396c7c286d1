"""All audits, in the order of a table."""

from __future__ import annotations

from grbench.audit.audit import Audit
from grbench.audit.causality import Causality
from grbench.audit.chance import Chance
from grbench.audit.files import Files
from grbench.audit.futures import EvaluatedFutures
from grbench.audit.targets import UnseenTargets

AUDITS: dict[str, Audit] = {
    audit.name: audit for audit in (UnseenTargets(), EvaluatedFutures(), Chance(), Causality(), Files())
}
"""By name."""
