"""All checks, by kind."""

from __future__ import annotations

from collections.abc import Mapping

from grbench.hookspecs import KINDS
from grbench.testing.checks import (
    datasets,
    encoders_training,
    losses,
    metrics,
    optimizers,
    protocols,
    retrievers,
    slices,
    tokenizers,
    trackers,
    trainers,
)
from grbench.testing.checks.check import Check
from grbench.testing.checks.files import file_check
from grbench.testing.checks.shared import shared_checks

# The module encoders_training adds to the checks of the module encoders.
_OF_KINDS = {
    each.CHECKS.kind: each.CHECKS
    for each in (
        *(datasets, protocols, tokenizers, encoders_training, losses, trainers),
        *(retrievers, metrics, slices, optimizers, trackers),
    )
}

CHECKS: Mapping[str, tuple[Check, ...]] = {
    kind: (*shared_checks(kind), *_OF_KINDS[kind].all, *file_check(kind, needs=_OF_KINDS[kind].base)) for kind in KINDS
}
"""{kind, plural: its checks, in the order of a table}."""
