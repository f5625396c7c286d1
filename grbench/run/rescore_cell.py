"""A cell whose lists are there already: its metrics are computed from them, and nothing is trained or searched for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.evaluation.scoring import score_lists
from grbench.results.lists import rankings_from, read_lists
from grbench.results.record import Record, now
from grbench.results.record_files import ranking_path, read_record
from grbench.results.values import with_values
from grbench.run.label_users import label_users
from grbench.run.prepare import split_store

if TYPE_CHECKING:
    import pyarrow as pa

    from grbench.data.store import Store
    from grbench.registry.discovery import Registry
    from grbench.suite.suite import Cell

OF_THE_LISTS = ("lists", "pool", "counts", "cost", "environment", "tokenizer", "curve", "weights_from")
"""What a record says of how its lists came to be, whatever is scored from them."""


def rescore_cell(
    cell: Cell, blank: Record, source: Path, store: Store, *, registry: Registry
) -> tuple[Record, pa.Table]:
    """The cell's record with scores from the lists beside the record at `source`, of which it keeps costs, counts and
    environment; and those lists.

    Raises RunError where the lists cannot be read, are of other data or too short, and what a metric raises.
    """
    former = read_record(source)
    path = ranking_path(source.parent, former.digest)
    table = read_lists(path)
    scored, kept = rankings_from(table, split_store(store, cell.protocol, registry), path)
    values = score_lists(
        [registry.build("metrics", metric) for metric in cell.metrics],
        [metric.options.get("k") for metric in cell.metrics],
        cell.list_length,
        scored,
        kept,
    )
    groups, unlabelled = label_users(cell.slices, scored, registry)
    record = replace(
        blank,
        status="ok",
        scores={name: float(each.mean()) for name, each in values.items()},
        rescored_from=former.rescored_from or former.digest,
        finished=now(),
        **{name: getattr(former, name) for name in OF_THE_LISTS},
    )
    lists = {key: value for key, value in former.lists.items() if key != "unlabelled"}
    record = replace(record, lists={**lists, **({"unlabelled": unlabelled} if unlabelled else {})})
    return record, with_values(table, values, groups)
