"""What of a cell's costs only the process sees that has started it: its wall time, and what ran beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from grbench.results.record import Record
from grbench.results.record_files import checkpoint_folder, replace_record
from grbench.run.backends.backend import Beside
from grbench.run.backends.child_process import ChildMessage
from grbench.run.beside_file import keep_beside
from grbench.run.neighbours import joined


def with_whole_cost(folder: Path, record: Record, neighbours: Beside, seconds: float) -> Record:
    """A cell's record that also says the costs of the whole cell, on disk too. seconds: of this attempt."""
    if record.status != "ok":
        if "beside" in record.cost:
            return record
        record = replace(record, cost={**record.cost, "beside": neighbours.facts()})
    elif "total_seconds" in record.cost:  # a re-scored one keeps the costs of its source
        return record
    else:
        earlier = record.cost.get("earlier_seconds") or 0.0
        beside = joined(record.cost.get("beside"), neighbours.facts(), earlier, seconds)
        record = replace(record, cost={**_whole(record.cost, seconds), "beside": beside})
    replace_record(folder, record)
    return record


def note_checkpoint(folder: Path, digest: str, event: ChildMessage, neighbours: Beside, began: float) -> None:
    """Keeps what ran beside a cell until the checkpoint that its child has just written, for an attempt that goes on
    from it. event: the child's; began: when this attempt did, by the monotonic clock."""
    seconds = time.monotonic() - began
    beside = joined(event["beside"], neighbours.facts(), event["earlier_seconds"], seconds)
    keep_beside(checkpoint_folder(folder, digest), beside)


def _whole(cost: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The cost with the cell's wall time, that of earlier attempts included, and how much of it lies in none of its
    phases (starting the process, importing, assembling, writing, ending)."""
    seconds += cost.get("earlier_seconds") or 0.0
    in_phases = sum(phase["seconds"] for phase in cost["phases"].values())
    return {**cost, "total_seconds": seconds, "overhead_seconds": seconds - in_phases}
