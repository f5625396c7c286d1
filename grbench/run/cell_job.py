"""What the child that runs a cell is told (`run_cell.main`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from grbench.results.record_files import record_path

if TYPE_CHECKING:
    from grbench.run.plan import Plan, PlannedCell
    from grbench.run.run_request import RunRequest


def cell_job(
    plan: Plan, planned: PlannedCell, ready: Mapping[str, Any], request: RunRequest, *, started: str
) -> dict[str, Any]:
    """JSON-ready, and the same for every machine: `cache` is None where each has its own, and `store` is a folder
    in it, or an absolute path. ready: what the cells share, of which `models` maps the training digest of each model
    that this run has kept to its record. started: the time, for the record."""
    trial = planned.blank.trial is not None  # is trained for its validations, and never ranked
    weights = ready["models"].get(planned.blank.training_digest)
    if weights is None and planned.weights is not None:
        weights = str(record_path(plan.folder, planned.weights.digest))
    return {
        "cell": planned.cell.to_json(),
        "blank": replace(planned.blank, started=started).to_json(),
        "source": str(record_path(plan.folder, planned.source.digest)) if planned.source else None,
        "store": ready["place"],
        "cache": None if request.cache is None else str(request.cache),
        "device": ready["device"],
        "peaks": dict(ready["peaks"]),
        "folder": str(plan.folder),
        "checkpoint_minutes": request.checkpoint_minutes,
        "anew": request.force,
        "keep_weights": "weights" in request.keep and not trial,
        "weights": None if trial else weights,
    }
