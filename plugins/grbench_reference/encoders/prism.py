"""PRISM: a parallel residual iterative sequence model, Jiang et al. 2026 (arXiv 2602.10796), over a user's history.

Shapes: P tokens, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.registry.option_types import Count, Natural, Share
from grbench.types import Batch, Codes
from grbench_reference.encoders.history_encoder import HistoryEncoder, HistoryOptions
from grbench_reference.layers.prism import PrismMixer
from grbench_reference.layers.token_packing import Layout
from grbench_reference.layers.transformer import Activation, Norm, TransformerBlock, normalisation, width_of_heads


class Prism(HistoryEncoder):
    """`causal_transformer` with PRISM's mixer in place of attention: time linear in the length of the history.

    As in the paper: a state matrix a head, whose decay is linear and apart from what is written; a short causal
    convolution of the inputs anchors the residual; gains of each step are predicted from the input; several steps write
    along keys of their own, so that an event adds a matrix of rank `steps`; all of it is computed for all events at
    once. The paper's four ablations are `steps: 1`, `nonlinearity: false`, `convolution: 0` and `gain: false`; without
    the non-linearity all steps write multiples of one vector, which together have rank 1.

    Made from the paper's abstract and a summary of its method, without its equations and code, so these are ours: the
    anchor is a convolution of the values before the event; the non-linearity is tanh; gains are a number a step and
    head between 0 and 1, and 1/2 where they are not predicted; the decay is a number an event and head, which starts
    with half-lives of 8 to 128 events; keys have length 1; what is read passes an RMSNorm a head; `attention_bias`
    multiplies what an event writes. The rest of a block is `causal_transformer`'s, so that the two differ in the mixer
    alone where their other options are the same. The mechanism knows the order of events without `positions`.

    Args:
        width: of tokens, blocks and the vectors that are compared (paper: 64).
        blocks: how many (paper: 2).
        heads: of each block's mixer (paper: 2).
        steps: in which an event writes to the state (paper: 2 to 4).
        convolution: events before an event that anchor its residual; 0 = no anchor, the residual is the event's value.
        nonlinearity: of the residual in each step.
        gain: predict the gain of each step; false = the same for all.
        dropout: of block outputs and feed-forward layers.
        embedding_dropout: of the tokens that enter the first block; null = as dropout.
        history_length: newest events read.
        feed_forward: hidden width of the feed-forward layers, in widths.
        activation: of the feed-forward layers.
        norm: kind of normalisation.
        norm_placement: before each layer, or after its residual.
        positions: learned = a vector a place, counted from the oldest event; learned_from_end = counted back from the
            newest, which in training tells each state how many events follow; none.
        bias: of the blocks' linear layers.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: Count = 64,
        blocks: Count = 2,
        heads: Count = 2,
        steps: Count = 2,
        convolution: Natural = 4,
        nonlinearity: bool = True,
        gain: bool = True,
        dropout: Share = 0.2,
        embedding_dropout: Share | None = None,
        history_length: Count = 100,
        feed_forward: Annotated[float, Field(gt=0)] = 1.0,
        activation: Activation = "swiglu",
        norm: Norm = "rmsnorm",
        norm_placement: Literal["pre", "post"] = "pre",
        positions: Literal["learned", "learned_from_end", "none"] = "none",
        bias: bool = True,
        history: HistoryOptions = HistoryOptions(),
    ) -> None:
        width_of_heads(width, heads, rotary=False)
        super().__init__(
            data,
            codes,
            history,
            width=width,
            history_length=history_length,
            dropout=dropout if embedding_dropout is None else embedding_dropout,
            last_norm=normalisation(norm, width),
            positions=positions,
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                PrismMixer(
                    width,
                    heads,
                    steps=steps,
                    convolution=convolution,
                    nonlinearity=nonlinearity,
                    gain=gain,
                    bias=bias,
                    write_bias=self.key_bias(heads),
                ),
                hidden=max(1, round(feed_forward * width)),
                activation=activation,
                norm_kind=norm,
                placement=norm_placement,
                dropout=dropout,
                bias=bias,
            )
            for _ in range(blocks)
        )

    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], through the blocks."""
        actions = layout.take(batch.actions)
        for block in self.blocks:
            tokens = block(tokens, layout, actions)
        return tokens
