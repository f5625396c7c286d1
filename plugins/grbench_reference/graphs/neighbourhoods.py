"""Item vectors with sampled neighbourhoods: an item's users, those users' items, and so on outwards.

Shapes: M items, D width, K distinct nodes of a hop, C neighbours drawn of each node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench_reference.features.fusion import ROWS_AT_ONCE, Tower
from grbench_reference.graphs.user_item_graph import UserItemGraph
from grbench_reference.kernels.embedding import distinct, gather_rows, sum_rows


class GatedMean(nn.Module):
    """own + sigmoid(W [own, mean]) * MLP([own, mean]): a gate weighs the neighbourhood against the node itself.

    A node without a neighbour stays as it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, width)
        self.hidden = nn.Linear(2 * width, width)
        self.value = nn.Linear(width, width)
        for layer in (self.gate, self.hidden, self.value):  # a bias would add one vector to all nodes
            nn.init.zeros_(layer.bias)

    def forward(self, own: Tensor, vectors: Tensor, where: Tensor, found: Tensor) -> Tensor:
        """own [M, D]; vectors [K, D] of the neighbours; where [M, C] which of them are a node's, found [M, C] bool
        whether there is one -> [M, D]."""
        shares = found / found.sum(1, keepdim=True).clamp(min=1)
        mean = sum_rows(vectors.float(), where, shares)
        both = torch.cat([own, mean.to(own.dtype)], dim=1)
        taken: Tensor = torch.sigmoid(self.gate(both)) * self.value(functional.gelu(self.hidden(both)))
        return own + taken * found.any(1, keepdim=True)


@dataclass(frozen=True)
class _Hop:
    """nodes: [K], distinct; where: [M, C], which of them are the neighbours of the hop before's nodes; found: [M, C]
    bool, whether there is one."""

    nodes: Tensor
    where: Tensor
    found: Tensor


class Neighbourhoods(nn.Module):
    """In place of a tower of items: items [...] -> [..., D], from own features, `neighbours[0]` users of each item,
    `neighbours[1]` items of each of those, and so on. Each distinct node of a hop is sampled and computed once.

    own: the items' tower; profiles: users [K] -> [K, D], from user features; dropout: share of items left without a
    neighbourhood in training.
    """

    def __init__(
        self,
        graph: UserItemGraph,
        own: Tower,
        profiles: Callable[[Tensor], Tensor],
        neighbours: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.graph, self.own, self.neighbours, self.dropout = graph, own, tuple(neighbours), dropout
        self._profiles = profiles
        self._hidden: Tensor | None = None
        gates = [GatedMean(own.width) for _ in self.neighbours]
        nn.init.zeros_(gates[0].value.weight)  # training starts from the item alone
        self.gates = nn.ModuleList(gates)

    @contextmanager
    def without(self, users: Tensor) -> Iterator[None]:
        """Inside, the edges of these users are hidden."""
        hidden = torch.zeros(len(self.graph.items_of.degrees), dtype=torch.bool, device=users.device)
        hidden[users] = True
        self._hidden = hidden
        try:
            yield
        finally:
            self._hidden = None

    def forward(self, items: Tensor) -> Tensor:
        flat = items.reshape(-1)
        if torch.is_grad_enabled() or len(flat) <= ROWS_AT_ONCE:
            vectors = self._gather(flat)
        else:
            vectors = torch.cat([self._gather(some) for some in torch.split(flat, ROWS_AT_ONCE)])
        return vectors.view(*items.shape, -1)

    def each_once(self, *groups: Tensor) -> tuple[Tensor, ...]:
        """The vectors of several tensors of items, each distinct item's neighbourhood drawn once."""
        distinct_items, where = distinct(torch.cat([group.reshape(-1) for group in groups]), self.own.count)
        vectors = self(distinct_items)
        places = torch.split(where, [group.numel() for group in groups])
        return tuple(gather_rows(vectors, some.view(group.shape)) for some, group in zip(places, groups, strict=True))

    def _gather(self, items: Tensor) -> Tensor:
        """items [M] -> [M, D]: samples hops outwards, then aggregates inwards."""
        hops = self._draw(items)
        of_items = iter(self.own.each_once(items, *(hop.nodes for hop in hops[1::2])))
        own = [next(of_items)]
        for place, hop in enumerate(hops):
            own.append(next(of_items) if place % 2 else self._profiles(hop.nodes))
        vectors = own.pop()
        for gate, hop in zip(reversed(self.gates), reversed(hops), strict=True):
            vectors = gate(own.pop(), vectors, hop.where, hop.found)
        return vectors

    def _draw(self, items: Tensor) -> list[_Hop]:
        hops: list[_Hop] = []
        nodes = items
        for place, count in enumerate(self.neighbours):
            to_users = place % 2 == 0
            table, other = (self.graph.users_of, self.graph.items_of)[:: 1 if to_users else -1]
            drawn, found = table.sample(nodes, count)
            if to_users and self._hidden is not None:
                found = found & ~self._hidden[drawn]
            if place == 0 and self.training and self.dropout:
                found = found & (torch.rand(len(found), 1, device=found.device) >= self.dropout)
            drawn = drawn.masked_fill(~found, 0)
            nodes, where = distinct(drawn.reshape(-1), len(other.offsets) - 1)
            hops.append(_Hop(nodes, where.view(drawn.shape), found))
        return hops
