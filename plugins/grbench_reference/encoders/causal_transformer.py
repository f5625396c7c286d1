"""The paper's baseline encoder (section 4.1): a causal Transformer over the user token and the history's events.

Shapes: P tokens, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.types import Batch, Codes
from grbench_reference.blocks import Activation, Block, Norm, Rotary
from grbench_reference.conditioning import ActionConditioning, NextActions, action_bias
from grbench_reference.history_encoder import Count, Embeddings, HistoryEncoder, Share, Similarity
from grbench_reference.layout import Layout
from grbench_reference.time_features import TimeFeature
from grbench_reference.towers import Names, Pooling


class CausalTransformer(HistoryEncoder):
    """User token, then one token an event, through causal Transformer blocks; items by the same feature fusion.

    Differs from the paper's released code where that is faulty: the user token never falls off at full length, padding
    never moves a position, item vectors are not cut at zero, cold items keep their features.

    Blocks as today's language models have them (Qwen3, arXiv 2505.09388): norm rmsnorm, norm_placement pre, activation
    swiglu, positions rotary, qk_norm true, bias false.

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
        user_token: put the user's token first.
        action_conditioning: how an event's action enters: additive = its embedding is added to the token (paper,
            equation 2); gate = the token times 2 sigmoid(w), film = times 1 + scale and plus shift, learned for each
            action and neutral at first; attention_bias = it shifts the scores of its event, by head; none.
        next_action: tell each state which action is asked for next (PinRec, arXiv 2504.10507), in training the
            target's own: true, or only the actions named here, so that exposures, say, are learnt from untold.
        time_features: what an event's time (UTC) adds to its token: hour, weekday, day (since the first training
            event), gap (since the event before), request (events of one time), session (half an hour without an event
            ends it), cross_day (days since the last active one), fourier (periods from an hour to a year).
        popularity_windows: days; how many training events an event's item had in so many whole days before the event's
            own adds to its token, in buckets that double.
        context_dropout: share of time and popularity buckets hidden in a training step (OnePiece: 0.5).
        item_features: categorical item fields: true = all the dataset has, false = none, or their names.
        user_features: categorical user fields, likewise.
        embeddings: content embeddings: all = those the dataset option names, none, or their names.
        id_width: width of the item id's table; null = width, 0 = no id.
        hashed_ids: rows of further item-id tables, row = item number modulo rows, beside or without the id's own
            (OnePiece: 2000003 and 3000017, with id_width 32 and hashed_width 256).
        hashed_width: width of each of those tables; null = width.
        semantic_ids: the tokenizer's codes as item features, a field each level.
        user_id: the user's own row in the first token; users without a training event share one, which id_dropout
            teaches.
        field_width: width of each categorical field's rows; null = width.
        pooling: of the values of a multi-value field.
        fusion_layers: layers of the MLP that fuses a token's parts; its output is linear.
        id_dropout: share of items, and of users with user_id, whose id is hidden in a training step, so that unseen
            ones can be served.
        field_dropout: share of categorical values hidden in a training step.
        sparse: sparse gradients for the tables: memory and time follow the batch, not the catalogue.
        similarity: dot, or cosine = both sides scaled to length 1 (set the loss's temperature with it).
        input_scale: item vectors enter the first block times this; null = the square root of width, as the released
            code does.
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: Count = 32,
        blocks: Count = 1,
        heads: Count = 1,
        dropout: Share = 0.2,
        attention_dropout: Share | None = None,
        embedding_dropout: Share | None = None,
        history_length: Count = 100,
        feed_forward: Annotated[float, Field(gt=0)] = 1.0,
        activation: Activation = "relu",
        norm: Norm = "layernorm",
        norm_placement: Literal["pre", "post"] = "post",
        positions: Literal["learned", "learned_from_end", "rotary", "none"] = "learned",
        qk_norm: bool = False,
        bias: bool = True,
        user_token: bool = True,
        action_conditioning: ActionConditioning = "additive",
        next_action: NextActions = False,
        time_features: list[TimeFeature] = [],  # noqa: B006 - read, never written
        popularity_windows: list[Count] = [],  # noqa: B006
        context_dropout: Share = 0.0,
        item_features: Names = True,
        user_features: Names = True,
        embeddings: Embeddings = "all",
        id_width: Annotated[int, Field(ge=0)] | None = None,
        hashed_ids: list[Count] = [],  # noqa: B006
        hashed_width: Count | None = None,
        semantic_ids: bool = False,
        user_id: bool = False,
        field_width: Count | None = None,
        pooling: Pooling = "mean",
        fusion_layers: Count = 2,
        id_dropout: Share = 0.0,
        field_dropout: Share = 0.0,
        sparse: bool = False,
        similarity: Similarity = "dot",
        input_scale: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        if width % heads:
            raise SuiteError(f"encoder.heads: {heads} heads cannot share a width of {width}; it must be a multiple")
        if positions == "rotary" and width // heads % 2:
            raise SuiteError(f"encoder.positions: rotary needs an even width a head; {width} / {heads} is odd")
        super().__init__(
            data,
            width=width,
            history_length=history_length,
            dropout=dropout if embedding_dropout is None else embedding_dropout,
            norm=norm,
            places=positions if positions in ("learned", "learned_from_end") else None,
            user_token=user_token,
            action_conditioning=action_conditioning,
            next_action=next_action,
            time_features=time_features,
            popularity_windows=popularity_windows,
            context_dropout=context_dropout,
            item_features=item_features,
            user_features=user_features,
            embeddings=embeddings,
            id_width=id_width,
            hashed_ids=hashed_ids,
            hashed_width=hashed_width,
            semantic_ids=codes if semantic_ids else None,
            user_id=user_id,
            field_width=field_width,
            pooling=pooling,
            fusion_layers=fusion_layers,
            id_dropout=id_dropout,
            field_dropout=field_dropout,
            sparse=sparse,
            similarity=similarity,
            input_scale=input_scale,
        )
        rotary = Rotary(width // heads, self.length) if positions == "rotary" else None
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                hidden=max(1, round(feed_forward * width)),
                activation=activation,
                norm_kind=norm,
                placement=norm_placement,
                dropout=dropout,
                attention_dropout=dropout if attention_dropout is None else attention_dropout,
                rotary=rotary,
                qk_norm=qk_norm,
                bias=bias,
                key_bias=action_bias(action_conditioning, len(data.catalogue.actions), heads),
            )
            for _ in range(blocks)
        )

    def mix(self, tokens: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """tokens [P, D] -> [P, D], through the blocks."""
        actions = layout.take(batch.actions)
        for block in self.blocks:
            tokens = block(tokens, layout, actions)
        return tokens
