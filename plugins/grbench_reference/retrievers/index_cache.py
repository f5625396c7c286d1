"""A cache of built Faiss indices, keyed by a digest of the vectors and the build parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grbench.cache import cache_folder
from grbench.temporary import beside
from grbench_reference.kernels.faiss_library import load_faiss

faiss = load_faiss("the faiss retriever")


class CachedIndex(NamedTuple):
    """An index from the cache, and the seconds that its build took."""

    index: Any
    build_seconds: float


def index_path(vectors: np.ndarray, parameters: Mapping[str, Any]) -> Path:
    """The cache file of the index of these vectors [P, D] float32. parameters: every option that the build depends on;
    Faiss' version and compile options are added."""
    settings = {
        **parameters,
        "faiss": faiss.__version__,
        "options": faiss.get_compile_options(),
        "shape": vectors.shape,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return cache_folder() / "indices" / f"{digest.hexdigest()[:16]}.faiss"


def read_index(path: Path) -> CachedIndex | None:
    """The index at `path`; None where there is none, or it cannot be read."""
    try:
        seconds = json.loads(_metadata_path(path).read_text())["build_seconds"]
        return CachedIndex(faiss.read_index(str(path)), float(seconds))
    except (OSError, ValueError, KeyError, RuntimeError):
        return None


def write_index(path: Path, index: Any, build_seconds: float) -> str | None:
    """Writes the index to the cache atomically. Returns the error message where that fails, else None: a result does
    not depend on the cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            faiss.write_index(index, str(partial))
            _metadata_path(path).write_text(json.dumps({"build_seconds": build_seconds}))
            partial.replace(path)
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def _metadata_path(path: Path) -> Path:
    return path.with_suffix(".json")
