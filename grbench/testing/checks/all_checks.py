"""All checks, by kind."""

from __future__ import annotations

from collections.abc import Mapping

from grbench.hookspecs import KINDS
from grbench.testing.checks import encoders, metrics
from grbench.testing.checks.check import Check
from grbench.testing.checks.shared import shared_checks

_OF_KINDS = {each.CHECKS.kind: each.CHECKS.all for each in (encoders, metrics)}

CHECKS: Mapping[str, tuple[Check, ...]] = {kind: (*shared_checks(kind), *_OF_KINDS.get(kind, ())) for kind in KINDS}
"""{kind, plural: its checks, in the order of a table}."""
