"""The shapes of what an encoder gives, against those that its interfaces promise. A wrong one is else found by a kernel
of a loss or a retriever, which does not know whose it is.

Shapes: B users, T history length, N items, D width, P positions with a target, K_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from grbench.data.batches import training_batches
from grbench.data.codes import current_codes
from grbench.data.examples import Examples
from grbench.data.training_data import TrainingData
from grbench.errors import PluginError
from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Decoder, Embedder, Encoder, optional
from grbench.registry.attributes import history_length
from grbench.types import Batch, Codes

USERS, ITEMS = 3, 5
"""What an encoder is asked for before it is trained."""


def check_shapes(
    name: str,
    encoder: nn.Module,
    data: TrainingData,
    codes: Codes,
    *,
    callers: Iterable[object],
    device: torch.device | str,
) -> None:
    """Raises PluginError where the encoder gives a few users other shapes than those interfaces promise that are
    called, in evaluation mode. Checks nothing where there is nobody to train on.

    name: of the plug-in; callers: losses, a trainer, a retriever, which declare the interfaces that they need.
    """
    interfaces = {need for caller in callers for need in getattr(type(caller), "needs", ())}
    if optional(encoder, Encoder.predicts_first_event)():
        data = data.with_first_events()
    rows = data.trainable[:USERS]
    if not len(rows):
        return
    examples = Examples(rows, data.lengths[rows])
    length = history_length(encoder)
    batch = next(training_batches(data, examples, history_length=length, batch_size=len(rows), workers=0))
    num_items = data.catalogue.num_items
    items = torch.arange(1, min(ITEMS, num_items) + 1, device=device)
    with evaluating(encoder):
        read = current_codes(encoder, codes, num_items) if Decoder in interfaces else codes
        wrong = wrong_shape(encoder, batch.to(device), items, read, interfaces)
    if wrong is not None:
        raise PluginError(f"encoder {name}: {wrong}; `grbench check encoder:{name}` tries all that it should do")


def wrong_shape(
    encoder: Any, batch: Batch, items: Tensor, codes: Codes, interfaces: Collection[type] = (Embedder, Decoder)
) -> str | None:
    """What the encoder gives in another shape than the interfaces promise that it has, and what would be right; None
    where all is right. items: [N]; codes: of all items."""
    if Embedder in interfaces and isinstance(encoder, Embedder):
        found = _wrong_vectors(encoder, batch, items)
        if found is not None:
            return found
    if Decoder in interfaces and isinstance(encoder, Decoder):
        return _wrong_logits(encoder, batch, codes)
    return None


def _wrong_vectors(encoder: Embedder, batch: Batch, items: Tensor) -> str | None:
    users, length = batch.items.shape
    first = optional(encoder, Encoder.predicts_first_event)()
    positions = length + int(first)
    given = encoder.embed(batch, items)
    if not (isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(each, Tensor) for each in given)):
        return f"embed gave {_kind(given)}, not two tensors: the states [B, T, D] and the items' vectors [N, D]"
    states, vectors = given
    width = vectors.shape[-1] if vectors.ndim else 0
    states_are = "the state of the user's token, then one an event" if first else "one state an event"
    return (
        _other("embed", "the items' vectors", vectors, (len(items), width), "[N, D], one vector an item")
        or _other("embed", "the states", states, (users, positions, width), f"[B, T, D], {states_are}")
        or _other(
            "embed_histories", "its states", encoder.embed_histories(batch), (users, width), "[B, D], one state a user"
        )
        or _other(
            "embed_items", "its vectors", encoder.embed_items(items), (len(items), width), "[N, D], one vector an item"
        )
    )


def _wrong_logits(encoder: Decoder, batch: Batch, codes: Codes) -> str | None:
    users, positions = len(batch.users), int((batch.all_targets > 0).sum())
    levels = encoder.code_logits(batch)
    if len(levels) != len(codes.sizes):
        return f"code_logits gave {len(levels)} levels, not {len(codes.sizes)}, those of the semantic IDs"
    for level, (logits, size) in enumerate(zip(levels, codes.sizes, strict=True), 1):
        taught = "[P, K], one row a position with a target"
        if wrong := _other("code_logits", f"level {level}", logits, (positions, size), taught):
            return wrong
    written = codes.table[1 + torch.arange(users, device=codes.table.device) % (len(codes.table) - 1)]
    logits, state = encoder.start(batch)
    for level, size in enumerate(codes.sizes, 1):
        call = "start" if level == 1 else "step"
        if wrong := _other(call, f"the logits of level {level}", logits, (users, size), "[R, K], one row a beam"):
            return wrong
        if level < len(codes.sizes):
            logits, state = encoder.step(written[:, level - 1], state)
    return None


def _other(method: str, what: str, given: object, shape: tuple[int, ...], meant: str) -> str | None:
    """A sentence where `given` is no floating point tensor of this shape. meant: the shape in words."""
    if not isinstance(given, Tensor):
        return f"{method} gave {what} as {_kind(given)}, not a tensor of shape {shape}: {meant}"
    if tuple(given.shape) != shape:
        return f"{method} gave {what} in the shape {tuple(given.shape)}, not {shape}: {meant}"
    return None if given.is_floating_point() else f"{method} gave {what} as {given.dtype}, no floating point type"


def _kind(given: object) -> str:
    kind = type(given).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
