"""Records of a tiny suite, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grbench.results.record import Record
from grbench.results.record_files import ranking_path
from grbench.results.slices import Grouping
from grbench.results.values import with_values

METRICS = {
    "hit_rate@10": {"label": "HR@10", "higher_is_better": True, "version": "v1"},
    "mean_rank": {"higher_is_better": False, "version": "v1"},
}
MACHINE = {"cpu": "Test CPU", "cpu_threads": 2, "ram_bytes": 24 * 2**30, "device": "cpu"}


def a_record(method: str, seed: int = 0, hit_rate: float | None = None, rank: float = 5.0, **values: Any) -> Record:
    done = hit_rate is not None
    made: dict[str, Any] = {
        "digest": f"{method}-{seed}",
        "suite": "tiny",
        "identity": {"training": {"encoder": {"name": method}, "seed": seed}, "ranking": {}, "metrics": []},
        "status": "ok" if done else "error",
        "error": None if done else {"type": "ValueError", "message": "no such thing\nmore", "traceback": ""},
        "dataset": {"name": "toy", "digest": "d1", "options": {"path": "data/toy"}},
        "protocol": {"name": "last_positive", "positives": ["click"], "out_of_pool": "drop"},
        "metrics": METRICS,
        "pool": {"size": 660000, "digest": "p1"} if done else None,
        "scores": {"hit_rate@10": hit_rate, "mean_rank": rank} if done else {},
        "counts": {"evaluated": 78921, "dropped": {"no_positive": 1745, "out_of_pool": 19518}, "parameters": 1_400_000},
        "cost": {
            "train_seconds": 90.0,
            "train_users_per_second": 1520.4,
            "peak_process_bytes": 3 * 2**30,
            "search_queries_per_second": 1800.0,
            "search_p99_ms": 0.5,
        },
        "environment": MACHINE,
    }
    return Record(method=method, seed=seed, **(made | values))


def measured(
    folder: Path,
    method: str,
    *seeds: Sequence[float],
    ranks: Sequence[float] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    **values: Any,
) -> list[Record]:
    """A method's records with its users' values in `folder`. seeds: each seed's hit rates, one per user; ranks: the
    mean_rank of each user in all seeds, 5 where not given; groups: {slice: each user's group, "" = none}."""
    groupings = {name: a_grouping(labels) for name, labels in (groups or {}).items()}
    records = []
    for seed, hits in enumerate(seeds):
        of_users = {"hit_rate@10": np.array(hits), "mean_rank": np.array(ranks or [5.0] * len(hits))}
        means = {name: float(each.mean()) for name, each in of_users.items()}
        record = a_record(method, seed, means["hit_rate@10"], means["mean_rank"], folder=folder, **values)
        lists = with_values(pa.table({"user": np.arange(len(hits))}), of_users, groupings)
        pq.write_table(lists, ranking_path(folder, record.digest))
        records.append(record)
    return records


def a_grouping(labels: Sequence[str]) -> Grouping:
    """The groups in the order in which they first occur."""
    groups = tuple(dict.fromkeys(label for label in labels if label))
    return Grouping(np.array([groups.index(label) if label else -1 for label in labels]), groups)


HIT, MISS = [1.0] * 20, [0.0] * 20
