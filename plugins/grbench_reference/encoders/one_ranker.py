"""OneRanker, Sun et al. 2026 (arXiv 2603.02999): one model that generates candidates by tasks from exposure to value,
and ranks what was retrieved.

Shapes: B users, T history length, N items, P tokens, L columns of events, W places of a row that have task tokens, n
tasks, C candidates of a place, D width, H heads, E = D / H.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.registry.option_types import Count, Natural, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.history_encoder import HistoryEncoder, HistoryOptions
from grbench_reference.encoders.one_pass import OnePass
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.cached_decoding import KeyValues
from grbench_reference.layers.fake_items import FakeItems
from grbench_reference.layers.interfaces import Ranked
from grbench_reference.layers.ranking_decoder import Generation, RankingDecoder
from grbench_reference.layers.task_blocks import TaskBlock, TaskLayout
from grbench_reference.layers.token_packing import Layout, lay_out
from grbench_reference.layers.transformer import Rotary, width_of_heads


class OneRanker(HistoryEncoder):
    """Task tokens behind each event read the history and predict the next item for one task each: each of the dataset's
    actions in its order (exposure, click, conversion), then value; the state of value is that which is searched with.
    A ranking stage scores the candidates that were found (retriever `retrieve_rank`).

    As in the paper: a task sees the tasks before it; fake items, k-means centres of item vectors, stand for candidates
    that the tasks look at while they generate; a ranking decoder of one layer reads the keys and values that generation
    has left, and its candidates do not see each other. Width 128, 32 fake items, 2 tokens a task. The losses
    are `task_prediction` and `value_ranking`.

    Ours: it is made from the paper's abstract and a summary, so that equations are ours. Each event is a place to
    predict from, not only the newest: tasks see no other place's tasks, and events see neither tasks nor fake items. A
    task token is a learned vector and the token of the event before it.
    Fake items are the same for all users; they follow the item vectors of training batches step by step. A task's state
    is that of its last token. The ranking stage adds to the score of generation, and starts at zero. `task_prediction`
    trains all tasks; with another loss of vectors only value is trained, which is the model without tasks where
    `tokens_per_task` is 1.

    Args:
        width: of tokens, blocks and the vectors that are compared (paper: 128).
        blocks: how many.
        heads: of each block, and of the ranking decoder.
        tokens_per_task: task tokens of each task (paper: 6 for three actions, 2 for value).
        fake_items: how many (paper: 32); 0 = none.
        temperature: the score of generation is divided by it where the ranking stage adds to it; set it to that of the
            losses.
        feed_forward: hidden width of the feed-forward layers, in widths.
        dropout: of tokens, block outputs and feed-forward layers.
        attention_dropout: of attention weights; null = as dropout.
        history_length: newest events read.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: Count = 128,
        blocks: Count = 2,
        heads: Count = 2,
        tokens_per_task: Count = 2,
        fake_items: Natural = 32,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        feed_forward: Annotated[float, Field(gt=0)] = 2.0,
        dropout: Share = 0.1,
        attention_dropout: Share | None = None,
        history_length: Count = 100,
        history: HistoryOptions = HistoryOptions(),
    ) -> None:
        if not history.user_token:
            raise SuiteError(
                "encoder.user_token: one_ranker needs it, as the place before the first event; leave it out"
            )
        rotary = Rotary(width_of_heads(width, heads, rotary=True), history_length + 2)
        super().__init__(
            data,
            codes,
            history,
            width=width,
            history_length=history_length,
            dropout=dropout,
            last_norm=RMSNorm(width),
            positions="none",
        )
        self.heads, self.temperature, self.tokens_per_task = heads, temperature, tokens_per_task
        tokens = (self.num_actions + 1) * tokens_per_task
        self.tasks = nn.Parameter(torch.empty(tokens, width).normal_(std=TABLE_SPREAD))
        self.fake_items = FakeItems(fake_items, width) if fake_items else None
        if fake_items:
            self.fake_kind = nn.Parameter(torch.empty(width).normal_(std=TABLE_SPREAD))
        share, hidden = dropout if attention_dropout is None else attention_dropout, max(1, round(feed_forward * width))
        self.blocks = nn.ModuleList(
            TaskBlock(
                width,
                heads,
                hidden=hidden,
                dropout=dropout,
                attention_dropout=share,
                rotary=rotary,
                key_bias=self.key_bias(heads),
            )
            for _ in range(blocks)
        )
        self.ranking = RankingDecoder(
            width, heads, hidden=hidden, dropout=dropout, attention_dropout=share, rotary=rotary
        )
        self._contexts: OnePass[Generation] = OnePass()
        self._newest_contexts: OnePass[Generation] = OnePass()

    @contextmanager
    def one_pass(self) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
        """Inside, a batch's histories are encoded once, however many losses need them, and once more for the newest
        event alone, for search and its ranking stage. Yields a function that gives no further loss terms."""
        with self._contexts.open(), self._newest_contexts.open():
            yield dict

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T + 1, D], the states of value, the user token's first; [N, D])."""
        states, vectors = self.task_states(batch, items)
        return states[:, :, -1], vectors

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D], the state of value after the newest event; the user token's where there is none."""
        return self._newest(batch).states[:, 0, -1]

    def task_states(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T + 1, A + 1, D], the state of each action, in their order, and of value; [N, D])."""
        known = self._contexts.get(batch)
        if known is not None:
            (vectors,) = self.items.each_once(items)
            return known.states, self._normalise(vectors)
        layout = lay_out(batch, user_token=True)
        events, vectors = self.items.each_once(layout.take(batch.items), items)
        return self._contexts.put(batch, self._everywhere(batch, layout, events)).states, self._normalise(vectors)

    def rank(self, batch: Batch, columns: Tensor, candidates: Tensor) -> Ranked:
        """columns [B, W] of the [B, T + 1] of `batch.all_targets`, candidates [B, W, C] -> their scores, each after the
        event of its column."""
        context = self._contexts.get(batch)
        if context is None:
            layout = lay_out(batch, user_token=True)
            (events,) = self.items.each_once(layout.take(batch.items))
            context = self._contexts.put(batch, self._everywhere(batch, layout, events))
        return self._rank(context.at(columns), candidates)

    def rank_newest(self, batch: Batch, candidates: Tensor) -> Tensor:
        """candidates [B, C] -> [B, C], their scores after the newest event."""
        return self._rank(self._newest(batch), candidates.unsqueeze(1)).ranked.squeeze(1)

    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], the tokens of value."""
        mixed, *_ = self._blocks(tokens, batch, TaskLayout(layout, self._fakes, len(self.tasks), newest=False))
        return mixed[:, -1]

    @property
    def _fakes(self) -> int:
        return 0 if self.fake_items is None else len(self.fake_items.counts)

    def _rank(self, context: Generation, candidates: Tensor) -> Ranked:
        (vectors,) = self.items.each_once(candidates)
        own = self._normalise(vectors)
        generated = (context.states[:, :, -1].unsqueeze(2) * own).sum(-1) / self.temperature
        added = self.ranking(vectors * self.input_scale, context)
        return Ranked(generated, generated + added)

    def _everywhere(self, batch: Batch, layout: Layout, events: Tensor) -> Generation:
        """events [P, D], item vectors -> the context of all columns."""
        tokens = self.dropout(self._tokens(batch, layout, events))
        kinds = TaskLayout(layout, self._fakes, len(self.tasks), newest=False)
        mixed, keys_values, of_tasks = self._blocks(tokens, batch, kinds)
        if self.training and self.fake_items is not None:  # afterwards: no place may see later events in them
            self.fake_items.learn(events.detach(), layout.events >= 0)
        real = pad(batch.items != 0, (1, 0), value=True)
        real[:, 1:] = real[:, 1:].cumsum(1) > 0  # all columns behind the first event are events, as the layout has them
        column = torch.arange(real.shape[1], device=real.device)
        states = self._condition(self._states_of(mixed), layout.take(batch.next_actions, batch.user_next_actions))
        return Generation(
            self._normalise(_to_batch(layout, states)),
            KeyValues(*(_to_batch(layout, each) for each in keys_values)),
            KeyValues(*(_to_batch(layout, each) for each in of_tasks)),
            real.unsqueeze(1) & (column <= column.unsqueeze(1)),
            _to_batch(layout, layout.place.unsqueeze(1)).squeeze(2) + 1,
        )

    def _newest(self, batch: Batch) -> Generation:
        """The context of the newest event, whose columns of events begin with the user's token."""
        known = self._newest_contexts.get(batch)
        if known is not None:
            return known
        layout = lay_out(batch, user_token=True, packed=False)
        (events,) = self.items.each_once(layout.take(batch.items))
        kinds = TaskLayout(layout, self._fakes, len(self.tasks), newest=True)
        tokens = self.dropout(self._tokens(batch, layout, events))
        mixed, keys_values, of_tasks = self._blocks(tokens, batch, kinds)
        (group,) = layout.groups
        newest = kinds.newest_places().unsqueeze(1)
        states = self._condition(self._states_of(mixed), batch.next_actions[:, -1])
        context = Generation(
            self._normalise(states).unsqueeze(1),
            KeyValues(*(group.grid(each) for each in keys_values)),
            KeyValues(*(each.unsqueeze(1) for each in of_tasks)),
            torch.arange(group.length, device=newest.device) <= newest.unsqueeze(2),
            newest + 1,
        )
        return self._newest_contexts.put(batch, context)

    def _blocks(self, tokens: Tensor, batch: Batch, kinds: TaskLayout) -> tuple[Tensor, KeyValues, KeyValues]:
        """tokens [P, D] -> (task tokens [Q, n, D], keys and values of the last block: of events [P, H, E], of tasks
        [Q, n, H, E])."""
        actions = kinds.events.take(batch.actions)
        fakes = tokens[:0]
        if self.fake_items is not None:
            fakes = self.fake_items() * self.input_scale + self.fake_kind
        behind = tokens[kinds.events.last.clamp(min=0)] if kinds.newest else tokens
        tasks = behind.unsqueeze(1) + self.tasks
        mixed = torch.cat([tokens, fakes.to(tokens.dtype), tasks.flatten(0, 1).to(tokens.dtype)])
        for block in self.blocks:
            mixed, keys_values, of_tasks = block(mixed, kinds, actions)
        return mixed[-tasks.shape[0] * tasks.shape[1] :].view(tasks.shape), keys_values, of_tasks

    def _states_of(self, tasks: Tensor) -> Tensor:
        """tasks [Q, n, D] -> [Q, A + 1, D], each task's last token."""
        states: Tensor = self.last_norm(tasks[:, self.tokens_per_task - 1 :: self.tokens_per_task])
        return states

    def _condition(self, states: Tensor, next_actions: Tensor) -> Tensor:
        """states [Q, A + 1, D], next_actions [Q] -> [Q, A + 1, D], conditioned on the next action."""
        return states if self.next_action is None else self.next_action(states, next_actions.unsqueeze(1))


def _to_batch(layout: Layout, values: Tensor) -> Tensor:
    """values [P, ...] -> [B, T + 1, ...], see `Layout.to_batch`."""
    return layout.to_batch(values.flatten(1)).reshape(len(layout.last), -1, *values.shape[1:])
