"""The graph of users and items: an edge is a training event. No other event can be reached from it.

Shapes: U users, N items, E edges, M nodes, C neighbours drawn of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from grbench.data.training_data import TrainingData, action_tokens
from grbench.errors import DataError, SuiteError


class AdjacencyList(nn.Module):
    """Each node's neighbours on the other side: node n's are columns[offsets[n]:offsets[n + 1]].

    offsets: [nodes + 1] int64; columns: [E] int32. Both move with the module and are never saved.
    """

    offsets: Tensor
    columns: Tensor

    def __init__(self, offsets: np.ndarray, columns: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.from_numpy(offsets.astype(np.int64, copy=False)), persistent=False)
        self.register_buffer("columns", torch.from_numpy(columns.astype(np.int32, copy=False)), persistent=False)

    @property
    def degrees(self) -> Tensor:
        """[nodes] int64, edges of each node."""
        return self.offsets.diff()

    def sample(self, nodes: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """nodes [M] -> (neighbours [M, C] int64, mask [M, C]); where the mask is false, there is none and it is 0.

        A node with `count` edges or fewer yields each of them once. With more, training draws `count` uniformly with
        replacement; evaluation takes `count` evenly spaced ones of the node's list, so that the sample depends on the
        node alone.
        """
        first = self.offsets[nodes].unsqueeze(1)
        degree = self.offsets[nodes + 1].unsqueeze(1) - first
        each = torch.arange(count, device=nodes.device)
        if self.training:
            # In float32 the product may round up to the degree itself.
            some = torch.minimum((torch.rand(len(nodes), count, device=nodes.device) * degree).long(), degree - 1)
        else:
            some = (2 * each + 1) * degree // (2 * count)
        found = each < degree
        place = first + torch.where(degree > count, some, each)
        return self.columns[torch.where(found, place, 0)].long().masked_fill(~found, 0), found


class UserItemGraph(nn.Module):
    """items_of: each user's items, [U + 1] and [E]; users_of: each item's users, ascending, [N + 2] and [E].

    An edge takes 8 bytes, 4 a direction, and a node 8: 0.75 GB at TencentGR-1M's 91 M events, 8.1 GB at 10M's 986 M.
    Building takes 2 bytes an edge more while it lasts.
    """

    def __init__(self, items_of: AdjacencyList, users_of: AdjacencyList) -> None:
        super().__init__()
        self.items_of, self.users_of = items_of, users_of

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.items_of.columns)

    def sum_items(self, vectors: Tensor) -> Tensor:
        """vectors [N + 1, D] of the items -> [U, D], each user's items added up: the sparse product R x vectors."""
        summed: Tensor = _Sum.apply(vectors, self.items_of, self.users_of)  # type: ignore[no-untyped-call]
        return summed

    def sum_users(self, vectors: Tensor) -> Tensor:
        """vectors [U, D] of the users -> [N + 1, D], each item's users added up."""
        summed: Tensor = _Sum.apply(vectors, self.users_of, self.items_of)  # type: ignore[no-untyped-call]
        return summed


class _Sum(Function):
    """The backward pass of a sum along one direction is the sum along the other, so that neither is transposed."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, along: AdjacencyList, back: AdjacencyList) -> Tensor:
        ctx.back = back
        return _sums(along, vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _sums(ctx.back, gradient), None, None


def _sums(table: AdjacencyList, vectors: Tensor) -> Tensor:
    """The vectors of each node's neighbours added up, in float32."""
    vectors, columns = vectors.float().contiguous(), table.columns
    offsets = table.offsets.int() if len(columns) < 2**31 else table.offsets
    columns = columns.to(offsets.dtype)
    return (_spread_product if vectors.is_cuda else _bags)(offsets, columns, vectors)


def _bags(offsets: Tensor, columns: Tensor, vectors: Tensor) -> Tensor:
    """For a CPU: 3 times as fast there as torch's sparse product."""
    return functional.embedding_bag(columns, vectors, offsets, mode="sum", include_last_offset=True)


def _spread_product(offsets: Tensor, columns: Tensor, vectors: Tensor) -> Tensor:
    """For a GPU: spreads work over edges, where a bag would leave a popular item to one thread. 4 bytes an edge."""
    with warnings.catch_warnings(), torch.autocast(vectors.device.type, enabled=False):
        warnings.filterwarnings("ignore", message=".*(Sparse CSR tensor|Sparse invariant).*")
        ones = vectors.new_ones(len(columns))
        return torch.sparse_csr_tensor(offsets, columns, ones, (len(offsets) - 1, len(vectors))) @ vectors


def user_item_graph(
    data: TrainingData, *, actions: Sequence[str] | None = None, distinct: bool = False
) -> UserItemGraph:
    """The graph of the training events, of the named actions only where given.

    distinct: one edge for each pair of user and item, however many events it has, users' items ascending; else one an
    event, a user's in the order of its history.
    Raises SuiteError for an action that the dataset lacks, and where there is no edge at all.
    """
    tokens = None if actions is None else _tokens(data, actions)
    degrees = np.zeros(data.catalogue.num_users + 1, np.int64)
    for users, counts, _ in _rows(data, tokens):
        degrees[users + 1] += counts
    offsets = np.cumsum(degrees)
    if not offsets[-1]:
        raise SuiteError(
            f"encoder.graph_actions: no training event is a {' or '.join(actions)}, so the graph has no edge"
            if actions is not None
            else "encoder: there is no training event to make a graph of"
        )
    columns = np.empty(offsets[-1], np.int32)
    for users, counts, items in _rows(data, tokens):
        starts = np.cumsum(counts) - counts
        columns[np.repeat(offsets[users] - starts, counts) + np.arange(len(items))] = items
    shape = (data.catalogue.num_users, data.catalogue.num_items + 1)
    edges: Any = csr_array((np.ones(len(columns), np.int8), columns, offsets), shape=shape)
    if distinct:
        edges.sum_duplicates()
    other = edges.tocsc()
    return UserItemGraph(AdjacencyList(edges.indptr, edges.indices), AdjacencyList(other.indptr, other.indices))


def _tokens(data: TrainingData, actions: Sequence[str]) -> tuple[int, ...]:
    if not actions:
        raise SuiteError("encoder.graph_actions: [] leaves no edge; name actions, or null for all")
    try:
        return action_tokens(actions, data.catalogue, "encoder.graph_actions")
    except DataError as error:
        raise SuiteError(str(error)) from None


def _rows(data: TrainingData, tokens: tuple[int, ...] | None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(users [n], each once; how many of their events are edges [n]; the items of those), some millions at a time."""
    for events in data.stream():
        if tokens is None:
            yield events.users, np.diff(events.offsets), events.items
        else:
            chosen = np.isin(events.actions, tokens)
            before = np.concatenate([[0], np.cumsum(chosen)])
            yield events.users, np.diff(before[events.offsets]), events.items[chosen]
