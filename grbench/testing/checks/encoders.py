"""Checks of encoders, on a batch of histories of different lengths.

Shapes: B users, T history length, N items, D width, P positions with a target, K_l codes of level l.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from grbench.audit.causality import Causality, apart, stir
from grbench.data.codes import checked_codes
from grbench.encoder_shapes import wrong_shape
from grbench.interfaces import Decoder, Embedder, Encoder, optional
from grbench.registry.attributes import history_length
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.check_world import newest_columns, padded, rows_of
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.outputs import ROUNDING, ROUNDING_OF_TOKEN, evaluated, outputs_of, require_same
from grbench.types import Batch

CHECKS = KindChecks("encoders")


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
    base=True,
    means="The harness cannot use what the factory makes as an encoder.",
    mend="Make an nn.Module with an integer `history_length` and all methods of Embedder, of Decoder (`grbench plugins "
    "interface encoders` shows both), or of the interface that your retriever needs.",
)
def interface(plugin: CheckedPlugin) -> None:
    """A module with a history length and something that a retriever can use."""
    encoder = plugin.make_encoder()
    require(isinstance(encoder, nn.Module), f"the factory makes a {type(encoder).__name__}, which is no nn.Module")
    history_length(encoder)
    known = isinstance(encoder, Embedder | Decoder) or plugin.make_retriever(encoder) is not None
    require(known, "it is no Embedder and no Decoder, and has not what any installed retriever needs")


@CHECKS.add(
    base=True,
    means="The run stops when the codes that the encoder has learnt are asked for, or they are fitted to nothing.",
    mend="Return Codes with a table [N+1, L] int64, row 0 = 0, each code below its level's size.",
)
def learnt_codes_fit(plugin: CheckedPlugin) -> None:
    """Of an encoder with codes of its own."""
    encoder = plugin.make_encoder()
    learnt = optional(encoder, Encoder.codes)()
    skip_unless(learnt is not None, "it learns no codes")
    assert learnt is not None
    checked_codes(learnt, plugin.world.store.catalogue.num_items, plugin.id)


@CHECKS.add(
    base=True,
    means="Losses, retrievers and metrics fail on the encoder's output, or read the wrong columns of it.",
    mend="Return the shapes that `grbench plugins interface encoders` shows: one state an event, with "
    "predicts_first_event one more in front; one vector an item; one row of logits a position with a target and level.",
)
def shapes(plugin: CheckedPlugin) -> None:
    """Shapes and finiteness."""
    encoder = stirred(plugin).eval()
    batch = batch_for(plugin, encoder)
    items = torch.arange(1, 8)
    with torch.no_grad():
        wrong = wrong_shape(encoder, batch, items, plugin.codes_of(encoder))
        require(wrong is None, wrong or "")
        if isinstance(encoder, Embedder):
            states, vectors = encoder.embed(batch, items)
            given = {
                "the states of embed": states,
                "the vectors of embed": vectors,
                "what embed_histories gives": encoder.embed_histories(batch),
                "what embed_items gives": encoder.embed_items(items),
            }
            for what, value in given.items():
                require(value.isfinite().all(), f"among {what} are numbers that are not finite")


@CHECKS.add(
    means="A user's states depend on how many columns of padding stand before the history, so that short histories "
    "are encoded otherwise in another batch.",
    mend="Mask padding (`batch.items == 0`) in attention, sums, counts and norms; count places from the first event; "
    "let a recurrent network (GRU, LSTM) read histories from column 0 on: padding_last(self.items(batch.items), "
    "batch.items) before it and padding_first(states, batch.items) behind it, both of grbench.data.padding.",
)
def padding_has_no_influence(plugin: CheckedPlugin) -> None:
    """The same histories with fewer columns of padding, and with as many more as the history length allows."""
    encoder = stirred(plugin)
    batch, outputs = batch_for(plugin, encoder), outputs_of(plugin, encoder)
    length = batch.items.shape[1]
    events = (batch.items > 0).sum(1)
    longest = max(int(events.sort().values[len(events) // 3]), 1)
    some = rows_of(batch, events <= longest)
    cut = newest_columns(some, longest)
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


@CHECKS.add(
    means=Causality.meaning,
    mend="Mask attention to later events, shift nothing to the left, read no targets, and let a recurrent network run "
    "in one direction. What is meant to be known, the encoder declares by `looks_ahead` (`grbench plugins interface "
    "encoders`).",
    needs=["padding_has_no_influence"],  # a state that knows of padding seems to know how many events follow
)
def causality(plugin: CheckedPlugin) -> None:
    """The leak audit of the same name."""
    encoder = plugin.make_encoder()
    skip_unless(isinstance(encoder, Embedder | Decoder), "it gives no states")
    result = Causality().of(encoder, plugin.world.split)
    require(result.verdict == "pass", result.detail)


@CHECKS.add(
    means="A model is trained on one vector of a history or item and searched by another.",
    mend="Let embed_histories be the last state of embed, and embed_items its vectors, normalisation included.",
)
def histories_equal_last_state(plugin: CheckedPlugin) -> None:
    """The interfaces of an Embedder agree, in a training batch and in test queries."""
    encoder = stirred(plugin).eval()
    skip_unless(isinstance(encoder, Embedder), "it is no Embedder")
    assert isinstance(encoder, Embedder)
    items = torch.arange(1, 41)
    for batch in (batch_for(plugin, encoder), plugin.world.queries(history_length(encoder))):
        met = (batch.items > 0).any(1)  # without an event it is the state of the user's token
        with torch.no_grad():
            states, vectors = encoder.embed(batch, items)
            pairs = (
                ("embed_histories", encoder.embed_histories(batch)[met], states[met, -1], "the last state of embed"),
                ("embed_items", encoder.embed_items(items), vectors, "the vectors of embed"),
            )
        for what, own, other, named in pairs:
            share = apart(own, other)
            require(share <= ROUNDING, f"{what} differs by {share:.2g} of its largest number from {named}")


@CHECKS.add(
    means="Beam search writes codes by other probabilities than those that the model was trained on.",
    mend="Let start and step give the logits that code_logits gives for the same codes, and let select reorder all of "
    "the state (a KV cache included).",
)
def cached_decoding_equals_uncached(plugin: CheckedPlugin) -> None:
    """Level by level, with the rows selected in another order, and by teacher forcing."""
    encoder = stirred(plugin).eval()
    skip_unless(isinstance(encoder, Decoder), "it is no Decoder")
    assert isinstance(encoder, Decoder)
    batch = plugin.world.queries(history_length(encoder))
    batch = rows_of(batch, (batch.items > 0).any(1))
    rows = torch.arange(len(batch.users))
    written = 1 + (7 * rows) % plugin.world.store.catalogue.num_items
    newest = batch.targets.clone()
    newest[:, -1] = written
    require_written(plugin, encoder, batch, dataclasses.replace(batch, targets=newest), written)


@CHECKS.add(
    means="Users without events are searched by another state than the one that is trained to predict first events, or "
    "that state knows the event that it predicts.",
    mend="Let the state of the user's token depend on the user alone, and let embed_histories, start and step use it "
    "where a row has no event.",
)
def users_without_events(plugin: CheckedPlugin) -> None:
    """The state of the user's token, in rows with and without events."""
    encoder = stirred(plugin).eval()
    skip_unless(optional(encoder, Encoder.predicts_first_event)(), "it does not predict the first event")
    ahead = optional(encoder, Encoder.looks_ahead)()
    skip_unless("events_left" not in ahead, "as declared, states depend on how many events follow")
    batch = batch_for(plugin, encoder)
    columns = {name: torch.zeros_like(getattr(batch, name)) for name in ("items", "actions", "times", "targets")}
    nobody = dataclasses.replace(batch, **columns, next_actions=torch.zeros_like(batch.items))
    nobody.next_actions[:, -1] = batch.user_next_actions
    with torch.no_grad():
        if isinstance(encoder, Embedder):
            items = torch.arange(1, 8)
            token, alone = encoder.embed(batch, items)[0][:, 0], encoder.embed_histories(nobody)
            share = apart(token, alone)
            what = f"the state of the user's token differs by {share:.2g} of its largest number"
            require(share <= ROUNDING_OF_TOKEN, f"{what} between users with and without events")
    if isinstance(encoder, Decoder):
        written = 1 + torch.arange(len(batch.users)) % plugin.world.store.catalogue.num_items
        for events in (nobody, batch):
            taught = dataclasses.replace(events, targets=torch.zeros_like(batch.targets), user_targets=written)
            require_written(plugin, encoder, nobody, taught, written)


def require_written(plugin: CheckedPlugin, encoder: Any, batch: Batch, taught: Batch, written: torch.Tensor) -> None:
    """Raises CheckFailedError where the items `written` [B] have other logits step by step after the batch's histories
    than by teacher forcing in the batch `taught`, which has them as its only targets."""
    codes = plugin.codes_of(encoder)
    rows, sizes = torch.arange(len(written)), codes.sizes
    turned = rows.roll(1)
    with torch.no_grad():
        expected = encoder.code_logits(taught)
        logits, state = encoder.start(batch)
        for level in range(len(sizes)):
            share = apart(logits, expected[level][rows])
            require(
                share <= ROUNDING,
                f"the logits of level {level + 1} differ by {share:.2g} of their largest number from code_logits",
            )
            if level + 1 < len(sizes):
                rows, state = rows[turned], state.select(turned)
                logits, state = encoder.step(codes.table[written[rows], level], state)
