"""The groups of evaluated users by a suite's slices."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grbench.errors import GRBenchError
from grbench.evaluation.scoring import empty_ranking
from grbench.results.slices import Grouping, grouping

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry
    from grbench.types import Ranking


def label_users(
    slices: Sequence[Component], ranking: Ranking, registry: Registry
) -> tuple[dict[str, Grouping], dict[str, str]]:
    """({slice's name: groups of the users}, {name of a slice that failed: what it raised}) of these slices.

    No score needs a slice, so that the failure of one costs its groups alone.
    """
    found: dict[str, Grouping] = {}
    failed: dict[str, str] = {}
    for component in slices:
        name = component.name
        try:
            part = registry.build("slices", component)
            name = part.name
            found[name] = grouping(part, ranking)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the record says what
            traceback.print_exc()
            failed[name] = str(error) if isinstance(error, GRBenchError) else f"{type(error).__name__}: {error}"
    return found, failed


def check_slices(slices: Sequence[Component], split: Split, registry: Registry) -> None:
    """Asks these slices for the groups of no query, so that an error of a slice that does not fit the dataset is
    raised before training. What else a plug-in raises, the records will say."""
    ranking = empty_ranking(split, 1)
    for component in slices:
        try:
            grouping(registry.build("slices", component), ranking)
        except GRBenchError:
            raise
        except Exception:  # noqa: BLE001 - a plug-in may raise anything
            traceback.print_exc()
