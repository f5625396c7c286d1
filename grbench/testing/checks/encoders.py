"""Checks of encoders, on a batch of histories of different lengths.

Shapes: B users, T history length, N items, D width, P positions with a target, K_l codes of level l.
"""

from __future__ import annotations

import torch
from torch import nn

from grbench.audit.causality import stir
from grbench.interfaces import Decoder, Embedder, Encoder, history_length, optional
from grbench.testing.checks.check import Checks, require
from grbench.testing.checks.check_world import newest_columns, padded, rows_of
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.outputs import evaluated, outputs_of, require_same
from grbench.types import Batch

CHECKS = Checks("encoders")


def stirred(plugin: CheckedPlugin, *, seed: int = 0) -> nn.Module:
    """The encoder with noise on all parameters, so that what starts at zero shows."""
    encoder = plugin.make_encoder(seed=seed)
    stir(encoder)
    return encoder


def batch_for(plugin: CheckedPlugin, encoder: nn.Module, *, rows: int = 8) -> Batch:
    """A training batch as this encoder gets it."""
    first = optional(encoder, Encoder.predicts_first_event)()
    return plugin.world.batch(history_length(encoder), first_events=first, rows=rows)


@CHECKS.add(
    means="The harness cannot use what the factory makes as an encoder.",
    mend="Make an nn.Module with an integer `history_length` and all methods of Embedder, of Decoder, or of the "
    "interface that your retriever needs.",
)
def interface(plugin: CheckedPlugin) -> None:
    """A module with a history length and something that a retriever can use."""
    encoder = plugin.make_encoder()
    require(isinstance(encoder, nn.Module), f"the factory makes a {type(encoder).__name__}, which is no nn.Module")
    history_length(encoder)
    known = isinstance(encoder, Embedder | Decoder) or plugin.make_retriever(encoder) is not None
    require(known, "it is no Embedder and no Decoder, and has not what any installed retriever needs")


@CHECKS.add(
    means="Losses, retrievers and metrics fail on the encoder's output, or read the wrong columns of it.",
    mend="Return the shapes that grbench/interfaces.py gives: one state an event, with predicts_first_event one more "
    "in front; one vector an item; one row of logits a position with a target and level.",
)
def shapes(plugin: CheckedPlugin) -> None:
    """Shapes and finiteness."""
    encoder = stirred(plugin).eval()
    batch = batch_for(plugin, encoder)
    users, length = batch.items.shape
    first = int(optional(encoder, Encoder.predicts_first_event)())
    items = torch.arange(1, 8)

    def right(what: str, value: torch.Tensor, *shape: int) -> None:
        require(tuple(value.shape) == shape, f"{what} has shape {tuple(value.shape)}, not {shape}")
        require(value.is_floating_point(), f"{what} is {value.dtype}, not a floating point type")
        require(value.isfinite().all(), f"{what} has numbers that are not finite")

    with torch.no_grad():
        if isinstance(encoder, Embedder):
            states, vectors = encoder.embed(batch, items)
            width = vectors.shape[-1]
            right("the states of embed", states, users, length + first, width)
            right("the vectors of embed", vectors, len(items), width)
            right("embed_histories", encoder.embed_histories(batch), users, width)
            right("embed_items", encoder.embed_items(items), len(items), width)
        if isinstance(encoder, Decoder):
            positions = int((batch.all_targets > 0).sum())
            sizes = plugin.codes.sizes
            levels = encoder.code_logits(batch)
            require(len(levels) == len(sizes), f"code_logits has {len(levels)} levels, not {len(sizes)}")
            for level, (logits, size) in enumerate(zip(levels, sizes, strict=True), 1):
                shape = tuple(logits.shape)
                require(
                    shape == (positions, size),
                    f"code_logits of level {level} has shape {shape}, not {(positions, size)}",
                )
            logits, state = encoder.start(batch)
            for level, size in enumerate(sizes, 1):
                shape = tuple(logits.shape)
                require(shape == (users, size), f"the logits of level {level} have shape {shape}, not {(users, size)}")
                if level < len(sizes):
                    logits, state = encoder.step(plugin.codes.table[1 : users + 1, level - 1], state)


@CHECKS.add(
    means="A user's states depend on how many columns of padding stand before the history, so that short histories "
    "are encoded otherwise in another batch.",
    mend="Mask padding (`batch.items == 0`) in attention, sums, counts and norms; count places from the first event.",
)
def padding_has_no_influence(plugin: CheckedPlugin) -> None:
    """The same histories with fewer columns of padding, and with as many more as the history length allows."""
    encoder = stirred(plugin)
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    length = batch.items.shape[1]
    longest = int((batch.items > 0).sum(1).sort().values[len(batch.users) // 2])
    short = (batch.items > 0).sum(1) <= max(longest, 1)
    some = rows_of(batch, short)
    cut = newest_columns(some, max(longest, 1))
    own = evaluated(outputs, encoder, cut)
    when = "when columns of padding are put before the histories"
    require_same(own, evaluated(outputs, encoder, some), when)
    more = min(history_length(encoder) - length, 3)
    if more:
        require_same(evaluated(outputs, encoder, batch), evaluated(outputs, encoder, padded(batch, more)), when)


@CHECKS.add(
    means="A user's states depend on where in the batch the user stands.",
    mend="Compute each row from its own columns; look for a wrong axis in a sum, norm or reshape.",
)
def batch_order_has_no_influence(plugin: CheckedPlugin) -> None:
    """The rows in another order."""
    encoder = stirred(plugin)
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    order = torch.arange(len(batch.users)).flip(0).roll(3)
    own, moved = evaluated(outputs, encoder, batch), evaluated(outputs, encoder, rows_of(batch, order))
    require_same([own[row] for row in order.tolist()], moved, "when the rows of the batch are in another order")


@CHECKS.add(
    means="A user's states depend on which other users are in the batch, so that scores depend on the batch size.",
    mend="Use nothing in evaluation that goes over the batch, such as in-batch statistics.",
)
def batch_size_has_no_influence(plugin: CheckedPlugin) -> None:
    """Each row alone."""
    encoder = stirred(plugin)
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    alone = [evaluated(outputs, encoder, rows_of(batch, slice(row, row + 1)))[0] for row in range(len(batch.users))]
    require_same(evaluated(outputs, encoder, batch), alone, "when a row is encoded alone")
