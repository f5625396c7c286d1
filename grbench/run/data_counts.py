"""What a record counts of the data that its cell was evaluated on, whatever ranked the candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grbench.evaluation.filters import unreachable_targets

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.data.store import Store


def data_counts(store: Store, split: Split, filters: Sequence[str]) -> dict[str, Any]:
    """`dropped` maps each reason to the users that it cost, `unreachable` each filter to the targets that it leaves out
    of the lists, `remarks` are the store's and the split's."""
    whole = {key: value for key, value in split.counts.items() if not key.startswith("dropped_")}
    dropped = {key.removeprefix("dropped_"): value for key, value in split.counts.items() if key not in whole}
    remarks = [*store.remarks, *split.remarks]
    return {
        **whole,
        "dropped": dropped,
        "unreachable": unreachable_targets(split, split.test, filters),
        "training_users": len(split.training.users),
        "training_events": split.training.num_events,
        "validation_users": 0 if split.validation is None else len(split.validation),
        **({} if store.ties is None else {"ties": dataclasses.asdict(store.ties)}),
        **({"remarks": remarks} if remarks else {}),
    }
