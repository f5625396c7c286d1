"""The challenge's second place: items enriched by a graph neural network over sampled neighbourhoods of the graph of
users and items, then a causal Transformer that predicts the next item's embedding (paper, section 7).

Shapes: B users, T history length, N items, D width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import gathered
from grbench.errors import SuiteError
from grbench.registry.option_types import Count, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.causal_transformer import CausalTransformer, TransformerOptions
from grbench_reference.encoders.history_encoder import HistoryOptions
from grbench_reference.features.fusion import Tower
from grbench_reference.graphs.neighbourhoods import Neighbourhoods
from grbench_reference.graphs.user_item_graph import user_item_graph


class GNN(CausalTransformer):
    """`causal_transformer` whose item vectors, in histories and of candidates, include a sampled neighbourhood: the
    item's users, those users' items, and so on, each hop added through a gate. Only training events are edges.

    A training step hides all edges of the users in its batch. Otherwise an item would lead through its own user to that
    user's next item, and the target could be read off the graph; the edges of other users lead to no event of the
    batch. Test users of `last_positive` have no edges either. Where test users are trained on (leave_last_out,
    train_on_evaluation_history), their training events, and only those, are edges at test.

    An item of a single user is thus a target without a neighbourhood, which negatives hardly ever are. So that a
    missing neighbourhood does not mark targets (nor unseen candidates at test), `neighbourhood_dropout` removes that of
    other items too; where unseen candidates matter, draw the loss's negatives from all items (`pool: all`).

    At test the neighbourhoods are fixed (evenly spaced edges), so that a score depends on user and item only. The last
    layer of the outermost gate starts at zero, so that training starts from `causal_transformer`.

    The paper names GNNs over sampled neighbourhoods and gated MLPs and no more: the gate, the mean over neighbours and
    the numbers drawn are this encoder's. A user's own vector is that of its profile, as in the user token; without
    one it is zero.

    Args:
        neighbours: how many are drawn at each hop from an item outwards: users of the item, items of those users, ...
        neighbourhood_dropout: share of items left without a neighbourhood in a training step.
        graph_actions: the actions whose training events are edges; null = all.
    """

    items: Neighbourhoods  # type: ignore[assignment]

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        neighbours: tuple[Count, ...] = (10, 5),
        neighbourhood_dropout: Share = 0.1,
        graph_actions: list[str] | None = None,
        transformer: TransformerOptions = TransformerOptions(),
        history: HistoryOptions = HistoryOptions(),
    ) -> None:
        if not neighbours:
            raise SuiteError("encoder.neighbours: [] draws none; name a number for each hop, such as [10, 5]")
        super().__init__(data, codes, transformer=transformer, history=history)
        graph, own = user_item_graph(data, actions=graph_actions), cast(Tower, self.items)
        self.items = Neighbourhoods(graph, own, self._profiles, neighbours, neighbourhood_dropout)

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """See HistoryEncoder."""
        if not self.training:
            return super().embed(batch, items)
        with self.items.without(gathered(batch.users)):  # the empty rows that fill the last batch hide a user too
            return super().embed(batch, items)

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D], the state after the newest event: the user token's where there is none, zero without one."""
        if not self.training:
            return super().embed_histories(batch)
        with self.items.without(gathered(batch.users)):
            return super().embed_histories(batch)

    def _profiles(self, users: Tensor) -> Tensor:
        """users [K] -> [K, D]."""
        if self.user_token and self.users is not None:
            vectors: Tensor = self.users(users)
            return vectors
        return torch.zeros(len(users), self.width, device=users.device)
