"""Results as a pandas DataFrame, for notebooks."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import pandas as pd

from grbench.results.record import latest, read_records


def load_results(*places: str | PathLike[str]) -> pd.DataFrame:
    """Every record in these folders and files, one row for each cell and metric: tidy, as plots and groupings want it.

    Columns: suite, method, seed, status, error, metric, value (NaN where the cell failed; the metric too where it
    failed before its metrics were known), then what is the same in all rows of a cell: dataset, protocol, finished,
    digest, training_digest, lists_digest, rescored_from, older_identity, and nested facts with dots: counts.evaluated,
    counts.parameters, cost.train_seconds, cost.phases.search.seconds, environment.gpu, lists.scored and so on. Of
    copies of a record, and of records that differ in their metrics alone, it is the one that finished last.

    Raises RunError where a place does not exist, or a file is no record or of a newer schema.
    """
    rows = [
        {
            "suite": record.suite,
            "method": record.method,
            "seed": record.seed,
            "status": record.status,
            "error": (record.error or {}).get("message"),
            "metric": metric,
            "value": record.scores.get(metric or "", float("nan")),
            "dataset": record.dataset.get("name"),
            "protocol": record.protocol.get("name"),
            "finished": record.finished,
            "digest": record.digest,
            "training_digest": record.training_digest,
            "lists_digest": record.lists_digest,
            "rescored_from": record.rescored_from,
            "older_identity": record.older_identity,
            "counts": record.counts,
            "cost": record.cost,
            "environment": record.environment,
            "lists": record.lists,
        }
        for record in latest(read_records([Path(place) for place in places]))
        for metric in record.metrics or [None]
    ]
    return pd.json_normalize(rows)
