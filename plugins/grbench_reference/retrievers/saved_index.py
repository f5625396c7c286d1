"""Faiss indices kept in the cache under a digest of all that they are made from, so that the same one is built once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grbench.run.prepare import store_cache
from grbench_reference.kernels.faiss_library import load_faiss

faiss = load_faiss("the faiss retriever")


class SavedIndex(NamedTuple):
    """An index from the cache, and the seconds that building it took."""

    index: Any
    build_seconds: float


def index_path(vectors: np.ndarray, facts: Mapping[str, Any]) -> Path:
    """Where the index of these vectors [P, D] float32 lies. facts: every setting that building depends on; Faiss'
    version and compile options are added."""
    settings = {**facts, "faiss": faiss.__version__, "options": faiss.get_compile_options(), "shape": vectors.shape}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return store_cache() / "indices" / f"{digest.hexdigest()[:16]}.faiss"


def read_index(path: Path) -> SavedIndex | None:
    """The index at `path`; None where there is none, or none that can be read."""
    try:
        seconds = json.loads(_described(path).read_text())["build_seconds"]
        return SavedIndex(faiss.read_index(str(path)), float(seconds))
    except (OSError, ValueError, KeyError, RuntimeError):
        return None


def write_index(path: Path, index: Any, build_seconds: float) -> str | None:
    """Keeps the index, whole or not at all. Returns why it could not be kept, None where it was: a result does not
    depend on it."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        faiss.write_index(index, str(partial))
        _described(path).write_text(json.dumps({"build_seconds": build_seconds}))
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        return str(error)
    finally:
        with suppress(OSError):
            partial.unlink()
    return None


def _described(path: Path) -> Path:
    return path.with_suffix(".json")
