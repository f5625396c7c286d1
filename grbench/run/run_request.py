"""What a run was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunRequest:
    """What `grbench run` was asked for. suite: a file, or an installed suite's name; timeout: seconds a cell may take;
    oversize: run what is expected not to fit; checkpoint_minutes: between checkpoints within an epoch, 0 = none is ever
    written; keep: what else of a cell is kept, `weights` or nothing; digests: of the only cells to run, None = all;
    backend: where cells run, a name in `BACKENDS`; jobs: how many cells at once, None = one on this machine, as many as
    there is room for on a cluster; address, cpus, scheduler: of a cluster, see `SiteRequest`."""

    suite: str | Path
    overrides: Sequence[str] = ()
    only: Sequence[str] | None = None
    seeds: int | None = None
    device: str = "auto"
    dry_run: bool = False
    force: bool = False
    results: Path = Path("results")
    cache: Path | None = None
    timeout: float | None = None
    oversize: bool = False
    checkpoint_minutes: float = 10.0
    keep: Sequence[str] = ()
    digests: frozenset[str] | None = None
    backend: str = "local"
    jobs: int | None = None
    address: str | None = None
    cpus: int | None = None
    scheduler: Sequence[str] = ()
