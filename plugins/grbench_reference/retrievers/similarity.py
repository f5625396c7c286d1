"""Vectors of candidates and histories whose inner product orders candidates as the chosen similarity does.

Shapes: B users, P candidates, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from grbench.errors import RunError
from grbench.interfaces import Embedder
from grbench.types import Batch

IndexSimilarity = Literal["dot", "cosine", "euclidean"]


def candidate_vectors(encoder: Embedder, candidates: Tensor, similarity: IndexSimilarity, encode_block: int) -> Tensor:
    """candidates [P] -> [P, D] float32 on their device, `encode_block` candidates at a time.

    Raises RunError naming a candidate whose vector is not finite.
    """
    vectors: Tensor | None = None
    for first in range(0, len(candidates), encode_block):
        items = candidates[first : first + encode_block]
        part = _transformed(encoder.embed_items(items).float(), similarity, "item")
        finite = part.isfinite().all(dim=1)
        if not bool(finite.all()):
            item = int(items[~finite][0])
            raise RunError(
                f"the encoder gives item {item} a vector that is not finite (NaN or infinite), so it cannot be ranked"
            )
        if vectors is None:
            vectors = part.new_empty((len(candidates), part.shape[1]))
        vectors[first : first + len(items)] = part
    if vectors is None:
        raise RunError("there is no candidate to index")
    return vectors


def history_vectors(encoder: Embedder, batch: Batch, similarity: IndexSimilarity, max_norm: float) -> Tensor:
    """-> [B, D] float32. max_norm: the largest norm of a candidate's vector.

    Raises RunError naming a user whose scores might not be finite. It checks norms instead of scores:
    |q . v| <= |q| |v|.
    """
    vectors = _transformed(encoder.embed_histories(batch).float(), similarity, "history")
    finite = (vectors.norm(dim=1) * max_norm).isfinite()
    if not bool(finite.all()):
        user = int(batch.users[~finite][0])
        raise RunError(f"the scores of user row {user} are not finite (NaN or infinite history vector)")
    return vectors


def largest_norm(vectors: Tensor) -> float:
    """The largest norm of vectors [P, D]."""
    return float(vectors.norm(dim=1).max())


def _transformed(vectors: Tensor, similarity: IndexSimilarity, side: Literal["item", "history"]) -> Tensor:
    """Transforms vectors so that their inner products order candidates as the similarity does.

    euclidean: [2v, -|v|^2] . [q, 1] = |q|^2 - |q - v|^2, so the largest product is the smallest distance.
    """
    if similarity == "cosine":
        return torch.nn.functional.normalize(vectors, dim=1)
    if similarity == "euclidean":
        if side == "history":
            return torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)
        return torch.cat([2 * vectors, -vectors.square().sum(dim=1, keepdim=True)], dim=1)
    return vectors
