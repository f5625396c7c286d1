"""A decoder-only model of the next item's semantic ID: the challenge's innovation award (paper, section 7).

Shapes: B users, T history length, L levels, K_l codes of level l, n codes that items have at a level, P positions with
a target, N items, D width, A actions, R beams of all users.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import LookAhead
from grbench.registry.option_types import Count, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.history_encoder import Similarity
from grbench_reference.encoders.sid_history import Backbone, CodeTokens, ItemTokens, SummedState
from grbench_reference.features.code_table import CodeTable, SummedCodes
from grbench_reference.features.event_context import EventContextOptions, event_context
from grbench_reference.features.fusion import (
    FusionOptions,
    ItemFeatureOptions,
    UserFeatureOptions,
    item_tower,
    user_tower,
)
from grbench_reference.features.learnt_codes import LearntCodes, LearntCodesOptions, every_code
from grbench_reference.features.parts import TABLE_SPREAD
from grbench_reference.kernels.embedding import Dropout, distinct_rows, gather_rows, unit
from grbench_reference.kernels.rms_norm import RMSNorm
from grbench_reference.layers.action_conditioning import (
    ActionOptions,
    action_bias,
    next_action_head,
    token_actions,
)
from grbench_reference.layers.cached_decoding import DecoderBlock, KVCache
from grbench_reference.layers.code_head import CodeHead
from grbench_reference.layers.interfaces import LevelStates
from grbench_reference.layers.mixture_of_experts import MixtureOfExperts
from grbench_reference.layers.path_heads import PathContext, PathHeadOptions, PathVerifierHead, ValueHead
from grbench_reference.layers.transformer import FeedForward, Rotary, width_of_heads


@dataclass(frozen=True)
class DecodingState:
    """cache: of the history and the codes decoded so far; next_actions: [R], the action that each beam's item is
    decoded for; level: of the next code; inputs: [R, level, D], those of the code decoder at the levels before, where a
    value head reads them."""

    cache: SummedState | KVCache
    next_actions: Tensor
    level: int
    inputs: Tensor | None = None

    def select(self, rows: Tensor) -> DecodingState:
        """rows [R'] index the current beams: repeats, drops or reorders them."""
        inputs = None if self.inputs is None else self.inputs[rows]
        return DecodingState(self.cache.select(rows), self.next_actions[rows], self.level, inputs)


class CodeDecoder(nn.Module):
    """From the state after history and earlier codes to that of a level's logits: feed-forward blocks with an embedding
    of the level."""

    def __init__(self, levels: int, width: int, *, blocks: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.empty(levels, width).normal_(std=TABLE_SPREAD))
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            FeedForward(width, hidden, activation="swiglu", dropout=dropout) for _ in range(blocks)
        )
        self.dropout, self.last_norm = Dropout(dropout), RMSNorm(width)

    def forward(self, inputs: Tensor, first: int = 0) -> Tensor:
        """inputs [P, l, D] of levels first .. first + l - 1 -> [P, l, D]."""
        return self._blocks(inputs + self.level[first : first + inputs.shape[1]])

    def some(self, inputs: Tensor, needed: Tensor) -> tuple[Tensor, ...]:
        """inputs [P, L, D], needed [P, L] bool -> for each level [p, D], of its needed positions; only these are
        computed."""
        by_level = needed.T.flatten().nonzero().squeeze(1)
        chosen = distinct_rows(inputs.transpose(0, 1).flatten(0, 1), by_level)
        states = self._blocks(chosen + gather_rows(self.level, by_level // len(inputs)))
        return torch.split(states, needed.sum(0).tolist())

    def _blocks(self, states: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        for norm, block in zip(self.norms, self.blocks, strict=True):
            states = states + self.dropout(block(norm(states)))
        normed: Tensor = self.last_norm(states)
        return normed


class SIDDecoder(nn.Module):
    """Encodes a history by causal blocks (RMSNorm, SwiGLU, rotary positions) and decodes the next item's codes.

    Any tokenizer's codes will do; with `ids` it is a softmax over all items. Codes that no item has get no probability.
    As an Embedder, its history vector is the state that decoding starts from and its item vector that of an item's
    token. Decoding a code costs one token a beam: a user's beams share the KV cache of the history.

    Args:
        width: of tokens, blocks and states.
        blocks: how many encode the history.
        heads: of each block's attention.
        feed_forward: hidden width of the feed-forward layers, in widths.
        dropout: of tokens, block outputs and feed-forward layers.
        attention_dropout: of attention weights; null = as dropout.
        history_length: newest events read.
        history: items = one token an item, the sum of its codes' embeddings through an MLP; codes = one token a code.
        decoder_blocks: feed-forward blocks between the state after history and earlier codes and a code's logits.
        user_features: categorical fields of the user in the first token: true = all, false = none, or their names.
        item_features: categorical item fields that tokens have beside codes, likewise.
        embeddings: content embeddings that tokens have beside codes: all = those the dataset option names, none, or
            their names.
        id_width: width of an item id table beside codes; null = width, 0 = no id.
        fusion_layers: layers of the MLP that fuses ids, fields and embeddings.
        tie_codes: the output embeddings of codes are their input embeddings.
        similarity: dot, or cosine = states, codes and item vectors scaled to length 1 (lower the temperature with it).
        temperature: code logits are divided by it.
        experts: feed-forward layers become mixtures of so many experts and one that is shared; 0 = none.
        active_experts: chosen for each token, beside the shared one.
        balance: weight of the experts' balance loss, a term beside those of the method's losses.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: Count = 64,
        blocks: Count = 2,
        heads: Count = 2,
        feed_forward: Annotated[float, Field(gt=0)] = 2.0,
        dropout: Share = 0.1,
        attention_dropout: Share | None = None,
        history_length: Count = 100,
        history: Literal["items", "codes"] = "items",
        decoder_blocks: Annotated[int, Field(ge=0)] = 1,
        actions: ActionOptions = ActionOptions(),
        context: EventContextOptions = EventContextOptions(),
        users: UserFeatureOptions = UserFeatureOptions(),
        items: ItemFeatureOptions = ItemFeatureOptions(item_features=False, embeddings="none"),
        fusion: FusionOptions = FusionOptions(id_width=0),
        tie_codes: bool = False,
        similarity: Similarity = "dot",
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        experts: Annotated[int, Field(ge=0)] = 0,
        active_experts: Count = 2,
        balance: Annotated[float, Field(ge=0)] = 0.01,
        path_heads: PathHeadOptions = PathHeadOptions(),
        learnt: LearntCodesOptions = LearntCodesOptions(),
    ) -> None:
        super().__init__()
        if experts and active_experts > experts:
            raise SuiteError(f"encoder.active_experts: {active_experts} cannot be chosen of {experts} experts")
        if learnt.learn_codes and history == "codes":
            raise SuiteError("encoder.learn_codes: needs `history: items`, through whose tokens the codes are learnt")
        self.history_length, self.cosine, self.balance = history_length, similarity == "cosine", balance
        hidden, levels = max(1, round(feed_forward * width)), len(codes.sizes)
        longest = history_length * (levels if history == "codes" else 1)
        rotary = Rotary(width_of_heads(width, heads, rotary=True), longest + levels)
        tokens_of = ItemTokens if history == "items" else CodeTokens
        table = (
            LearntCodes(data, codes, width, learnt)
            if learnt.learn_codes
            else CodeTable(codes, width, trained=data.item_counts() > 0)
        )
        generated = every_code(codes) if learnt.learn_codes else codes
        names = data.catalogue.actions

        def feed() -> FeedForward | MixtureOfExperts:
            if experts:
                return MixtureOfExperts(width, hidden, experts=experts, active=active_experts, dropout=dropout)
            return FeedForward(width, hidden, activation="swiglu", dropout=dropout)

        def block() -> DecoderBlock:
            share = dropout if attention_dropout is None else attention_dropout
            return DecoderBlock(
                width,
                heads,
                feed_forward=feed(),
                dropout=dropout,
                attention_dropout=share,
                rotary=rotary,
                key_bias=action_bias(actions.action_conditioning, len(names), heads),
            )

        features = item_tower(data, items, fusion, width=width)
        profiles = user_tower(data, users, fusion, width=width)
        event_parts = event_context(data, context, width=width)
        self.history: ItemTokens | CodeTokens = tokens_of(
            SummedCodes(table, width, features),
            token_actions(actions.action_conditioning, len(names), width),
            event_parts,
            Backbone([block() for _ in range(blocks)], width, users=profiles, dropout=dropout),
        )
        self.next_action = next_action_head(actions.next_action, names, width)
        self.code_decoder = CodeDecoder(levels, width, blocks=decoder_blocks, hidden=hidden, dropout=dropout)
        self.head = CodeHead(generated, width, tied=tie_codes, cosine=self.cosine, temperature=temperature)
        self.action_head = nn.Linear(width, len(names))
        self.verifier = self.value_head = None
        if path_heads.verifier:
            self.verifier = PathVerifierHead(levels, width, heads, hidden=hidden, dropout=dropout)
        if path_heads.value_head:
            self.value_head = ValueHead(width, heads, hidden=hidden, dropout=dropout)

    def predicts_first_event(self) -> bool:
        """From the start token."""
        return True

    def codes(self) -> Codes | None:
        """With `learn_codes`, the codes as they are now."""
        return self.history.codes.current() if isinstance(self.history.codes, LearntCodes) else None

    def learns_codes(self) -> bool:
        """With the option `learn_codes`."""
        return isinstance(self.history.codes, LearntCodes)

    def item_codes(self, items: Tensor) -> Tensor | None:
        """items [P] -> [P, L] int64 with `learn_codes`, else None."""
        return self.history.codes.codes_of(items) if isinstance(self.history.codes, LearntCodes) else None

    def looks_ahead(self) -> Collection[LookAhead]:
        """The next action with `next_action`."""
        ahead: list[LookAhead] = [] if self.next_action is None else ["next_action"]
        return ahead

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """items [N] -> ([B, T + 1, D] the states of the start token and after each event, [N, D]); each distinct item
        is embedded once."""
        encoded, vectors = self.history.embed(batch, items)
        return self._normalise(self._condition(encoded.states, batch.all_next_actions)), self._normalise(vectors)

    def embed_histories(self, batch: Batch) -> Tensor:
        """-> [B, D], the state after the newest event; after the start where there is none."""
        return self._normalise(self._condition(self.history.newest(batch), batch.next_actions[:, -1]))

    def embed_items(self, items: Tensor) -> Tensor:
        """items [N] -> [N, D]."""
        return self._normalise(self.history.items(items))

    def action_logits(self, batch: Batch) -> Tensor:
        """-> [B, T + 1, A], of the dataset's actions, for the first event and the one after each event."""
        logits: Tensor = self.action_head(self.history.states(batch).states)
        return logits

    @contextmanager
    def one_pass(self) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
        """Inside, a batch's histories are encoded once, however many losses need them. Yields a function that gives the
        experts' balance loss of the step, where there are experts, and the losses of codes that are learnt."""
        with self.history.one_pass.open():
            yield self._own_terms

    def code_states(self, batch: Batch, needed: Tensor | None = None) -> Sequence[LevelStates]:
        """Teacher-forced by batch.all_targets -> one a level, of all P positions or those of needed [P, L] bool."""
        positions = batch.all_targets.reshape(-1).nonzero().squeeze(1)
        encoded = self.history.teacher_forced(batch, positions)
        inputs = self._condition(encoded.states, batch.all_next_actions.reshape(-1)[positions].unsqueeze(1))
        states = self.code_decoder(inputs).unbind(1) if needed is None else self.code_decoder.some(inputs, needed)
        return [self.head.level(level, each, self.history.codes) for level, each in enumerate(states)]

    def code_logits(self, batch: Batch) -> Sequence[Tensor]:
        """Teacher-forced by batch.all_targets -> per level l: [P, K_l], P = positions with a target, row by row."""
        return [self.head.of(level, each) for level, each in enumerate(self.code_states(batch))]

    def start(self, batch: Batch) -> tuple[Tensor, DecodingState]:
        """-> (logits of level 0 [B, K_0], state of one beam a user)."""
        inputs, cache = self.history.start(batch)
        return self._decode(inputs, cache, batch.next_actions[:, -1], 0, None)

    def step(self, codes: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """codes [R], one a beam of the state -> (logits of the next level [R, K_l], state)."""
        inputs, cache = self.history.step(state.level - 1, codes, state.cache)  # type: ignore[arg-type]
        return self._decode(inputs, cache, state.next_actions, state.level, state.inputs)

    def verifies_paths(self) -> bool:
        """With the option `verifier`."""
        return self.verifier is not None

    def values_paths(self) -> bool:
        """With the option `value_head`."""
        return self.value_head is not None

    def path_context(self, batch: Batch) -> PathContext:
        """See PathVerifier; where a pass is open, of the states that losses or the start of decoding have computed."""
        visible = pad(batch.items != 0, (1, 0), value=True)
        return self._verifier().read(self.history.states(batch).states, visible, batch.all_next_actions)

    def path_scores(self, paths: Tensor, context: PathContext, ends: Tensor | None = None) -> Tensor:
        """See PathVerifier. A path's token is the sum of its codes' embeddings, conditioned on the next action."""
        actions = context.next_actions[:, -1:] if ends is None else context.next_actions.gather(1, ends)
        tokens = self._condition(self.history.codes.path_sums(paths), actions.expand(paths.shape[:2]))
        scores: Tensor = self._verifier()(tokens, paths.shape[2], context, ends)
        return scores

    def path_values(self, batch: Batch, paths: Tensor) -> Tensor:
        """See PathValuer."""
        users, count, levels = paths.shape
        with torch.no_grad():
            _, state = self.start(batch)
            state = state.select(torch.arange(users, device=paths.device).repeat_interleave(count))
            for level in range(levels - 1):
                _, state = self.step(paths[:, :, level].reshape(-1), state)
        return self._prefix_values(state).view(users, count, levels)

    def values(self, state: DecodingState) -> Tensor:
        """See PathValuer."""
        return self._prefix_values(state)[:, -1]

    def _prefix_values(self, state: DecodingState) -> Tensor:
        """-> [R, level], of no code up to all that were decoded."""
        if self.value_head is None or state.inputs is None:
            raise SuiteError("encoder.value_head: this loss or retriever needs it; set it to true")
        values: Tensor = self.value_head(state.inputs)
        return values

    def _verifier(self) -> PathVerifierHead:
        if self.verifier is None:
            raise SuiteError("encoder.verifier: this loss or retriever needs it; set it to true")
        return self.verifier

    def _decode(
        self, inputs: Tensor, cache: SummedState | KVCache, next_actions: Tensor, level: int, earlier: Tensor | None
    ) -> tuple[Tensor, DecodingState]:
        """inputs [R, D] of the code decoder, earlier [R, level, D] -> (logits [R, K_l], state)."""
        conditioned = self._condition(inputs, next_actions).unsqueeze(1)
        logits = self.head.logits(level, self.code_decoder(conditioned, level)[:, 0], self.history.codes)
        seen = None
        if self.value_head is not None:
            seen = conditioned.detach() if earlier is None else torch.cat([earlier, conditioned.detach()], 1)
        return logits, DecodingState(cache, next_actions, level + 1, seen)

    def _own_terms(self) -> Mapping[str, Tensor]:
        encoded = self.history.one_pass.newest
        balance = {} if encoded is None or encoded.balance is None else {"balance": self.balance * encoded.balance}
        table = self.history.codes
        return {**balance, **table.own_losses()} if isinstance(table, LearntCodes) else balance

    def _condition(self, states: Tensor, next_actions: Tensor) -> Tensor:
        """states [..., D], next_actions [...] -> [..., D], conditioned on the next action."""
        return states if self.next_action is None else self.next_action(states, next_actions)

    def _normalise(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.cosine else vectors
