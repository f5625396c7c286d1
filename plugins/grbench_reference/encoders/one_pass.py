"""One forward pass of the history a training step, shared by all losses of a method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from grbench.types import Batch

Encoded = TypeVar("Encoded")


class OnePass(Generic[Encoded]):
    """Remembers what a batch was encoded to while a pass is open; outside of one, nothing.

    Batches are compared by identity: where a loss makes another batch of the step's, that one is encoded anew. So is
    what was encoded without gradients, as by a loss that draws from the model, where the next one needs them.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._last: tuple[Batch, Encoded] | None = None
        self._with_gradients = False

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside, `put` remembers. Afterwards nothing is left, so that no step's autograd graph outlives it."""
        self.is_open = True
        try:
            yield
        finally:
            self.is_open, self._last = False, None

    def get(self, batch: Batch) -> Encoded | None:
        """What `put` was last called with, if it was for this very batch, and has gradients where they are wanted."""
        if self._last is None or self._last[0] is not batch or (torch.is_grad_enabled() and not self._with_gradients):
            return None
        return self._last[1]

    def put(self, batch: Batch, encoded: Encoded) -> Encoded:
        """Remembers the result for the batch in place of any earlier one, and returns it."""
        if self.is_open:
            self._last, self._with_gradients = (batch, encoded), torch.is_grad_enabled()
        return encoded

    @property
    def newest(self) -> Encoded | None:
        """What `put` was last called with, for whichever batch."""
        return None if self._last is None else self._last[1]
