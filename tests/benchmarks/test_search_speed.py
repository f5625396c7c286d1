"""Indexing candidates, searching them, and scoring the lists."""

from __future__ import annotations

import pytest
from methods import cases

FLAT = {"name": "faiss", "index": "Flat"}


@pytest.mark.parametrize(("retriever", "parts", "like"), cases("retrievers"))
def test_index(keeps_up, workbench, retriever, parts, like) -> None:
    keeps_up(workbench.index(retriever, **parts), *like, seconds=4)


@pytest.mark.parametrize(("retriever", "parts", "like"), cases("retrievers"))
def test_search(keeps_up, workbench, retriever, parts, like) -> None:
    (work,) = workbench.works("retrievers", retriever, **parts)
    keeps_up(work, *like)


def test_exact_against_faiss_flat(versus) -> None:
    """Faiss' flat index is what others search exactly with."""
    versus("retrievers", "exact", reference=FLAT, at_most=1.6)


@pytest.mark.parametrize(("metric", "parts", "like"), cases("metrics"))
def test_metric(keeps_up, workbench, metric, parts, like) -> None:
    (work,) = workbench.works("metrics", metric, **parts)
    keeps_up(work, *like, seconds=2)
