"""Quality of a tokenizer's codes, measured before a model is trained on them: the statistics of SIDInspector (Ding et
al., arXiv 2606.10375), for any tokenizer, from training events only.

Shapes: N items, L levels, n pairs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from grbench.data.training_data import TrainingData
from grbench.types import Codes
from grbench_reference.codes.collisions import extend_prefixes
from grbench_reference.codes.item_vectors import EmbeddingVectors, VectorSource, in_blocks, sample_items, unit

HEAD, MIDDLE = 0.01, 0.20
"""Of the items with a training event, the most popular 1 % are the head, the next up to 20 % the middle."""
NEIGHBOURS = 10
INDEX_BYTES = 1 << 28
"""Bytes of the vectors that are searched for nearest neighbours."""


def code_quality(
    codes: Codes,
    data: TrainingData,
    *,
    vectors: VectorSource | None = None,
    queries: int = 2_000,
    base: int = 100_000,
    users: int = 20_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Statistics of the codes, JSON-ready. Counts are over all items; agreements are estimated on a sample.

    vectors: the space in which items with the same prefix should be close; None = the dataset's content embeddings, if
    it has any. queries, base: numbers of sampled items: whose NEIGHBOURS nearest neighbours are searched, and among
    which; users: number of sampled training histories whose consecutive events are compared.
    """
    if vectors is None and data.catalogue.embeddings:
        vectors = EmbeddingVectors(data.catalogue)
    table = codes.table.numpy()[1:]
    prefixes = _prefixes(table, codes.sizes)
    full = prefixes[-1]
    items_on_code = np.bincount(full)[full]
    random = np.random.default_rng(seed)
    return {
        "items": len(table),
        "sizes": list(codes.sizes),
        "distinct_codes": int(full.max()) + 1,
        "colliding_items": int((items_on_code > 1).sum()),
        "colliding_share": _share(items_on_code > 1),
        "most_items_on_a_code": int(items_on_code.max()),
        "utilisation": [_utilisation(table[:, level], size) for level, size in enumerate(codes.sizes)],
        "fan_out": _fan_out(prefixes),
        "embedding_agreement": None if vectors is None else _embedding_agreement(table, vectors, queries, base, random),
        "cooccurrence_agreement": _cooccurrence_agreement(table, data, users, random),
        "popularity": _popularity(table, prefixes, items_on_code > 1, data.item_counts()[1:]),
    }


def _prefixes(table: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """For each prefix length 1..L: [N] int64, each item's prefix, numbered from 0."""
    prefixes: list[np.ndarray] = []
    keys = np.zeros(len(table), np.int64)
    for level, size in enumerate(sizes):
        keys = extend_prefixes(keys, table[:, level], size)
        prefixes.append(keys)
    return prefixes


def _utilisation(codes: np.ndarray, size: int) -> dict[str, Any]:
    """How many codes of a level are used, and the perplexity of their distribution over items."""
    counts = np.bincount(codes, minlength=size)
    used = int((counts > 0).sum())
    return {"size": size, "used": used, "share": used / size, "perplexity": _perplexity(counts)}


def _fan_out(prefixes: list[np.ndarray]) -> list[dict[str, Any]]:
    """For each prefix length from 0 to L - 1: how many different codes follow a prefix."""
    rows = []
    parents = np.zeros_like(prefixes[0])
    for length, children in enumerate(prefixes):
        parent_of = np.empty(int(children.max()) + 1, np.int64)
        parent_of[children] = parents
        following = np.bincount(parent_of)
        items = np.bincount(parents)
        rows.append(
            {
                "prefix_length": length,
                "prefixes": len(following),
                "mean": float(following.mean()),
                "median": float(np.median(following)),
                "most": int(following.max()),
                "single": float((following == 1).mean()),
                "most_items": int(items.max()),
            }
        )
        parents = children
    return rows


def _embedding_agreement(
    table: np.ndarray, vectors: VectorSource, queries: int, base: int, random: np.random.Generator
) -> dict[str, Any] | None:
    """The share of an item's nearest neighbours (cosine) with the same prefix, and that of random items (by chance)."""
    base = min(base, INDEX_BYTES // (4 * vectors.width))
    items = sample_items(vectors.present, base, int(random.integers(1 << 31)))
    if len(items) < 2:
        return None
    sampled = random.choice(len(items), min(queries, len(items)), replace=False)
    nearest = _nearest(vectors, items, sampled, min(NEIGHBOURS, len(items) - 1))
    left = np.repeat(items[sampled], nearest.shape[1])
    others = items[(sampled + random.integers(1, len(items), len(sampled))) % len(items)]
    return {
        "of": vectors.name,
        "queries": len(sampled),
        "among": len(items),
        "neighbours": nearest.shape[1],
        **_agreement(table, (left, items[nearest].ravel()), (items[sampled], others)),
    }


def _nearest(vectors: VectorSource, items: np.ndarray, sampled: np.ndarray, count: int) -> np.ndarray:
    """[len(sampled), count]: each sampled item's nearest other items by cosine, nearest first, as indices of `items`.
    sampled: indices of `items`."""
    faiss: Any = import_module("faiss")
    index = faiss.IndexFlatIP(vectors.width)
    for block in in_blocks(len(items), vectors.width):
        index.add(unit(vectors.rows(items[block])))
    _, found = index.search(unit(vectors.rows(items[sampled])), count + 1)
    # The item itself is removed wherever it is: an item with an equal vector may precede it.
    order = np.argsort(found == sampled[:, None], axis=1, kind="stable")
    nearest: np.ndarray = np.take_along_axis(found, order, axis=1)[:, :count]
    return nearest


def _cooccurrence_agreement(
    table: np.ndarray, data: TrainingData, users: int, random: np.random.Generator
) -> dict[str, Any] | None:
    """The share of consecutive events whose items have the same prefix, and that after shuffling (by chance).

    Pairs of the same item are left out.
    """
    rows = data.trainable
    if len(rows) > users:
        rows = np.sort(random.choice(rows, users, replace=False))
    if not len(rows):
        return None
    items, _, _ = data.newest(rows, 101)
    beside = (items[:, :-1] > 0) & (items[:, :-1] != items[:, 1:])
    left, right = items[:, :-1][beside], items[:, 1:][beside]
    shuffled = random.permutation(right)
    different = shuffled != left
    if not len(left) or not different.any():
        return None
    return {
        "pairs": len(left),
        **_agreement(table, (left, right), (left[different], shuffled[different])),
    }


def _agreement(
    table: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], by_chance: tuple[np.ndarray, np.ndarray]
) -> dict[str, list[float]]:
    """The share of the pairs of items [n], [n] with the same prefix, for each length 1..L, and that of random pairs."""

    def shares(left: np.ndarray, right: np.ndarray) -> list[float]:
        same = np.logical_and.accumulate(table[left - 1] == table[right - 1], axis=1)
        return [float(share) for share in same.mean(axis=0)]

    return {"same_prefix": shares(*pairs), "by_chance": shares(*by_chance)}


def _popularity(
    table: np.ndarray, prefixes: list[np.ndarray], colliding: np.ndarray, counts: np.ndarray
) -> list[dict[str, Any]]:
    """How codes are distributed over popular, rare and unseen items. counts: [N] training events of each item."""
    seen = np.flatnonzero(counts)
    seen = seen[np.argsort(-counts[seen], kind="stable")]
    head, middle = int(np.ceil(len(seen) * HEAD)), int(np.ceil(len(seen) * MIDDLE))
    bands = {
        "head": seen[:head],
        "middle": seen[head:middle],
        "tail": seen[middle:],
        "unseen": np.flatnonzero(counts == 0),
    }
    events = max(int(counts.sum()), 1)
    return [
        {
            "band": name,
            "items": len(items),
            "share_of_items": len(items) / len(table),
            "share_of_events": float(counts[items].sum() / events),
            "distinct_codes": len(np.unique(prefixes[-1][items])),
            "colliding_share": _share(colliding[items]),
            "first_codes_used": len(np.unique(table[items, 0])),
            "first_code_perplexity": _perplexity(np.bincount(table[items, 0])),
        }
        for name, items in bands.items()
    ]


def _perplexity(counts: np.ndarray) -> float:
    """exp(entropy) of the distribution of counts; 0 where all are 0."""
    frequent = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(np.exp(-(frequent * np.log(frequent)).sum())) if len(frequent) else 0.0


def _share(chosen: np.ndarray) -> float:
    return float(chosen.mean()) if len(chosen) else 0.0
