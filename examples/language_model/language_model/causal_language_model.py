"""The encoder `causal_language_model`: a causal language model of `transformers`, with random weights, that is prompted
with what a user has bought and writes the next item, code by code.

Here the model is tiny, since nothing about it is learnt from other texts; with `AutoModelForCausalLM.from_pretrained`
and the pretrained model's own vocabulary in place of `tokens` below, it is a large one.

Shapes: B users, T history length, L levels, K_l codes of level l, P positions with a target, R rows, S tokens of a
prompt, V tokens of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from grbench.interfaces import Encoder
from grbench.registry.option_types import Count

Cache = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Written:
    """What has been read and written. cache: keys and values of each layer, [R, heads, S, width of a head]; mask:
    [R, S], 0 = padding; level: that is written next."""

    cache: Cache
    mask: Tensor
    level: int

    def select(self, rows: Tensor) -> Written:
        """rows [R'], indices of the current rows."""
        cache = tuple((keys[rows], values[rows]) for keys, values in self.cache)
        return Written(cache, self.mask[rows], self.level)


class CausalLanguageModel(nn.Module, Encoder):
    """The prompt of a history is: the words of `before`, the codes of each item, the words of `after`. A code is a
    token; with the tokenizer `title_words` it is a word, and the same word is the same token at each place of a title.

    Args:
        width: of tokens and states.
        blocks: of the model.
        heads: of attention.
        history_length: newest items in the prompt.
        before: text before the items.
        after: text behind them.
    """

    token_of: Tensor
    table: Tensor

    def __init__(
        self,
        data,
        codes,
        *,
        width: Count = 32,
        blocks: Count = 2,
        heads: Count = 2,
        history_length: Count = 8,
        before: str = "a user bought",
        after: str = "and then buys",
    ) -> None:
        super().__init__()
        self.history_length, self.sizes = history_length, codes.sizes
        words = list(dict.fromkeys([*before.split(), *after.split()]))
        # Levels of equal sizes share their tokens: words have one vocabulary, wherever they stand.
        first, tokens = dict[int, int](), 1 + len(words)
        for size in codes.sizes:
            if size not in first:
                first[size], tokens = tokens, tokens + size
        self.first = [first[size] for size in codes.sizes]
        self.register_buffer("table", codes.table + torch.tensor(self.first), persistent=False)
        self.table[0] = 0
        for name, text in (("before", before), ("after", after)):
            numbers = torch.tensor([1 + words.index(word) for word in text.split()], dtype=torch.int64)
            self.register_buffer(f"words_{name}", numbers, persistent=False)
        longest = len(self.words_before) + history_length * len(codes.sizes) + len(self.words_after) + len(codes.sizes)
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=tokens,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=blocks,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                max_position_embeddings=longest,
                pad_token_id=0,
                bos_token_id=None,
                eos_token_id=None,
                attn_implementation="sdpa",
            )
        )

    def code_logits(self, batch) -> list[Tensor]:
        """One prompt a target, and behind it the target's own codes -> for each level [P, K_l]."""
        places = batch.all_targets.flatten().nonzero().squeeze(1)
        if not len(places):  # the model does not read nothing
            return [self.model.lm_head.weight.new_zeros(0, size) for size in self.sizes]
        rows, events = places // (batch.items.shape[1] + 1), places % (batch.items.shape[1] + 1)
        # The history of a target is what precedes it, pushed to the right end.
        shift = batch.items.shape[1] - events
        columns = torch.arange(batch.items.shape[1], device=places.device) - shift.unsqueeze(1)
        items = torch.where(columns >= 0, batch.items[rows.unsqueeze(1), columns.clamp(min=0)], 0)
        answers = self.table[batch.all_targets.flatten()[places]][:, :-1]
        prompts = torch.cat([self._prompt(items), answers], 1)
        states = self._read(prompts, prompts != 0, None)[0][:, -len(self.sizes) :]
        return [self._logits(states[:, level], level) for level in range(len(self.sizes))]

    def start(self, batch) -> tuple[Tensor, Written]:
        """-> (logits of the first level [B, K_0], state)."""
        prompts = self._prompt(batch.items)
        mask = prompts != 0
        states, cache = self._read(prompts, mask, None)
        return self._logits(states[:, -1], 0), Written(cache, mask, 1)

    def step(self, codes: Tensor, state: Written) -> tuple[Tensor, Written]:
        """codes [R] of the level before -> (logits [R, K_l], state)."""
        tokens = (codes + self.first[state.level - 1]).unsqueeze(1)
        mask = torch.cat([state.mask, torch.ones_like(tokens, dtype=torch.bool)], 1)
        states, cache = self._read(tokens, mask, state.cache)
        return self._logits(states[:, -1], state.level), Written(cache, mask, state.level + 1)

    def _prompt(self, items: Tensor) -> Tensor:
        """items [R, T] -> [R, S] tokens, 0 = padding."""
        texts = [words.expand(len(items), -1) for words in (self.words_before, self.words_after)]
        return torch.cat([texts[0], self.table[items].flatten(1), texts[1]], 1)

    def _read(self, tokens: Tensor, mask: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """tokens [R, s], mask [R, S] of these and all before -> (states [R, s, D], keys and values of all)."""
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        kept = DynamicCache() if cache is None else DynamicCache(ddp_cache_data=cache)
        read: Any = self.model.model(
            input_ids=tokens, attention_mask=mask.long(), position_ids=places, cache=kept, use_cache=True
        )
        return read.last_hidden_state, tuple((layer.keys, layer.values) for layer in kept.layers)

    def _logits(self, states: Tensor, level: int) -> Tensor:
        """states [R, D] -> [R, K_l], of the level's tokens among all."""
        first = self.first[level]
        return nn.functional.linear(states, self.model.lm_head.weight[first : first + self.sizes[level]])
