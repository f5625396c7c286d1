"""A batch read once a step, however many losses ask: what encoders that share a forward pass keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from grbench.types import Batch

Shared = TypeVar("Shared")


class OnePass(Generic[Shared]):
    """What was read of a batch, kept while a pass is open; outside of one nothing is kept.

    A batch is known by identity: a loss that makes another batch of it has that one read anew.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._kept: tuple[Batch, Shared] | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside, `keep` keeps; afterwards nothing is left, so that no step's graph outlives it."""
        self.is_open = True
        try:
            yield
        finally:
            self.is_open, self._kept = False, None

    def of(self, batch: Batch) -> Shared | None:
        """What was read of this very batch."""
        return self._kept[1] if self._kept is not None and self._kept[0] is batch else None

    def keep(self, batch: Batch, read: Shared) -> Shared:
        """Keeps the newest read, and gives it back."""
        if self.is_open:
            self._kept = (batch, read)
        return read

    @property
    def newest(self) -> Shared | None:
        """What was read last."""
        return None if self._kept is None else self._kept[1]
