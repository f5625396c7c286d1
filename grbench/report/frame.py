"""Results as a pandas DataFrame, for notebooks."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import pandas as pd

from grbench.report.choice import hidden_records, place_key
from grbench.results.integrity import intact_records
from grbench.results.record_files import latest


def load_results(*places: str | PathLike[str]) -> pd.DataFrame:
    """All records in the given folders and files as a tidy DataFrame, one row per cell and metric.

    Columns: suite, method, seed, status, error, metric, value (NaN where the cell failed; metric is None where it
    failed before its metrics were known), then columns that are equal in all rows of a cell: shown (whether tables show
    its test scores; those of a grid's rows that were not chosen on validation they do not), dataset, protocol,
    finished, digest, training_digest, lists_digest, rescored_from, weights_from, older_identity, external,
    and nested values joined with dots:
    counts.evaluated, counts.parameters, cost.train_seconds, cost.phases.search.seconds, environment.gpu, lists.scored
    and so on. Of copies of a record, and of records that differ only in their metrics, the newest
    successful one is used, else the newest.

    Raises RunError where a path does not exist, or a file is not a record or has a newer schema.
    """
    records = latest(intact_records([Path(place) for place in places]))
    hidden = hidden_records(records)
    rows = [
        {
            "suite": record.suite,
            "method": record.method,
            "seed": record.seed,
            "status": record.status,
            "error": (record.error or {}).get("message"),
            "metric": metric,
            "value": record.scores.get(metric or "", float("nan")),
            "shown": record.status == "ok" and place_key(record) not in hidden,
            "dataset": record.dataset.get("name"),
            "protocol": record.protocol.get("name"),
            "finished": record.finished,
            "digest": record.digest,
            "training_digest": record.training_digest,
            "lists_digest": record.lists_digest,
            "rescored_from": record.rescored_from,
            "weights_from": record.weights_from,
            "older_identity": record.older_identity,
            "external": record.external is not None,
            "counts": record.counts,
            "cost": record.cost,
            "environment": record.environment,
            "lists": record.lists,
        }
        for record in records
        for metric in record.metrics or [None]
    ]
    return pd.json_normalize(rows)
