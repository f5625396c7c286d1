"""The paper's baseline encoder (section 4.1): a causal Transformer over the user token and the history's events.

Shapes: P tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.registry.option_types import Count, OptionGroup, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.history_encoder import HistoryEncoder, HistoryOptions, PositionEncoding
from grbench_reference.layers.token_packing import Layout
from grbench_reference.layers.transformer import (
    Activation,
    CausalAttention,
    Norm,
    Rotary,
    TransformerBlock,
    normalisation,
    width_of_heads,
)


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(OptionGroup):
    """Size and kind of the blocks, and what enters the first.

    Args:
        width: of tokens, blocks and the vectors that are compared (paper: 32).
        blocks: how many (paper: 1).
        heads: of each block's attention (paper: 1).
        dropout: of block outputs and feed-forward layers (paper: 0.2).
        attention_dropout: of attention weights; null = as dropout.
        embedding_dropout: of the tokens that enter the first block; null = as dropout.
        history_length: newest events read (paper: 100, 101 tokens with the user's).
        feed_forward: hidden width of the feed-forward layers, in widths (released code: 1).
        activation: of the feed-forward layers.
        norm: kind of normalisation.
        norm_placement: before each layer, or after its residual (released code: after).
        positions: learned = a vector a place, counted from the oldest event; learned_from_end = counted back from the
            newest, which in training tells each state how many events follow; rotary = turns queries and keys; none.
        qk_norm: RMSNorm of each head's queries and keys.
        bias: of the blocks' linear layers.
    """

    width: Count = 32
    blocks: Count = 1
    heads: Count = 1
    dropout: Share = 0.2
    attention_dropout: Share | None = None
    embedding_dropout: Share | None = None
    history_length: Count = 100
    feed_forward: Annotated[float, Field(gt=0)] = 1.0
    activation: Activation = "relu"
    norm: Norm = "layernorm"
    norm_placement: Literal["pre", "post"] = "post"
    positions: PositionEncoding = "learned"
    qk_norm: bool = False
    bias: bool = True

    @property
    def dropout_of_tokens(self) -> float:
        """Of those that enter the first block."""
        return self.dropout if self.embedding_dropout is None else self.embedding_dropout


def transformer_blocks(
    options: TransformerOptions, *, length: int, key_bias: Callable[[int], nn.Module | None]
) -> nn.ModuleList:
    """length: the most tokens of a row, for rotary positions. key_bias: called with the number of heads for each block,
    as `HistoryEncoder.key_bias`."""
    width, heads, dropout = options.width, options.heads, options.dropout
    rotates = options.positions == "rotary"
    head_width = width_of_heads(width, heads, rotary=rotates)
    rotary = Rotary(head_width, length) if rotates else None
    return nn.ModuleList(
        TransformerBlock(
            width,
            CausalAttention(
                width,
                heads,
                dropout=dropout if options.attention_dropout is None else options.attention_dropout,
                rotary=rotary,
                qk_norm=options.qk_norm,
                bias=options.bias,
                key_bias=key_bias(heads),
            ),
            hidden=max(1, round(options.feed_forward * width)),
            activation=options.activation,
            norm_kind=options.norm,
            placement=options.norm_placement,
            dropout=dropout,
            bias=options.bias,
        )
        for _ in range(options.blocks)
    )


class CausalTransformer(HistoryEncoder):
    """User token, then one token an event, through causal Transformer blocks; items by the same feature fusion.

    Differs from the paper's released code where that is faulty: the user token never falls off at full length, padding
    never moves a position, item vectors are not cut at zero, cold items keep their features.

    Blocks as today's language models have them (Qwen3, arXiv 2505.09388): norm rmsnorm, norm_placement pre, activation
    swiglu, positions rotary, qk_norm true, bias false.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        transformer: TransformerOptions = TransformerOptions(),
        history: HistoryOptions = HistoryOptions(),
    ) -> None:
        super().__init__(
            data,
            codes,
            history,
            width=transformer.width,
            history_length=transformer.history_length,
            dropout=transformer.dropout_of_tokens,
            last_norm=normalisation(transformer.norm, transformer.width),
            positions=transformer.positions,
        )
        self.blocks = transformer_blocks(transformer, length=self.length, key_bias=self.key_bias)

    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], through the blocks."""
        actions = layout.take(batch.actions)
        for block in self.blocks:
            tokens = block(tokens, layout, actions)
        return tokens
