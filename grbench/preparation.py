"""Before any cell runs: the store is built once, and the protocol tried on it. `python -m grbench.preparation JOB.json`
does it in a process of its own, so that the memory that reading a dataset takes is given back before training.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench import errors
from grbench.errors import GRBenchError, RunError, SuiteError
from grbench.processes import Events, begin_child

if TYPE_CHECKING:
    from grbench.data.split import Split
    from grbench.data.store import Store
    from grbench.method import Component

REFUSED = 2
"""Exit status where the request was wrong; the event `refused` says why."""


def store_cache(folder: Path | None = None) -> Path:
    """Where stores lie: the folder given, else $GRBENCH_CACHE, else ~/.cache/grbench."""
    return folder or Path(os.environ.get("GRBENCH_CACHE") or Path.home() / ".cache" / "grbench")


def split_store(store: Store, protocol: Component) -> Split:
    """What the protocol makes of the store; raises DataError where it leaves nobody to train on or to evaluate."""
    from grbench.data.protocols import PROTOCOLS

    return PROTOCOLS[protocol.name](**protocol.options).split(store)


def list_length(metrics: Sequence[Component]) -> int:
    """How long the lists must be for every metric: the largest `k` among them, 10 where none has one."""
    return max((int(metric.options["k"]) for metric in metrics if metric.options.get("k")), default=10)


def resolve_device(device: str) -> str:
    """`auto` is cuda where there is one, else cpu; raises RunError where cuda is asked for and absent."""
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise RunError("--device cuda: torch sees no CUDA device here; use --device cpu, or auto to take what there is")
    return device if device != "auto" else ("cuda" if available else "cpu")


def prepare(job: Mapping[str, Any], events: Events) -> dict[str, Any]:
    """Builds or finds the store and tries the protocol. job: {cell, cache, device, filters: every method's,
    validates: whether any method selects by validation users}.

    Returns {store, device, pool, counts}; raises GRBenchError where the request cannot be met.
    """
    from grbench.data.writing import build_store
    from grbench.evaluation import check_metrics, shown_candidates
    from grbench.plugins import Registry
    from grbench.suite import Cell

    cell = Cell.from_json(job["cell"])
    device = resolve_device(job["device"])
    registry = Registry.load()
    dataset = registry.build("datasets", cell.dataset.name, options=cell.dataset.options, where="dataset")
    store = build_store(
        dataset,
        name=cell.dataset.name,
        cache=Path(job["cache"]),
        report=lambda what, done, total: events("prepare", what=what, done=done, total=total),
    )
    events("phase", name="splitting users")
    split = split_store(store, cell.protocol)
    for filters in job["filters"]:
        shown_candidates(split, list_length(cell.metrics), filters)
    if job["validates"] and split.validation is None:
        raise SuiteError(
            "training.validate_every: the protocol keeps no validation users to select by; give it some "
            "(--set protocol.validation_share=0.05 with last_positive), or leave validate_every at 0"
        )
    metrics = [registry.build("metrics", each.name, options=each.options, where="metrics") for each in cell.metrics]
    check_metrics(metrics, split, list_length(cell.metrics))
    return {
        "store": str(store.path),
        "device": device,
        "pool": {"size": len(split.candidates), "digest": split.pool_digest},
        "counts": split.counts,
    }


def refusal(event: Mapping[str, Any]) -> GRBenchError:
    """The error that a child's event `refused` speaks of."""
    kind = getattr(errors, str(event["kind"]), RunError)
    error: GRBenchError = kind(event["message"])
    return error


def main(path: str) -> int:
    """The child: events on stdout, 2 where the request cannot be met."""
    events = begin_child()
    try:
        events("prepared", **prepare(json.loads(Path(path).read_text()), events))
    except GRBenchError as error:
        events("refused", kind=type(error).__name__, message=str(error))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
