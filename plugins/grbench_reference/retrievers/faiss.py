"""The Faiss retriever: any index that Faiss can build from a factory string (Douze et al., The Faiss library, 2024)."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from grbench.errors import RunError, SuiteError
from grbench.interfaces import Embedder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.kernels.faiss_library import load_faiss
from grbench_reference.retrievers.exact_search import ExactSearch
from grbench_reference.retrievers.index_cache import index_path, read_index, write_index
from grbench_reference.retrievers.similarity import IndexSimilarity, candidate_vectors, history_vectors, largest_norm
from grbench_reference.retrievers.top_k import padded_top_k, rank_positions

faiss = load_faiss("the faiss retriever")

ADDED_AT_ONCE = 1 << 18
"""Vectors added to an index per call, so that only so many are copied at a time."""


class FaissIndex(Retriever):
    """Candidates found by a Faiss index, then scored and sorted by their exact inner products, as `exact` does.

    So an approximate index may miss candidates, but those it finds have exact scores. Faiss' seeds are fixed; HNSW
    graphs built by several threads still differ slightly between builds. The index is placed on the encoder's GPU if
    Faiss was built with GPU support and has a GPU version of it; the record says where it is, and why it is on the CPU.

    Args:
        index: Faiss index factory string: Flat, HNSW64, IVF4096,Flat, OPQ16,IVF1024,PQ16, ...
        build: build parameters, by Faiss' names: efConstruction (HNSW); niter, seed, nredo (IVF).
        search: search parameters, by Faiss' names: nprobe (IVF), efSearch (HNSW), k_factor_rf (refinement), ...
        similarity: dot = inner product; cosine = inner product of unit vectors; euclidean = smallest distance first.
        training_sample: number of random candidates that the index is trained on; null = all, of which Faiss uses at
            most 256 for each IVF list.
        use_gpu: false keeps the index on the CPU.
        recall_sample: number of queries whose recall against exact search is recorded, the first searched; 0 = none.
        encode_block: number of candidates that the encoder embeds at once.
        reuse: store the index in the cache ($GRBENCH_CACHE/indices) and load it from there when the same vectors are
            indexed again with the same build parameters, for example to compare search parameters. Off by default,
            because the time of the phase `index` is then the loading time; the record has the build time too.
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(
        self,
        *,
        index: str = "Flat",
        build: dict[str, PositiveInt] | None = None,
        search: dict[str, PositiveInt] | None = None,
        similarity: IndexSimilarity = "dot",
        training_sample: PositiveInt | None = None,
        use_gpu: bool = True,
        recall_sample: NonNegativeInt = 1_000,
        encode_block: PositiveInt = 16_384,
        reuse: bool = False,
    ) -> None:
        self.factory_string, self.similarity = index, similarity
        self.build_settings, self.search_settings = dict(build or {}), dict(search or {})
        self.training_sample, self.use_gpu, self.recall_sample = training_sample, use_gpu, recall_sample
        self.encode_block, self.reuse = encode_block, reuse
        self._reused, self._build_seconds = False, 0.0
        self.device = "cpu"
        self._why_cpu: str | None = None
        self._cache_error: str | None = None
        self._recall_queries: list[tuple[Tensor, Tensor]] = []
        self._index: Any = None
        self._resources: Any = None
        # A misspelt index or parameter is an error now, not after hours of training.
        try:
            trial = faiss.index_factory(64, index, self._metric())
        except RuntimeError as error:
            if "could not parse" in str(error):
                raise SuiteError(
                    f"retriever faiss: index: {index!r} is no Faiss index ({_reason(error)}); try Flat, HNSW64 or "
                    "IVF4096,Flat, or see the list of index factory strings in the Faiss documentation"
                ) from error
        else:
            self._configure(trial, self.build_settings, "build")
            self._configure(trial, self.search_settings, "search")

    def check(self, candidates: int, codes: Codes | None) -> None:  # noqa: ARG002 - it searches vectors, not codes
        """Raises SuiteError where the index has more lists than there are candidates to train them on."""
        try:
            trial = faiss.index_factory(64, self.factory_string, self._metric())
        except RuntimeError:
            return  # it cannot be built at this width, and the encoder's width is not known yet
        self._refuse_too_many_lists(trial, candidates)

    @torch.no_grad()
    def index(self, encoder: Embedder, candidates: Tensor, codes: Codes) -> None:  # noqa: ARG002
        """candidates: [P] int64, ascending, on the encoder's device.

        Raises RunError where Faiss cannot build the index from them, for example where the width is not a multiple of
        the number of sub-quantisers.
        """
        faiss.omp_set_num_threads(torch.get_num_threads())
        self._candidates = candidates
        self._vectors = candidate_vectors(encoder, candidates, self.similarity, self.encode_block)
        self._max_norm = largest_norm(self._vectors)
        self._recall_queries = []
        width = self._vectors.shape[1] - (self.similarity == "euclidean")
        try:
            self._load_or_build(width)
        except RuntimeError as error:
            raise RunError(
                f"retriever faiss: index {self.factory_string!r} cannot be built from {len(candidates)} candidates of "
                f"width {width}: {_reason(error)}"
            ) from error

    def _load_or_build(self, width: int) -> None:
        path = index_path(self._vectors.cpu().numpy(), self._build_parameters()) if self.reuse else None
        cached = read_index(path) if path else None
        self._reused = cached is not None
        if cached is not None:
            self._index, self._build_seconds = self._for_search(cached.index), cached.build_seconds
            return
        began = time.perf_counter()
        empty = faiss.index_factory(width, self.factory_string, self._metric())
        self._refuse_too_many_lists(empty, len(self._vectors))
        self._configure(empty, self.build_settings, "build")
        self._index = self._to_gpu(empty)
        if not self._index.is_trained:
            self._index.train(self._training_vectors())
        self._add()
        self._build_seconds = time.perf_counter() - began
        if path is not None:
            self._cache_error = write_index(path, self._on_host(), self._build_seconds)
        if self.search_settings:
            host, self._index = self._on_host(), None  # so that the GPU never holds two copies
            self._index = self._for_search(host)

    def _for_search(self, index: Any) -> Any:
        """A built index with the search parameters set, on its device. A cached index file holds none of them."""
        self._configure(index, self.search_settings, "search")
        return self._to_gpu(index)

    def _build_parameters(self) -> dict[str, Any]:
        return {
            "index": self.factory_string,
            "build": self.build_settings,
            "similarity": self.similarity,
            "training_sample": self.training_sample,
        }

    def _on_host(self) -> Any:
        return self._index if self.device == "cpu" else faiss.index_gpu_to_cpu(self._index)

    @torch.no_grad()
    def search(self, encoder: Embedder, batch: Batch, k: int) -> TopK:
        """The k best candidates that the index finds; raises RunError where a history's vector is not finite."""
        queries = history_vectors(encoder, batch, self.similarity, self._max_norm)
        length = min(k, len(self._candidates))
        try:
            _, positions = self._index.search(self._for_faiss(queries, "history"), length)
        except RuntimeError as error:
            raise RunError(
                f"retriever faiss: index {self.factory_string!r} on {self.device} cannot search the {k} best: "
                f"{_reason(error)}"
            ) from error
        # Ascending positions, so that ties go to the smaller item as everywhere; -1 = nothing found.
        ascending = torch.from_numpy(positions).to(queries.device).sort(dim=1).values
        ranked, scores = rank_positions(queries, self._vectors, ascending, length)
        if sum(len(queries) for queries, _ in self._recall_queries) < self.recall_sample:
            self._recall_queries.append((queries, scores))
        items = torch.where(ranked >= 0, self._candidates[ranked.clamp(min=0)], 0)
        return padded_top_k(items, scores, k)

    def index_bytes(self, candidates: int, width: int) -> int:
        """Bytes of the candidates' vectors, used for the exact scores, and of the Faiss index beside them."""
        empty = faiss.index_factory(width, self.factory_string, self._metric())
        stored, each = empty, 0
        if hasattr(empty, "hnsw"):
            stored, each = empty.storage, 4 * empty.hnsw.cum_nneighbor_per_level.at(1) + 12  # links, level, offset
        elif faiss.try_extract_index_ivf(empty) is not None:
            each = 8  # its position
        try:
            each += stored.sa_code_size()
        except RuntimeError:  # it stores no compressed codes but whole vectors
            each += 4 * width
        return int(candidates * (4 * width + each))

    def report(self) -> dict[str, Any]:
        """Facts about the index for the record: parameters, bytes, and recall against exact search on some queries.

        recall: share of a list's entries whose score is at least that of exact search's last entry, so that it does not
        matter which of two tied candidates was found; null before the first search.
        """
        size = _ByteCounter()
        faiss.write_index(self._on_host(), faiss.PyCallbackIOWriter(size.write))
        return {
            "index": self.factory_string,
            "build": self.build_settings,
            "search": self.search_settings,
            "candidates": self._vectors.shape[0],
            "width": self._vectors.shape[1],
            "bytes": size.count,
            "device": self.device,
            "why_cpu": self._why_cpu,
            "reused": self._reused,
            "build_seconds": self._build_seconds,
            "why_not_kept": self._cache_error,
            **self._recall(),
        }

    def _recall(self) -> dict[str, Any]:
        exact = ExactSearch(self._vectors)
        shares: list[Tensor] = []
        for queries, scores in self._recall_queries:
            _, best = exact.search(queries, scores.shape[1])
            shares.append((scores >= best[:, -1:]).double().mean(dim=1))
        joined = torch.cat(shares)[: self.recall_sample] if shares else torch.empty(0)
        return {
            "recall": float(joined.mean()) if len(joined) else None,
            "recall_queries": len(joined),
            "recall_k": max((scores.shape[1] for _, scores in self._recall_queries), default=None),
        }

    def _metric(self) -> int:
        metric = faiss.METRIC_L2 if self.similarity == "euclidean" else faiss.METRIC_INNER_PRODUCT
        return int(metric)

    def _for_faiss(self, vectors: Tensor, side: str) -> np.ndarray:
        """The vectors for the Faiss index. For euclidean distances the transformation to inner products is undone."""
        if self.similarity == "euclidean":
            vectors = vectors[:, :-1] / 2 if side == "item" else vectors[:, :-1]
        return np.ascontiguousarray(vectors.cpu().numpy())

    def _training_vectors(self) -> np.ndarray:
        if self.training_sample is None or self.training_sample >= len(self._vectors):
            return self._for_faiss(self._vectors, "item")
        chosen = torch.randperm(len(self._vectors), generator=torch.Generator().manual_seed(0))[: self.training_sample]
        return self._for_faiss(self._vectors[chosen.to(self._vectors.device)], "item")

    def _add(self) -> None:
        needs_ids = isinstance(self._index, faiss.IndexIDMap)  # this wrapper has no `add` without ids
        for first in range(0, len(self._vectors), ADDED_AT_ONCE):
            part = self._for_faiss(self._vectors[first : first + ADDED_AT_ONCE], "item")
            if needs_ids:
                self._index.add_with_ids(part, np.arange(first, first + len(part)))
            else:
                self._index.add(part)

    def _refuse_too_many_lists(self, empty: Any, candidates: int) -> None:
        inverted = faiss.try_extract_index_ivf(empty)
        available = min(candidates, self.training_sample or candidates)
        if inverted is not None and inverted.nlist > available:
            raise SuiteError(
                f"retriever.index: {self.factory_string!r} has {inverted.nlist} lists, and only {available} "
                f"candidates to train them on; use at most {max(available // 39, 1)} lists (39 candidates each) "
                "or Flat"
            )

    def _configure(self, index: Any, settings: dict[str, int], where: str) -> None:
        """Sets parameters by name: those of the IVF clustering, and those of faiss.ParameterSpace."""
        inverted = faiss.try_extract_index_ivf(index)
        for name, value in settings.items():
            if where == "build" and inverted is not None and hasattr(inverted.cp, name):
                setattr(inverted.cp, name, value)
                continue
            try:
                faiss.ParameterSpace().set_index_parameter(index, name, value)
            except RuntimeError as error:
                raise SuiteError(
                    f"retriever faiss: {where}.{name}: index {self.factory_string!r} has no such parameter; "
                    "IVF indexes have nprobe, HNSW indexes efConstruction and efSearch"
                ) from error

    def _to_gpu(self, host: Any) -> Any:
        """The index on the encoder's GPU; `host` itself where that is not possible, with the reason in _why_cpu."""
        self.device, device = "cpu", self._vectors.device
        if device.type != "cuda" or not self.use_gpu:
            self._why_cpu = "use_gpu is false" if not self.use_gpu else "the encoder is on the CPU"
            return host
        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
            self._why_cpu = "this faiss was built without GPU support (extra `cpu`), or sees no GPU"
            return host
        number = device.index if device.index is not None else torch.cuda.current_device()
        if self._resources is None:
            self._resources = faiss.StandardGpuResources()  # must outlive the index
        try:
            on_gpu = faiss.index_cpu_to_gpu(self._resources, number, host)
        except RuntimeError as error:
            self._why_cpu = f"faiss has no GPU version of {self.factory_string!r} ({_reason(error)})"
            return host
        copy_clustering(host, on_gpu)
        self.device, self._why_cpu = f"cuda:{number}", None
        return on_gpu


def copy_clustering(host: Any, on_gpu: Any) -> None:
    """Copies an IVF index's clustering parameters to its copy on a GPU, where Faiss resets them to the defaults."""
    inverted = faiss.try_extract_index_ivf(host)
    copy = faiss.downcast_index(on_gpu.index) if isinstance(on_gpu, faiss.IndexPreTransform) else on_gpu
    if inverted is not None and hasattr(copy, "cp"):
        copy.cp = inverted.cp


class _ByteCounter:
    """Counts the bytes written to it, to measure the size of an index without copying it."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, data: bytes) -> None:
        self.count += len(data)


def _reason(error: RuntimeError) -> str:
    """Faiss' message without the name of its source file."""
    return str(error).rsplit("failed: ", 1)[-1].rsplit(".cpp:", 1)[-1].split(": ", 1)[-1].strip()
