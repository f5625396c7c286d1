"""Writes the item vectors of a trained cell, for example for another method's tokenizer.

Shapes: N items, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import PositiveInt

from grbench.errors import RunError
from grbench.interfaces import Embedder, Tracker


class ItemVectors(Tracker):
    """Writes `<digest of the cell>.d/item_vectors/vectors.npy` beside the record: [N+1, D] float32, in the order of the
    store's items, row 0 zeros. The tokenizer `rq_kmeans` reads it with `source: file`; the challenge's innovation
    award made its codes like that (paper, section 7).

    Args:
        encode_block: number of items that the encoder embeds at once.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(self, *, encode_block: PositiveInt = 16_384) -> None:
        self.encode_block = encode_block
        self._path = Path()

    def start(self, folder: Path, cell: Mapping[str, Any]) -> None:  # noqa: ARG002 - the file holds vectors only
        """Remembers the folder."""
        self._path = Path(folder) / "vectors.npy"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logged values are not used."""

    def keep(self, encoder: Any, num_items: int) -> None:
        """Embeds and writes all items; raises RunError where the file cannot be written."""
        device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
        part = self._path.with_suffix(".part")
        vectors: np.ndarray | None = None
        try:
            for first in range(1, num_items + 1, self.encode_block):
                last = min(first + self.encode_block, num_items + 1)
                block = encoder.embed_items(torch.arange(first, last, device=device)).float().cpu().numpy()
                if vectors is None:
                    shape = (num_items + 1, block.shape[1])
                    vectors = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
                vectors[first:last] = block
            if vectors is not None:
                part.replace(self._path)
        except OSError as error:
            raise RunError(f"{self._path}: the tracker item_vectors cannot write here ({error.strerror})") from error

    def finish(self, record: Mapping[str, Any]) -> None:
        """Nothing: `keep` has written the vectors."""
