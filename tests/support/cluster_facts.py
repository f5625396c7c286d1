"""What runs of the same cells on clusters and on this machine are compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from grbench.results.record import Record

LONG = "{encoder: {name: causal_transformer, width: 8}, loss: bce, training: {epochs: 150, batch_size: 4}}"
"""A method of the tiny world whose training takes long enough to be interrupted."""


def facts_of(folder: Path, record: Record) -> tuple[Any, ...]:
    """What two runs of a cell have in common: scores, losses, lists."""
    lists = pq.read_table(folder / "tiny" / f"{record.digest}.parquet").to_pydict()
    return record.digest, record.status, record.scores, [row["loss"] for row in record.curve], lists
