"""The Faiss retriever: equal to `exact` at exhaustive settings, and clear when asked for what cannot be."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor
from worlds import TableEncoder

from grbench.errors import RunError, SuiteError
from grbench.interfaces import Embedder
from grbench.types import Batch, Codes, TopK
from grbench_reference.retrievers.exact import Exact
from grbench_reference.retrievers.faiss import FaissIndex, copy_clustering

POOL, WIDTH, QUERIES = 600, 8, 20


@pytest.fixture
def world() -> tuple[TableEncoder, Batch, Tensor]:
    """A seeded encoder of 2 * POOL items, a batch of every user, and every other item as candidate."""
    generator = torch.Generator().manual_seed(0)
    encoder = TableEncoder(
        torch.randn(QUERIES, WIDTH, generator=generator), torch.randn(2 * POOL, WIDTH, generator=generator)
    )
    rows = torch.zeros((QUERIES, 1), dtype=torch.int64)
    return encoder, Batch(torch.arange(QUERIES), *(rows,) * 5, *(rows[:, 0],) * 3), torch.arange(1, 2 * POOL, 2)


def searched(retriever: Any, world: tuple[TableEncoder, Batch, Tensor], k: int) -> TopK:
    encoder, batch, candidates = world
    retriever.index(encoder, candidates, Codes(torch.zeros((1, 1), dtype=torch.int64), (1,)))
    found: TopK = retriever.search(encoder, batch, k)
    return found


EXHAUSTIVE: list[dict[str, Any]] = [
    {"index": "Flat"},
    {"index": "IDMap,Flat"},
    {"index": "IVF8,Flat", "search": {"nprobe": 8}},
    {"index": "IVF4_HNSW8,Flat", "search": {"nprobe": 4, "quantizer_efSearch": 16}, "training_sample": 300},
    {"index": "HNSW32", "build": {"efConstruction": POOL}, "search": {"efSearch": POOL}},
]


@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("options", EXHAUSTIVE, ids=lambda options: str(options["index"]))
def test_equals_exact_at_its_exhaustive_setting(
    options: dict[str, Any], similarity: Any, world: tuple[TableEncoder, Batch, Tensor]
) -> None:
    found = searched(FaissIndex(**options, similarity=similarity), world, 25)
    expected = searched(Exact(similarity=similarity), world, 25)
    torch.testing.assert_close(found.items, expected.items, rtol=0, atol=0)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)  # the same scores, to the last bit


@pytest.mark.parametrize("options", EXHAUSTIVE, ids=lambda options: str(options["index"]))
def test_every_candidate_can_be_asked_for(options: dict[str, Any], world: tuple[TableEncoder, Batch, Tensor]) -> None:
    encoder, batch, candidates = world
    few, k = candidates[:70], 75
    found = searched(FaissIndex(**options), (encoder, batch, few), k)
    expected = searched(Exact(), (encoder, batch, few), k)
    torch.testing.assert_close(found.items, expected.items, rtol=0, atol=0)
    assert found.items[:, 70:].eq(0).all()
    assert found.scores[:, 70:].eq(-torch.inf).all()


def test_ties_lead_with_the_lower_item() -> None:
    encoder = TableEncoder(torch.ones(1, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [0.0, 2.0]]))
    rows = torch.zeros((1, 1), dtype=torch.int64)
    batch = Batch(torch.zeros(1, dtype=torch.int64), *(rows,) * 5, *(rows[:, 0],) * 3)
    assert searched(FaissIndex(), (encoder, batch, torch.arange(1, 5)), 4).items.tolist() == [[2, 1, 3, 4]]


def test_a_coarse_index_still_gives_true_scores_in_order(world: tuple[TableEncoder, Batch, Tensor]) -> None:
    encoder, batch, _ = world
    retriever = FaissIndex(index="PQ4x4", recall_sample=15)
    found = searched(retriever, world, 30)
    true = (encoder.users[batch.users][:, None] * encoder.items[found.items]).sum(dim=2)
    torch.testing.assert_close(found.scores, true)
    assert np.all(np.diff(found.scores.numpy(), axis=1) <= 0)
    best = searched(Exact(), world, 30)
    report = retriever.report()
    expected = np.mean(
        [len(set(one.tolist()) & set(other.tolist())) / 30 for one, other in zip(found.items, best.items, strict=True)][
            :15
        ]
    )
    assert 0 < expected < 1
    assert report["recall"] == pytest.approx(expected)
    assert (report["recall_queries"], report["recall_k"]) == (15, 30)


def test_lists_that_are_not_visited_leave_the_list_short(world: tuple[TableEncoder, Batch, Tensor]) -> None:
    found = searched(FaissIndex(index="IVF32,Flat", search={"nprobe": 1}), world, 200)
    assert found.items.eq(0).any()
    assert torch.equal(found.items.eq(0), found.scores.eq(-torch.inf))


def test_two_builds_are_equal(world: tuple[TableEncoder, Batch, Tensor]) -> None:
    lists = [
        searched(FaissIndex(index="IVF16,Flat", search={"nprobe": 2}, training_sample=200), world, 10).items
        for _ in range(2)
    ]
    assert torch.equal(*lists)


def test_says_what_it_needs_and_what_it_built(world: tuple[TableEncoder, Batch, Tensor]) -> None:
    retriever = FaissIndex(index="IVF8,Flat", build={"niter": 3, "seed": 7}, search={"nprobe": 2})
    assert FaissIndex.needs == (Embedder,)
    searched(retriever, world, 5)
    report = retriever.report()
    assert retriever.device == report["device"] == "cpu"
    assert report["why_cpu"] == "the encoder is on the CPU"
    assert (report["index"], report["build"], report["search"]) == ("IVF8,Flat", {"niter": 3, "seed": 7}, {"nprobe": 2})
    assert POOL * WIDTH * 4 < report["bytes"] < POOL * WIDTH * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "HNSW64,XX"}, r"index: 'HNSW64,XX' is no Faiss index \(could not parse HNSW code"),
        ({"index": "flat"}, r"index: 'flat' is no Faiss index \(could not parse index string flat\)"),
        ({"index": "Flat", "search": {"nprobe": 4}}, "search.nprobe: index 'Flat' has no such parameter"),
        ({"index": "IVF8,Flat", "build": {"efConstruction": 4}}, "build.efConstruction: index 'IVF8,Flat' has no"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        FaissIndex(**options)


def test_too_few_candidates_for_the_lists(world: tuple[TableEncoder, Batch, Tensor]) -> None:
    with pytest.raises(SuiteError, match=r"'IVF4096,Flat' has 4096 lists, and only 600 candidates .* at most 15 lists"):
        searched(FaissIndex(index="IVF4096,Flat"), world, 5)
    with pytest.raises(SuiteError, match=r"has 64 lists, and only 50 candidates"):
        searched(FaissIndex(index="IVF64,Flat", training_sample=50), world, 5)


def test_a_width_that_the_index_cannot_cut(world: tuple[TableEncoder, Batch, Tensor]) -> None:
    with pytest.raises(RunError, match=r"'PQ3x4' cannot be built from 600 candidates of width 8: .*multiple"):
        searched(FaissIndex(index="PQ3x4"), world, 5)


def test_without_faiss_the_extras_are_named() -> None:
    code = "import sys; sys.modules['faiss'] = None; import grbench_reference.retrievers.faiss"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PluginError: the faiss retriever needs the package faiss" in run.stderr
    assert "pip install 'grbench[cpu]'" in run.stderr


@pytest.mark.parametrize("options", EXHAUSTIVE, ids=lambda options: str(options["index"]))
def test_a_saved_index_is_taken_and_finds_the_same(
    options: dict[str, Any], world: tuple[TableEncoder, Batch, Tensor], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path))
    built, taken = FaissIndex(**options, reuse=True), FaissIndex(**options, reuse=True)
    expected, found = searched(built, world, 25), searched(taken, world, 25)
    assert (built.report()["reused"], taken.report()["reused"]) == (False, True)
    assert taken.report()["build_seconds"] == built.report()["build_seconds"]
    torch.testing.assert_close(found.items, expected.items, rtol=0, atol=0)
    assert len(list((tmp_path / "indices").glob("*.faiss"))) == 1


def test_another_index_or_other_vectors_are_built_anew(
    world: tuple[TableEncoder, Batch, Tensor], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path))
    encoder, batch, candidates = world
    searched(FaissIndex(index="IVF8,Flat", reuse=True), world, 5)

    def reused(in_world: Any, **options: Any) -> bool:
        retriever = FaissIndex(**({"index": "IVF8,Flat", "reuse": True} | options))
        searched(retriever, in_world, 5)
        return bool(retriever.report()["reused"])

    assert reused(world, search={"nprobe": 3})  # of no matter for building
    assert not reused(world, build={"niter": 3})
    assert not reused(world, index="IVF4,Flat")
    assert not reused(world, similarity="cosine")
    assert not reused((encoder, batch, candidates[:-1]))
    moved = TableEncoder(encoder.users, encoder.items * 1.5)
    assert not reused((moved, batch, candidates))
    for saved in (tmp_path / "indices").glob("*.faiss"):
        saved.write_bytes(b"cut short")
    assert not reused(world)
    assert reused(world)


def test_a_kept_index_knows_nothing_of_how_it_was_searched(
    world: tuple[TableEncoder, Batch, Tensor], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faiss writes nprobe into the file; a method that leaves it out means Faiss' own default, whoever came before."""
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path))
    expected = searched(FaissIndex(index="IVF32,Flat"), world, 25)
    searched(FaissIndex(index="IVF32,Flat", search={"nprobe": 32}, reuse=True), world, 25)
    taken = FaissIndex(index="IVF32,Flat", reuse=True)
    found = searched(taken, world, 25)
    assert taken.report()["reused"]
    assert torch.equal(found.items, expected.items)


@pytest.mark.parametrize("index", ["IVF8,Flat", "OPQ4,IVF8,PQ4"])
def test_the_copy_on_a_gpu_gets_the_clustering_settings(index: str) -> None:
    """A fresh index on the CPU stands for the GPU's copy: its settings are Faiss' own too."""
    host, copy = (faiss.index_factory(WIDTH, index) for _ in range(2))
    faiss.extract_index_ivf(host).cp.niter, faiss.extract_index_ivf(host).cp.seed = 3, 7
    copy_clustering(host, copy)
    assert (faiss.extract_index_ivf(copy).cp.niter, faiss.extract_index_ivf(copy).cp.seed) == (3, 7)
    copy_clustering(faiss.index_factory(WIDTH, "Flat"), faiss.index_factory(WIDTH, "Flat"))  # has none


def test_an_index_that_cannot_be_kept_still_searches(
    world: tuple[TableEncoder, Batch, Tensor], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "file"))
    retriever = FaissIndex(reuse=True)
    assert (searched(retriever, world, 5).items > 0).all()
    assert "file" in retriever.report()["why_not_kept"]


@pytest.mark.parametrize("index", ["Flat", "IVF8,Flat", "IVF8,SQ8", "HNSW16", "PQ4x4"])
def test_bytes_foretold_are_near_those_of_the_index(index: str, world: tuple[TableEncoder, Batch, Tensor]) -> None:
    retriever = FaissIndex(index=index)
    searched(retriever, world, 5)
    foretold = retriever.index_bytes(POOL, WIDTH) - 4 * POOL * WIDTH  # without the vectors that stand beside it
    assert foretold == pytest.approx(retriever.report()["bytes"], rel=0.3, abs=4000)
