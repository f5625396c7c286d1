"""The exact retriever against brute force, worlds of small whole numbers first: their products are exact, ties many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from worlds import TableEncoder

from grbench.errors import RunError
from grbench.interfaces import Embedder, Retriever
from grbench.types import Batch, Codes, TopK
from grbench_reference.retrievers.exact import Exact
from grbench_reference.retrievers.exact_search import ExactSearch
from grbench_reference.retrievers.top_k import full_precision, largest

NO_CODES = Codes(torch.zeros((1, 1), dtype=torch.int64), (1,))


def batch_of(users: list[int]) -> Batch:
    rows = torch.zeros((len(users), 1), dtype=torch.int64)
    return Batch(torch.tensor(users), *(rows,) * 5, *(rows[:, 0],) * 3)


def searched(retriever: Retriever, users: Tensor, items: Tensor, candidates: Tensor, k: int) -> TopK:
    """Every user's list. items: [N+1, D]."""
    encoder = TableEncoder(users, items)
    retriever.index(encoder, candidates, NO_CODES)
    return retriever.search(encoder, batch_of(list(range(len(users)))), k)


def brute_force(scores: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A stable sort of everything: the lower item first among equals."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return candidates[order], np.take_along_axis(scores, order, axis=1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 700),
    k=st.integers(1, 40),
    spread=st.sampled_from([0, 1, 3]),
    block=st.sampled_from([None, 1, 64, 100]),
)
def test_equals_a_stable_sort_of_every_score(seed: int, count: int, k: int, spread: int, block: int | None) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-spread, spread + 1, size=(count, 3)).astype(np.float32)
    queries = rng.integers(-spread, spread + 1, size=(5, 3)).astype(np.float32)
    positions, scores = ExactSearch(torch.from_numpy(vectors), block=block).search(torch.from_numpy(queries), k)
    expected_positions, expected_scores = brute_force(queries @ vectors.T, np.arange(count), k)
    np.testing.assert_array_equal(positions, expected_positions)
    np.testing.assert_array_equal(scores, expected_scores)


def test_by_hand() -> None:
    items = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [9.0, 9.0], [2.0, 2.0]])
    users = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    found = searched(Exact(), users, items, torch.tensor([1, 2, 3, 5]), 3)  # item 4 is no candidate
    assert found.items.tolist() == [[5, 1, 3], [1, 3, 2]]
    assert found.scores.tolist() == [[2, 1, 1], [0, 0, -1]]
    assert (found.items.dtype, found.scores.dtype) == (torch.int64, torch.float32)


@pytest.mark.parametrize("width", [7, 32, 50, 129])
@pytest.mark.parametrize("k", [5, 60])
def test_equal_vectors_tie_wherever_they_lie(width: int, k: int) -> None:
    """Real-valued vectors, each at 40 far-apart places: a matrix product must not round them apart."""
    torch.manual_seed(0)
    different = torch.randn(230, width)
    vectors = different[torch.randint(230, (9_201,))]
    queries = torch.randn(20, width)
    positions, scores = ExactSearch(vectors).search(queries, k)
    exact = (queries[:, None] * vectors).sum(dim=2).numpy()
    expected_positions, expected_scores = brute_force(exact, np.arange(len(vectors)), k)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(positions, expected_positions)


def test_the_largest_of_equals_come_first() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0], [1.0, -0.0, 0.0, 0.0]])
    assert largest(scores, 2).tolist() == [[1, 2], [0, 1], [0, 1], [0, 1]]


@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
def test_similarities(similarity: str) -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(400, 4)).astype(np.float32)
    found = searched(
        Exact(similarity=similarity, encode_block=7),  # type: ignore[arg-type]
        torch.from_numpy(users),
        torch.from_numpy(items),
        torch.arange(1, 400),
        10,
    )
    scores = {
        "dot": users @ items.T,
        "cosine": (users / np.linalg.norm(users, axis=1)[:, None]) @ (items / np.linalg.norm(items, axis=1)[:, None]).T,
        "euclidean": -np.linalg.norm(users[:, None] - items, axis=2),
    }[similarity][:, 1:]
    np.testing.assert_array_equal(found.items, brute_force(scores, np.arange(1, 400), 10)[0])


def test_a_short_pool_ends_the_list_early() -> None:
    found = searched(Exact(), torch.ones(2, 1), torch.arange(4.0)[:, None], torch.tensor([1, 3]), 4)
    assert found.items.tolist() == [[3, 1, 0, 0]] * 2
    assert found.scores.tolist() == [[3, 1, -np.inf, -np.inf]] * 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_a_history_without_finite_scores_is_named(bad: float) -> None:
    users = torch.ones(3, 2)
    users[2, 1] = bad
    with pytest.raises(RunError, match="user row 2"):
        searched(Exact(), users, torch.full((5, 2), 2.0), torch.arange(1, 5), 2)


def test_an_item_without_a_finite_vector_is_named() -> None:
    items = torch.ones(6, 2)
    items[4, 0] = float("nan")
    with pytest.raises(RunError, match="item 4"):
        searched(Exact(encode_block=2), torch.ones(1, 2), items, torch.arange(1, 6), 2)


def test_lower_precision_elsewhere_does_not_reach_the_scores() -> None:
    vectors, query = torch.tensor([[1.0], [1.0 + 2**-20]]), torch.ones(1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        positions, scores = ExactSearch(vectors).search(query, 2)
    assert positions.tolist() == [[1, 0]]
    assert scores.tolist() == [[1 + 2**-20, 1]]
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision("cpu"):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_no_query_gives_no_list() -> None:
    positions, scores = ExactSearch(torch.ones(3, 2)).search(torch.ones(0, 2), 2)
    assert positions.shape == scores.shape == (0, 2)


def test_says_what_it_needs_and_what_it_built() -> None:
    retriever = Exact()
    searched(retriever, torch.ones(1, 4), torch.ones(9, 4), torch.arange(1, 9), 2)
    assert Exact.needs == (Embedder,)
    assert retriever.report() == {"candidates": 8, "width": 4, "bytes": 8 * 4 * 4, "device": "cpu"}


def test_threads_change_neither_the_lists_nor_the_setting() -> None:
    torch.manual_seed(0)
    search, queries = ExactSearch(torch.randn(5_000, 16)), torch.randn(150, 16)
    before = torch.get_num_threads()
    found = {}
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found[threads] = search.search(queries, 7)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[1][0], found[3][0])
    assert torch.equal(found[1][1], found[3][1])
    positions, scores = brute_force((queries[:, None] * search.vectors).sum(dim=2).numpy(), np.arange(5_000), 7)
    np.testing.assert_array_equal(found[3][0], positions)
    np.testing.assert_array_equal(found[3][1], scores)
