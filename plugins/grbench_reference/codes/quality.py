"""What a tokenizer can be judged by before anything is trained on its codes: the figures that SIDInspector reports of a
mapping (Ding et al., arXiv 2606.10375), of any tokenizer, from training events only.

Shapes: N items, L levels, n pairs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from grbench.data.training_data import TrainingData
from grbench.types import Codes
from grbench_reference.codes.item_vectors import EmbeddingVectors, VectorSource, in_blocks, sample_items

HEAD, MIDDLE = 0.01, 0.20
"""The most popular 1 % of the items that training has seen are its head; with the middle they are the first 20 %."""
NEIGHBOURS = 10
INDEX_BYTES = 1 << 28
"""Of vectors that nearest neighbours are looked for among."""


def inspect(
    codes: Codes,
    data: TrainingData,
    *,
    vectors: VectorSource | None = None,
    queries: int = 2_000,
    base: int = 100_000,
    users: int = 20_000,
    seed: int = 0,
) -> dict[str, Any]:
    """JSON-ready figures of the codes. Counts are of all items; agreements are of a sample.

    vectors: what the codes should be near in; the dataset's content embeddings where not given, if it has any.
    queries, base: items whose nearest NEIGHBOURS are looked for, and items among which; users: training histories
    whose neighbouring events are compared.
    """
    if vectors is None and data.catalogue.embeddings:
        vectors = EmbeddingVectors(data.catalogue)
    table = codes.table.numpy()[1:]
    prefixes = _prefixes(table, codes.sizes)
    full = prefixes[-1]
    sharing = np.bincount(full)[full]
    random = np.random.default_rng(seed)
    return {
        "items": len(table),
        "sizes": list(codes.sizes),
        "distinct_codes": int(full.max()) + 1,
        "colliding_items": int((sharing > 1).sum()),
        "colliding_share": _share(sharing > 1),
        "most_items_on_a_code": int(sharing.max()),
        "utilisation": [_utilisation(table[:, level], size) for level, size in enumerate(codes.sizes)],
        "fan_out": _fan_out(prefixes),
        "embedding_agreement": None if vectors is None else _embedding_agreement(table, vectors, queries, base, random),
        "cooccurrence_agreement": _cooccurrence_agreement(table, data, users, random),
        "popularity": _popularity(table, prefixes, sharing > 1, data.item_counts()[1:]),
    }


def _prefixes(table: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """For each length 1..L of prefix, [N] int64: which prefix an item has, numbered from 0."""
    prefixes: list[np.ndarray] = []
    keys = np.zeros(len(table), np.int64)
    for level, size in enumerate(sizes):
        keys = np.unique(keys * size + table[:, level], return_inverse=True)[1].astype(np.int64)
        prefixes.append(keys)
    return prefixes


def _utilisation(codes: np.ndarray, size: int) -> dict[str, Any]:
    """How many of a level's codes are used, and how many equally frequent codes would be as hard to guess."""
    counts = np.bincount(codes, minlength=size)
    used = int((counts > 0).sum())
    return {"size": size, "used": used, "share": used / size, "perplexity": _perplexity(counts)}


def _fan_out(prefixes: list[np.ndarray]) -> list[dict[str, Any]]:
    """For each length of prefix from 0 to L - 1: how many different codes follow one."""
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
    """How many of an item's nearest neighbours by cosine share its prefix, beside how many of any items do."""
    base = min(base, INDEX_BYTES // (4 * vectors.width))
    items = sample_items(vectors.present, base, int(random.integers(1 << 31)))
    if len(items) < 2:
        return None
    asked = random.choice(len(items), min(queries, len(items)), replace=False)
    nearest = _nearest(vectors, items, asked, min(NEIGHBOURS, len(items) - 1))
    left = np.repeat(items[asked], nearest.shape[1])
    others = items[(asked + random.integers(1, len(items), len(asked))) % len(items)]
    return {
        "of": vectors.name,
        "items_asked": len(asked),
        "among": len(items),
        "neighbours": nearest.shape[1],
        **_agreement(table, (left, items[nearest].ravel()), (items[asked], others)),
    }


def _nearest(vectors: VectorSource, items: np.ndarray, asked: np.ndarray, count: int) -> np.ndarray:
    """[asked, count] positions in `items` of each one's nearest others by cosine, best first."""
    faiss: Any = import_module("faiss")
    index = faiss.IndexFlatIP(vectors.width)
    for block in in_blocks(len(items), vectors.width):
        index.add(_unit(vectors.rows(items[block])))
    _, found = index.search(_unit(vectors.rows(items[asked])), count + 1)
    # An item's double may come before itself; whichever place it has, it is no neighbour of its own.
    order = np.argsort(found == asked[:, None], axis=1, kind="stable")
    nearest: np.ndarray = np.take_along_axis(found, order, axis=1)[:, :count]
    return nearest


def _cooccurrence_agreement(
    table: np.ndarray, data: TrainingData, users: int, random: np.random.Generator
) -> dict[str, Any] | None:
    """How many events share the prefix of the event before, beside how many do in another order of all events.

    Pairs of the same item say nothing of codes and are left out.
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
    """Share of the pairs of items [n], [n] that have the same prefix, for each length 1..L; and of the chance ones."""

    def shares(left: np.ndarray, right: np.ndarray) -> list[float]:
        same = np.logical_and.accumulate(table[left - 1] == table[right - 1], axis=1)
        return [float(share) for share in same.mean(axis=0)]

    return {"same_prefix": shares(*pairs), "by_chance": shares(*by_chance)}


def _popularity(
    table: np.ndarray, prefixes: list[np.ndarray], sharing: np.ndarray, counts: np.ndarray
) -> list[dict[str, Any]]:
    """How codes are shared out between the most popular items, the others, and those that training has not seen."""
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
            "colliding_share": _share(sharing[items]),
            "first_codes_used": len(np.unique(table[items, 0])),
            "first_code_perplexity": _perplexity(np.bincount(table[items, 0])),
        }
        for name, items in bands.items()
    ]


def _perplexity(counts: np.ndarray) -> float:
    """exp of the entropy of counts; 0 where there are none."""
    frequent = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(np.exp(-(frequent * np.log(frequent)).sum())) if len(frequent) else 0.0


def _share(chosen: np.ndarray) -> float:
    return float(chosen.mean()) if len(chosen) else 0.0


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
