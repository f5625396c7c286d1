"""A plug-in that is checked, its options, and what it is put together with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from grbench.data.codes import current_codes
from grbench.errors import PluginError
from grbench.hookspecs import KIND_OF_PART, singular
from grbench.interfaces import Decoder, Embedder
from grbench.registry.component import Component
from grbench.registry.discovery import Plugin, Registry, interface_class, missing_interfaces
from grbench.registry.options import flat_values, options_of
from grbench.suite.method import read_component
from grbench.testing.checks.check import skip_unless
from grbench.testing.checks.check_world import CheckWorld, check_world
from grbench.testing.checks.plain_parts import (
    PlainCodeLoss,
    PlainEncoder,
    PlainLoss,
    PlainTokenizer,
    PlainTrainer,
    plain_optimizer,
)
from grbench.testing.workbench import PluginChoice
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainState
from grbench.types import Codes

if TYPE_CHECKING:
    from grbench.testing.checks.run_checks import CheckOutcome

PARTNERS = ("tokenizer", "encoder", "loss")
"""What may be named to be put together with the plug-in."""

CUTOFF = 5
"""The k of a metric that is not given one."""


class CheckedPlugin:
    """One plug-in of a registry with some options. kind: plural.

    partners: {"tokenizer", "encoder" or "loss": the plug-in that it is put together with}; where none is named, a plain
    one of the kit's where the interfaces fit, else the first installed one that fits.
    outcomes: {check: what came of it} of those that were run.
    """

    def __init__(
        self,
        registry: Registry,
        kind: str,
        name: str,
        options: Mapping[str, Any] | None = None,
        partners: Mapping[str, PluginChoice] | None = None,
    ) -> None:
        self.registry, self.kind, self.name = registry, kind, name
        self.options, self.partners = dict(options or {}), dict(partners or {})
        self.outcomes: dict[str, CheckOutcome] = {}
        if kind == "metrics" and "k" in options_of(self.plugin.factory):
            self.options = {"k": CUTOFF, **self.options}

    @property
    def id(self) -> str:
        """`encoder:my_encoder`."""
        return f"{singular(self.kind)}:{self.name}"

    @property
    def world(self) -> CheckWorld:
        """The data."""
        return check_world()

    @property
    def component(self) -> Component:
        """As a suite names it."""
        return Component(self.name, self.options)

    @property
    def plugin(self) -> Plugin:
        """As it is registered. Raises PluginError."""
        return self.registry.get(self.kind, self.name, imported=True)

    @cached_property
    def needs(self) -> tuple[type, ...]:
        """The interfaces of the encoder that it calls."""
        return _needs(self.plugin)

    @property
    def finds_its_encoder(self) -> bool:
        """Whether it is put together with an installed encoder that nobody named, with default options."""
        return self.kind != "encoders" and "encoder" not in self.partners and not {*self.needs} <= {Embedder, Decoder}

    def make(self, *runtime_objects: object, seed: int = 0) -> Any:
        """A new object of the plug-in's factory, with torch seeded before."""
        torch.manual_seed(seed)
        return self.registry.build(self.kind, self.component, *runtime_objects)

    # --- what encoders and losses are made for

    @cached_property
    def codes(self) -> Codes:
        """Of the partner tokenizer."""
        tokenizer = self._partner("tokenizer") or PlainTokenizer()
        codes: Codes = tokenizer.fit(self.world.training_data())
        return codes

    def codes_of(self, encoder: nn.Module) -> Codes:
        """Those that the encoder has learnt, else those of the partner tokenizer."""
        return current_codes(encoder, self.codes, self.world.store.catalogue.num_items)

    def make_encoder(self, *, seed: int = 0) -> nn.Module:
        """The plug-in, if it is an encoder, else a partner with the interfaces that it needs."""
        data, codes = self.world.training_data(), self.codes
        if self.kind == "encoders":
            made: nn.Module = self.make(data, codes, seed=seed)
            return made
        torch.manual_seed(seed)
        named: nn.Module | None = self._partner("encoder", data, codes)
        if named is not None:
            return named
        if {*self.needs} <= {Embedder, Decoder}:
            return PlainEncoder(data, codes)
        found = self._first("encoders", lambda each: not missing_interfaces(self.needs, each.factory))
        skip_unless(found, f"no encoder that is installed has {_names(self.needs)}, which it needs")
        fitting: nn.Module = self.registry.build("encoders", str(found), data, codes)
        return fitting

    def make_losses(self, encoder: nn.Module) -> list[nn.Module]:
        """The plug-in, if it is a loss, else partners that teach the encoder by each of its interfaces."""
        data, codes = self.world.training_data(), self.codes
        if self.kind == "losses":
            return [self.make(data, codes)]
        if (named := self._partner("loss", data, codes)) is not None:
            return [named]
        plain: list[nn.Module] = [PlainLoss(data, codes)] if isinstance(encoder, Embedder) else []
        if isinstance(encoder, Decoder):
            plain.append(PlainCodeLoss(data, codes))
        if not plain:
            found = self._first("losses", lambda each: all(isinstance(encoder, need) for need in _needs(each)))
            skip_unless(found, "no loss that is installed teaches this encoder; name one as a partner")
            plain.append(self.registry.build("losses", str(found), data, codes))
        return plain

    def further_losses(self, encoder: nn.Module) -> list[nn.Module]:
        """Installed losses, without options, that ask the encoder for more than vectors and codes."""
        data, codes = self.world.training_data(), self.codes
        return [
            self.registry.build("losses", each.name, data, codes)
            for each in self.registry.plugins("losses")
            if not {*_needs(each)} <= {Embedder, Decoder}
            and not _required(each)
            and all(isinstance(encoder, need) for need in _needs(each))
        ]

    def make_state(self, *, seed: int = 0, batch_size: int = 8, encoder: nn.Module | None = None) -> TrainState:
        """A stage of training of the plug-in with its partners, not begun."""
        model = self.make_encoder(seed=seed) if encoder is None else encoder
        trainer = self.make() if self.kind == "trainers" else PlainTrainer()
        optimizers = partial(self.registry.build, "optimizers", self.component)
        return TrainState(
            model,
            [(loss, 1.0) for loss in self.make_losses(model)],
            trainer,
            optimizers if self.kind == "optimizers" else plain_optimizer,
            TrainingOptions(epochs=2, batch_size=batch_size, workers=0),
            data=self.world.training_data(),
            codes=self.codes,
            device="cpu",
            seed=seed,
        )

    def make_retriever(self, encoder: nn.Module) -> Any:
        """The first installed retriever whose interfaces the encoder has; None where there is none."""
        found = self._first("retrievers", lambda each: all(isinstance(encoder, need) for need in _needs(each)))
        return None if found is None else self.registry.build("retrievers", found)

    def _partner(self, part: str, *runtime_objects: object) -> Any:
        """The one that is named; None where none is."""
        if part not in self.partners:
            return None
        return self.registry.build(KIND_OF_PART[part], read_component(self.partners[part], part), *runtime_objects)

    def _first(self, kind: str, fits: Any) -> str | None:
        """The name of the first plug-in that fits and needs no option, those of the same distribution first."""
        own = self.plugin.distribution
        plugins = sorted(self.registry.plugins(kind), key=lambda each: each.distribution != own)
        return next((each.name for each in plugins if not _required(each) and fits(each)), None)


def check_partners(registry: Registry, partners: Mapping[str, PluginChoice]) -> None:
    """Raises PluginError where a part is none of PARTNERS, and for a plug-in that is unknown or broken; SuiteError for
    one that is not written as in a suite, and for options that do not fit it."""
    for part, choice in partners.items():
        if part not in PARTNERS:
            raise PluginError(f"{part}: no partner of a checked plug-in; there are {', '.join(PARTNERS)}")
        partner = read_component(choice, f"partner {part}")
        flat_values(registry.get(KIND_OF_PART[part], partner.name).factory, partner.options, f"{part}:{partner.name}")


def _needs(plugin: Plugin) -> tuple[type, ...]:
    if plugin.kind == "optimizers":  # functions, which are not annotated
        return ()
    return tuple(getattr(interface_class(plugin.factory), "needs", ()))


def _required(plugin: Plugin) -> list[str]:
    return [name for name, option in options_of(plugin.factory).items() if option.required]


def _names(interfaces: Iterable[type]) -> str:
    return " and ".join(each.__name__ for each in interfaces)
