"""All that an encoder gives for a batch, row by row, and how far two of them are apart.

Shapes: B users, T history length, N items, D width, P positions with a target, K_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from grbench.audit.causality import apart
from grbench.evaluation.ranking import evaluating
from grbench.interfaces import Decoder, Embedder
from grbench.testing.checks.check import require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.types import Batch

ROUNDING = 1e-3
"""Of the largest number: what sums in another order may differ by."""
ROUNDING_OF_TOKEN = 0.02
"""The same of the user's token, whose state may be a normed number near zero."""

TOKEN = "the state of the user's token"

RowOutputs = Sequence[Mapping[str, Tensor]]
"""For each row {what: values}, where padding is left out."""

GivesOutputs = Callable[[nn.Module, Batch], RowOutputs]


def outputs_of(plugin: CheckedPlugin, encoder: nn.Module) -> GivesOutputs:
    """How to ask this encoder for all that it gives. One that is neither Embedder nor Decoder is asked through the
    first retriever that can search with it."""
    if isinstance(encoder, Embedder | Decoder):
        return _by_interfaces
    retriever = plugin.make_retriever(encoder)
    skip_unless(retriever is not None, "no installed retriever can search with it")
    candidates, codes = torch.from_numpy(plugin.world.split.candidates), plugin.codes

    def searched(encoder: nn.Module, batch: Batch) -> RowOutputs:
        retriever.index(encoder, candidates, codes)
        found = retriever.search(encoder, batch, 10)
        return [{"the scores of the best items": row} for row in found.scores]

    return searched


def evaluated(outputs: GivesOutputs, encoder: nn.Module, batch: Batch) -> RowOutputs:
    """In evaluation mode, without gradients."""
    with evaluating(encoder):
        return [{name: value.detach().clone() for name, value in row.items()} for row in outputs(encoder, batch)]


def require_same(one: RowOutputs, other: RowOutputs, when: str, *, exact: bool = False) -> None:
    """Raises CheckFailedError, `<what> differs by <share> <when>`, where two lists of rows are not the same."""
    for mine, theirs in zip(one, other, strict=True):
        for name in mine.keys() & theirs.keys():
            own, its = mine[name], theirs[name]
            require(own.shape == its.shape, f"{name} has shape {tuple(own.shape)} and {tuple(its.shape)} {when}")
            share = apart(own, its)
            limit = 0.0 if exact else ROUNDING_OF_TOKEN if name == TOKEN else ROUNDING
            require(share <= limit, f"{name} differs by {share:.2g} of its largest number {when}")


def _by_interfaces(encoder: nn.Module, batch: Batch) -> RowOutputs:
    rows: list[dict[str, Tensor]] = [{} for _ in batch.users]
    events = (batch.items > 0).sum(1).tolist()
    if isinstance(encoder, Embedder):
        length = batch.items.shape[1]
        states, vectors = encoder.embed(batch, torch.arange(1, 9, device=batch.items.device))
        histories = encoder.embed_histories(batch)
        for row, own in enumerate(rows):
            own["the state after an event"] = states[row, states.shape[1] - events[row] :]
            if states.shape[1] > length:
                own[TOKEN] = states[row, 0]
            if events[row]:
                own["embed_histories"] = histories[row]
            own["the items' vectors"] = vectors
    if isinstance(encoder, Decoder):
        counts = (batch.all_targets > 0).sum(1).tolist()
        for level, logits in enumerate(encoder.code_logits(batch), 1):
            parts: Sequence[Tensor] = logits.split(counts)  # type: ignore[no-untyped-call]
            for own, part in zip(rows, parts, strict=True):
                own[f"code_logits of level {level}"] = part
        started = encoder.start(batch)[0]
        for row, own in enumerate(rows):
            if events[row]:
                own["the logits of start"] = started[row]
    return rows
