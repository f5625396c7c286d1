"""The record of a cell that has raised."""

from __future__ import annotations

import traceback
from dataclasses import replace

import torch

from grbench.cost.environment import environment
from grbench.errors import GRBenchError
from grbench.results.record import Record, Status, now

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "std::bad_alloc")
"""How libraries say it that have no exception of their own for it: torch's CPU allocator, CUDA libraries, Faiss."""


def status_of(error: BaseException) -> Status:
    """oom where memory ran out, of whichever kind, else error."""
    cause: BaseException | None = error
    while cause is not None:
        said = str(cause).lower()
        if isinstance(cause, MemoryError | torch.OutOfMemoryError) or (
            isinstance(cause, RuntimeError) and any(words in said for words in OUT_OF_MEMORY)
        ):
            return "oom"
        cause = cause.__cause__ or cause.__context__
    return "error"


def failed(blank: Record, error: BaseException, device: str) -> Record:
    """The record of a cell that raised; a user's mistake needs no traceback to be understood, but keeps it."""
    message = str(error) if isinstance(error, GRBenchError) else f"{type(error).__name__}: {error}"
    return replace(
        blank,
        status=status_of(error),
        error={
            "type": type(error).__name__,
            "message": message,
            "traceback": "".join(traceback.format_exception(error)),
        },
        environment=environment(device),
        finished=now(),
    )
