"""Checks of retrievers, with an encoder that has the interfaces which they need.

Shapes: B users, P candidates, k list length, L code levels.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from grbench.interfaces import Decoder, Embedder, Retriever, optional
from grbench.registry.attributes import history_length
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.check_world import rows_of
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.other_device import OTHER, OtherDevice
from grbench.types import Batch, TopK

CHECKS = KindChecks("retrievers")

CLOSE = 1e-4
"""By which scores may be apart, as a share of the largest."""


class _Searched:
    """A retriever, its encoder and queries. candidates: [P], two of three items."""

    def __init__(self, plugin: CheckedPlugin) -> None:
        self.plugin = plugin
        self.encoder: nn.Module = plugin.make_encoder().eval()
        self.batch: Batch = plugin.world.queries(history_length(self.encoder))
        pool = torch.from_numpy(plugin.world.split.candidates.copy())
        self.candidates = pool[pool % 3 > 0]
        self.retriever: Retriever = plugin.make()

    @torch.no_grad()
    def index(self, candidates: Tensor | None = None) -> None:
        codes = self.plugin.codes_of(self.encoder)
        self.retriever.index(self.encoder, self.candidates if candidates is None else candidates, codes)

    @torch.no_grad()
    def search(self, k: int, batch: Batch | None = None) -> TopK:
        return self.retriever.search(self.encoder, self.batch if batch is None else batch, k)


def _indexed(plugin: CheckedPlugin) -> _Searched:
    searched = _Searched(plugin)
    searched.index()
    return searched


def _require_lists(found: TopK, users: int, k: int, candidates: Tensor) -> None:
    """Raises CheckFailedError where the lists are not rankings of the candidates."""
    require(
        isinstance(found, TopK) and tuple(found.items.shape) == tuple(found.scores.shape) == (users, k),
        f"asked for {k} items for {users} users, it returns {tuple(found.items.shape)} and {tuple(found.scores.shape)}",
    )
    require(found.items.dtype == torch.int64, f"items are {found.items.dtype}, not int64")
    require(found.scores.dtype == torch.float32, f"scores are {found.scores.dtype}, not float32")
    require(not found.scores.isnan().any(), "a score is NaN")
    require((found.scores[:, 1:] <= found.scores[:, :-1]).all(), "a list is not sorted, best first")
    require(
        torch.equal(found.scores.isneginf(), found.items == 0), "scores are not -inf where, and only where, item is 0"
    )
    real = found.items[found.items > 0]
    require(torch.isin(real, candidates).all(), "a list has an item that was not indexed")
    ordered = found.items.sort(1).values
    require(not ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any(), "a list has an item twice")


@CHECKS.add(
    base=True,
    means="A method with this retriever is not checked before it runs, or refused wrongly.",
    mend="Set the class attribute `needs` to a tuple of the interfaces that it calls, such as (Embedder,).",
)
def interface(plugin: CheckedPlugin) -> None:
    """It says what it needs."""
    needs = getattr(type(plugin.make()), "needs", None)
    right = isinstance(needs, tuple) and all(isinstance(each, type) for each in needs)
    require(right, f"needs is {needs!r}, not a tuple of interfaces")


@CHECKS.add(
    base=True,
    means="The run stops, since what is found is no ranking of the pool.",
    mend="Return items [B, k] int64 of the candidates, none twice, and scores [B, k] float32, best first.",
)
def lists_are_rankings(plugin: CheckedPlugin) -> None:
    """Lists of ten."""
    searched = _indexed(plugin)
    _require_lists(searched.search(10), len(searched.batch.users), 10, searched.candidates)


@CHECKS.add(
    means="Searches for more items than there are fail, as with filters, ties and small pools.",
    mend="Fill lists up to k with item 0 and score -inf.",
)
def k_larger_than_the_pool(plugin: CheckedPlugin) -> None:
    """Lists of three more than all candidates."""
    searched = _indexed(plugin)
    k = len(searched.candidates) + 3
    found = searched.search(k)
    _require_lists(found, len(searched.batch.users), k, searched.candidates)
    require((found.items[:, -3:] == 0).all(), "lists longer than the pool do not end with item 0")


@CHECKS.add(
    means="The list for k is not the beginning of a longer one, so that a metric depends on the others of a suite.",
    mend="Search the same way for every k, and break ties the same way.",
)
def shorter_lists_are_prefixes(plugin: CheckedPlugin) -> None:
    """Lists of four and of ten."""
    searched = _indexed(plugin)
    short, longer = searched.search(4), searched.search(10)
    require(torch.allclose(short.scores, longer.scores[:, :4]), "lists of 4 have other scores than those of 10")
    require(_same_items(short, longer), "lists of 4 have other items than those of 10")


def _same_items(short: TopK, longer: TopK) -> bool:
    """Whether a list is the beginning of a longer one, but for items of nearly equal scores, which may change
    places."""
    k = short.items.shape[1]
    scores = longer.scores[:, : k + 1]
    apart = (scores[:, :-1] - scores[:, 1:]) > CLOSE * scores[:, :1].abs()
    alone = apart & pad(apart[:, :-1], (1, 0), value=True)
    return bool((short.items == longer.items[:, :k])[alone].all())


@CHECKS.add(
    means="The search misses the best candidates, so that a method is measured by its index.",
    mend="Check it at a setting at which the search is exhaustive (--set, options=...). An approximate one that has "
    "none is an expected failure.",
)
def exhaustive_equals_exact(plugin: CheckedPlugin) -> None:
    """Scores of all candidates by their inner products, or by the probabilities of their codes."""
    searched = _indexed(plugin)
    encoder, batch, candidates = searched.encoder, searched.batch, searched.candidates
    with torch.no_grad():
        if Embedder in plugin.needs and isinstance(encoder, Embedder):
            scores = encoder.embed_histories(batch).float() @ encoder.embed_items(candidates).float().T
        elif Decoder in plugin.needs and isinstance(encoder, Decoder):
            codes = plugin.codes_of(searched.encoder)
            scores = _log_probabilities(encoder, batch, codes.table[candidates], codes.sizes)
        else:
            skip_unless(False, "what it should find is not known, since it needs neither Embedder nor Decoder")
    expected = scores.sort(1, descending=True).values[:, :10]
    found = searched.search(10).scores
    share = float((found - expected).abs().max() / expected.abs().max())
    require(share <= CLOSE, f"the scores of the 10 best differ by {share:.2g} of the largest from an exhaustive search")


def _log_probabilities(encoder: Decoder, batch: Batch, codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """codes [P, L] -> [B, P], by writing each candidate's codes."""
    users, items = len(batch.users), len(codes)
    rows = torch.arange(users).repeat_interleave(items)
    written = codes.repeat(users, 1)
    logits, state = encoder.start(batch)
    logits, state = logits[rows], state.select(rows)
    total = torch.zeros(len(rows))
    for level in range(len(sizes)):
        total = total + logits.float().log_softmax(1).gather(1, written[:, level : level + 1]).squeeze(1)
        if level + 1 < len(sizes):
            logits, state = encoder.step(written[:, level], state)
    return total.view(users, items)


class _Twins(nn.Module):
    """An encoder in which each even item has the vector of the odd one before it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.history_length = encoder.history_length

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.embed(batch, self._first(items))  # type: ignore[operator,no-any-return]

    def embed_histories(self, batch: Batch) -> Tensor:
        return self.encoder.embed_histories(batch)  # type: ignore[operator,no-any-return]

    def embed_items(self, items: Tensor) -> Tensor:
        return self.encoder.embed_items(self._first(items))  # type: ignore[operator,no-any-return]

    def _first(self, items: Tensor) -> Tensor:
        return torch.where(items > 0, items - (items % 2 == 0).long(), items)


@CHECKS.add(
    means="A target that shares its score with other items is ranked before them by luck, since ties are not seen.",
    mend="Give items with equal vectors, or with the same codes, exactly equal scores, and leave none out.",
)
def ties_have_equal_scores(plugin: CheckedPlugin) -> None:
    """Pairs of items that the encoder cannot tell apart."""
    searched = _Searched(plugin)
    every = torch.from_numpy(plugin.world.split.candidates.copy())
    if {*plugin.needs} <= {Embedder}:
        searched.encoder = _Twins(searched.encoder)
        keys = (every + 1) // 2
    else:
        skip_unless(Decoder in plugin.needs and Embedder not in plugin.needs, "its ties are not known")
        codes = plugin.codes_of(searched.encoder)
        sizes = torch.tensor(codes.sizes)
        place = torch.cat([sizes[1:].flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.int64)])
        keys = (codes.table[every] * place).sum(1)
        skip_unless(len({*keys.tolist()}) < len(keys), "no two items share their codes")
    searched.index(every)
    found = searched.search(len(every))
    scores = torch.full((len(found.items), int(every.max()) + 1), torch.nan).scatter(1, found.items, found.scores)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    own, of_the_first = scores[:, every], scores[:, every[first[group]]]
    found_both = ~(own.isnan() | of_the_first.isnan())
    equal = (own == of_the_first)[found_both].all()
    require(equal, "two items that the encoder cannot tell apart have different scores")


@CHECKS.add(
    means="A user's list depends on which other users are searched with it.",
    mend="Compute each row of the batch by itself.",
)
def a_user_alone(plugin: CheckedPlugin) -> None:
    """Each user alone, and all in another order."""
    searched = _indexed(plugin)
    together = searched.search(5)
    order = torch.arange(len(together.items)).flip(0)
    turned = searched.search(5, rows_of(searched.batch, order))
    require(
        torch.allclose(turned.scores, together.scores[order], atol=1e-5), "in another order, users get other scores"
    )
    alone = searched.search(5, rows_of(searched.batch, slice(2, 3)))
    require(
        torch.allclose(alone.scores, together.scores[2:3], atol=1e-5), "a user who is searched alone gets other scores"
    )


@CHECKS.add(
    means="After a validation, the search still uses the index that was made for it.",
    mend="Replace all that was kept of an earlier index in `index`.",
)
def indexes_again(plugin: CheckedPlugin) -> None:
    """Other candidates, and the encoder with other weights."""
    searched = _indexed(plugin)
    searched.search(5)
    others = searched.candidates % 3 + searched.candidates - 1
    searched.index(others)
    _require_lists(searched.search(5), len(searched.batch.users), 5, others)
    with torch.no_grad():
        for parameter in searched.encoder.parameters():
            parameter.mul_(-1.5).add_(0.1)
    searched.index()
    fresh = _Searched(plugin)
    fresh.encoder = searched.encoder
    fresh.index()
    same = torch.allclose(searched.search(5).scores, fresh.search(5).scores)
    require(same, "indexed again for other weights, it finds other items than a new retriever")


@CHECKS.add(
    means="Two searches of the same model give different tables.",
    mend="Use a fixed seed for what is sampled while indexing, and none while searching.",
)
def searches_the_same_twice(plugin: CheckedPlugin) -> None:
    """By two retrievers."""
    one, other = (_indexed(plugin).search(10) for _ in range(2))
    require(torch.equal(one.scores, other.scores), "two retrievers for one model give different scores")


@CHECKS.add(
    means="The search fails on a GPU, or anywhere but on the CPU.",
    mend="Make new tensors on the device of the candidates or of the batch, and call .cpu() before numpy.",
)
def moves_between_devices(plugin: CheckedPlugin) -> None:
    """On a device that only looks like one, with the scores of the CPU."""
    here = _indexed(plugin).search(5)
    moved = _Searched(plugin)
    codes = plugin.codes_of(moved.encoder)  # which are on the CPU, whatever the device
    with OtherDevice(), torch.no_grad():
        encoder = moved.encoder.to(OTHER)
        moved.retriever.index(encoder, moved.candidates.to(OTHER), codes)
        found = moved.retriever.search(encoder, moved.batch.to(OTHER), 5)
        scores = found.scores.cpu()
    require(torch.allclose(scores, here.scores, atol=1e-5), "on another device it finds other scores")


@CHECKS.add(
    means="The record of a run cannot be written.",
    mend="Put only text, finite numbers, lists and mappings into the report.",
)
def report_is_json(plugin: CheckedPlugin) -> None:
    """What goes into the record."""
    searched = _indexed(plugin)
    searched.search(5)
    report = optional(searched.retriever, Retriever.report)()
    skip_unless(report is not None, "it has no report")
    try:
        json.dumps(report, allow_nan=False)
    except (TypeError, ValueError) as error:
        require(False, f"the report cannot be written as JSON: {error}")
