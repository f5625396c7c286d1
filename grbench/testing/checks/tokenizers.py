"""Checks of tokenizers."""

from __future__ import annotations

import json

import torch

from grbench.audit.changed_futures import with_changed_futures
from grbench.data.codes import checked_codes
from grbench.interfaces import Tokenizer, optional
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.plain_parts import PlainProtocol
from grbench.training.numerics import seed_everything
from grbench.types import Codes

CHECKS = KindChecks("tokenizers")


def _fitted(plugin: CheckedPlugin, *, seed: int = 0) -> Codes:
    tokenizer = plugin.make()
    seed_everything(seed)
    codes: Codes = tokenizer.fit(plugin.world.training_data())
    return codes


@CHECKS.add(
    base=True,
    means="The run stops, or items are found under codes that are not theirs.",
    mend="Return a table [N+1, L] int64 with a row for each item of the catalogue, row 0 = 0, and each code below its "
    "level's size.",
)
def codes_within_sizes(plugin: CheckedPlugin) -> None:
    """One row an item."""
    checked_codes(_fitted(plugin), plugin.world.store.catalogue.num_items, plugin.id)


@CHECKS.add(
    means="Two runs of a suite have other codes, so that no table can be made again.",
    mend="Use a seed of your own, as an option, for k-means, samples and initial weights.",
)
def fits_the_same_twice(plugin: CheckedPlugin) -> None:
    """Two new tokenizers, with other states of the random generators."""
    one, other = (_fitted(plugin, seed=seed) for seed in (0, 1))
    require(one.sizes == other.sizes, f"fitted twice, it has sizes {one.sizes} and {other.sizes}")
    wrong = int((one.table != other.table).any(1).sum())
    require(not wrong, f"fitted twice, {wrong} of {len(one.table) - 1} items have other codes")


@CHECKS.add(
    means="Codes depend on test or validation targets, so that the method knows what it is to predict.",
    mend="Read events through the training data alone: `data.stream()`, `data.newest()`, `data.item_counts()`.",
)
def training_events_only(plugin: CheckedPlugin) -> None:
    """The same where all that is held out is another."""
    world = plugin.world
    changed = with_changed_futures(world.store, world.split, PlainProtocol())
    one, other = (plugin.make().fit(split.training) for split in (world.split, changed.split))
    same = one.sizes == other.sizes and torch.equal(one.table, other.table)
    require(same, f"with other values of {changed.changed} that are held out, the codes change")


@CHECKS.add(
    means="The record of a run cannot be written.",
    mend="Put only text, finite numbers, lists and mappings into Codes.report.",
)
def report_is_json(plugin: CheckedPlugin) -> None:
    """What goes into the record."""
    report = _fitted(plugin).report
    try:
        json.dumps(report, allow_nan=False)
    except (TypeError, ValueError) as error:
        require(False, f"the report cannot be written as JSON: {error}")


@CHECKS.add(
    means="The memory of a method is forecast for other codes than it gets, or its retriever is refused wrongly.",
    mend="Return codes with as many levels and the same sizes as those of fit; where they are not known before, None.",
)
def stand_in_has_the_same_shape(plugin: CheckedPlugin) -> None:
    """Codes before the fit."""
    world = plugin.world
    stand_in = optional(plugin.make(), Tokenizer.stand_in)(world.training_data())
    skip_unless(stand_in is not None, "it knows no codes before it is fitted, so that memory is not forecast")
    assert stand_in is not None
    checked_codes(stand_in, world.store.catalogue.num_items, f"the stand-in of {plugin.id}")
    one, other = len(stand_in.sizes), len(_fitted(plugin).sizes)
    require(one == other, f"the stand-in has {one} levels, and what is fitted {other}")
