"""LightGCN (He et al., SIGIR 2020, arXiv 2002.02126): one vector a user and an item, smoothed over their graph.

Shapes: B users, T history length, N items, U users of the store, D width, K layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.registry.option_types import Count
from grbench.types import FIRST_ACTION, Batch, Codes
from grbench_reference.graphs.user_item_graph import user_item_graph
from grbench_reference.kernels.embedding import unit


@dataclass(frozen=True)
class _Propagated:
    """users [U, D], items [N+1, D]: the mean of the layers. messages: [N+1, D], what an item sends to a new user."""

    users: Tensor
    items: Tensor
    messages: Tensor


class LightGCN(nn.Module):
    """e(k+1) = D^-1/2 A D^-1/2 e(k) over users and items, and the mean of e(0) .. e(K); only e(0) is learnt.

    A history's vector is its user's, the same at all positions: order, actions and features do not enter. A user
    without an edge, such as the evaluation users of `last_positive`, is treated as a new node whose edges are its
    history and whose e(0) is 0. An item without an edge has the zero vector.

    As in the paper, the graph contains the edges that training predicts, but no held-out event. Differs from the paper:
    the loss is the suite's (there: BPR with one negative, and L2 on e(0), for which adamw's decay stands), and it is
    taken over the targets of a batch of users, not over edges drawn at random.

    Args:
        width: of the vectors (paper: 64).
        layers: how often vectors are passed on (paper: 3).
        history_length: newest events read; in training the edges that a user's row of a batch learns from.
        graph_actions: the actions whose training events are edges; null = all.
        spread: of the first vectors (the authors' code: 0.1).
        similarity: dot, or cosine = both sides scaled to length 1 (set the loss's temperature with it).
    """

    edge_actions: Tensor | None

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - an encoder of items as such
        *,
        width: Count = 64,
        layers: Count = 3,
        history_length: Count = 100,
        graph_actions: list[str] | None = None,
        spread: Annotated[float, Field(gt=0)] = 0.1,
        similarity: Literal["dot", "cosine"] = "dot",
    ) -> None:
        super().__init__()
        self.history_length, self.layers, self.cosine = history_length, layers, similarity == "cosine"
        self.graph = user_item_graph(data, actions=graph_actions, distinct=True)
        names = data.catalogue.actions
        named = None if graph_actions is None else [False] * FIRST_ACTION + [name in graph_actions for name in names]
        self.register_buffer("edge_actions", None if named is None else torch.tensor(named), persistent=False)
        self.users = nn.Embedding(data.catalogue.num_users, width)
        self.items = nn.Embedding(data.catalogue.num_items + 1, width)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=spread)
        self._kept: _Propagated | None = None

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T, D] the user's vector at each position, [N, D]). A new user's grows with the history."""
        propagated = self._propagate()
        known, users = self._known(batch, propagated)
        edges = self._edges(batch)
        sent = propagated.messages[edges].cumsum(1)
        degrees = (edges > 0).cumsum(1).clamp(min=1)
        states = torch.where(known[:, None, None], users.unsqueeze(1), sent * degrees.rsqrt().unsqueeze(-1))
        return self._normalise(states), self._normalise(propagated.items[items])

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D], the user's vector; zero for a new user without a history."""
        propagated = self._propagate()
        known, users = self._known(batch, propagated)
        edges = self._edges(batch)
        sent = propagated.messages[edges].sum(1)
        degrees = (edges > 0).sum(1).clamp(min=1)
        return self._normalise(torch.where(known[:, None], users, sent * degrees.rsqrt().unsqueeze(-1)))

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""
        return self._normalise(self._propagate().items[items])

    def _known(self, batch: Batch, propagated: _Propagated) -> tuple[Tensor, Tensor]:
        """-> ([B] whether the user has an edge, [B, D] its vector)."""
        return self.graph.items_of.degrees[batch.users] > 0, propagated.users[batch.users]

    def _edges(self, batch: Batch) -> Tensor:
        """-> [B, T], the items of the history that would be edges of the graph, 0 elsewhere: of `graph_actions` only,
        and each item once, at its first event."""
        items = batch.items if self.edge_actions is None else batch.items * self.edge_actions[batch.actions]
        ordered, order = items.sort(dim=1, stable=True)
        again = torch.zeros_like(items, dtype=torch.bool)
        again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        return items.masked_fill(torch.empty_like(again).scatter_(1, order, again), 0)

    @contextmanager
    def fixed_weights(self) -> Iterator[None]:
        """Vectors are propagated once for all that is embedded in this context."""
        self._kept = self._propagated()
        try:
            yield
        finally:
            self._kept = None

    def _propagate(self) -> _Propagated:
        """Over the whole graph."""
        return self._kept or self._propagated()

    def _propagated(self) -> _Propagated:
        of_users, of_items = (_inverse_roots(table.degrees) for table in (self.graph.items_of, self.graph.users_of))
        # A node without an edge is no part of the model: nothing has taught it its vector.
        users = self.users.weight * (of_users > 0)
        items = self.items.weight * (of_items > 0)
        all_users, all_items, messages = users, items, torch.zeros_like(items)
        for _ in range(self.layers):
            messages = messages + items * of_items
            users, items = (
                self.graph.sum_items(items * of_items) * of_users,
                self.graph.sum_users(users * of_users) * of_items,
            )
            all_users, all_items = all_users + users, all_items + items
        share = 1 / (self.layers + 1)
        return _Propagated(all_users * share, all_items * share, messages * share)

    def _normalise(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.cosine else vectors


def _inverse_roots(degrees: Tensor) -> Tensor:
    """[nodes] -> [nodes, 1] 1 / sqrt(degree), 0 where there is no edge."""
    return torch.where(degrees > 0, degrees.clamp(min=1).float().rsqrt(), 0.0).unsqueeze(1)
