"""K-means and nearest centres by Faiss, on all GPUs that it can use, else on the CPU.

Shapes: n points, K centres, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from grbench_reference.kernels.faiss_library import load_faiss

faiss = load_faiss("a tokenizer that learns its codes by k-means")


def has_gpu() -> bool:
    """Whether Faiss can use a GPU."""
    return bool(faiss.get_num_gpus() > 0)


def train_kmeans(
    points: np.ndarray,
    size: int,
    *,
    iterations: int,
    seed: int,
    max_points_per_centroid: int | None,
    spherical: bool = False,
) -> Any:
    """Faiss' k-means, trained on points [n, D] float32: `centroids` [size, D], and `index` that finds them.

    max_points_per_centroid: Faiss samples so many points per centre; None = it takes all. spherical: centres are of
    unit length.
    """
    kmeans = faiss.Kmeans(
        points.shape[1],
        size,
        niter=iterations,
        seed=seed % 2**31,  # Faiss takes no larger one
        gpu=has_gpu(),
        min_points_per_centroid=1,  # else Faiss warns on stdout below 39
        max_points_per_centroid=max_points_per_centroid or len(points),
        spherical=spherical,
    )
    kmeans.train(points)
    return kmeans


def index_of(centres: np.ndarray) -> Any:
    """An exact index of centres [K, D] float32, by Euclidean distance."""
    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(centres)
    return faiss.index_cpu_to_all_gpus(index) if has_gpu() else index


def nearest_to_each(centres: np.ndarray, k: int) -> np.ndarray:
    """centres [K, D] float32 -> [K, k] int64, the k centres nearest to each, itself the first."""
    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(centres)
    found: np.ndarray = index.search(centres, k)[1]
    return found
