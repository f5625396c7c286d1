"""A method: the tokenizer, encoder, losses, retriever and optimizer it is put together from, with their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic

from grbench.errors import PluginError, SuiteError
from grbench.hookspecs import DEFAULT_PARTS, PARTS, singular
from grbench.interfaces import Tracker, Trainer
from grbench.registry.component import Component
from grbench.registry.discovery import (
    BrokenPluginError,
    Registry,
    interface_class,
    interface_methods,
    missing_interfaces,
)
from grbench.registry.options import Factory, bind
from grbench.suite.grid import as_mapping, merge

LEARNING_KEYS = ("loss", "trainer", "optimizer", "training")
"""The keys that a stage may set otherwise than its method."""
METHOD_KEYS = ("extends", "grid", *PARTS, "training", "stages", "filters", "trackers")


@dataclass(frozen=True)
class Stage:
    """A stretch of training on the method's encoder, with losses, a trainer, optimizer and schedule of its own.

    name: empty where the suite names no stages. targets: actions whose events are learnt; None = what the protocol
    says. losses: with their weights.
    """

    name: str
    targets: tuple[str, ...] | None
    losses: tuple[tuple[Component, float], ...]
    trainer: Component
    optimizer: Component
    training: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    stages: what is trained, in order; one without a name where the suite names none, nothing where there is no loss.
    Their losses, trainer, optimizer and training are the method's with their own on top.
    """

    name: str
    tokenizer: Component
    encoder: Component
    retriever: Component
    stages: tuple[Stage, ...]
    filters: tuple[str, ...]
    trackers: tuple[Component, ...]

    def plugins(self) -> set[tuple[str, str]]:
        """(kind, name) of every plug-in that it names."""
        return {
            ("tokenizers", self.tokenizer.name),
            ("encoders", self.encoder.name),
            ("retrievers", self.retriever.name),
            *(("losses", loss.name) for stage in self.stages for loss, _ in stage.losses),
            *(("trainers", stage.trainer.name) for stage in self.stages),
            *(("optimizers", stage.optimizer.name) for stage in self.stages),
            *(("trackers", tracker.name) for tracker in self.trackers),
        }

    def training_key(self, place: int) -> str:
        """The key of the method that the training of stage `place` (0 = first) is set by."""
        return f"stages.{place}.training" if self.stages[place].name else "training"


def read_component(value: Any, where: str) -> Component:
    """A name, or a mapping with a name and options."""
    mapping = as_mapping(value)
    if not isinstance(mapping, dict):
        raise SuiteError(f"{where}: should be a name or a mapping with a name")
    if not isinstance(mapping.get("name"), str):
        raise SuiteError(f"{where}.name: should be the name of a plug-in")
    return Component(mapping["name"], {key: option for key, option in mapping.items() if key != "name"})


def bind_component(registry: Registry, kind: str, value: Any, where: str, broken: list[str]) -> Component:
    """The plug-in with all its options. One that cannot be imported is noted in `broken` and keeps those written."""
    component = read_component(value, where)
    try:
        factory = registry.get(kind, component.name).factory
    except BrokenPluginError as error:
        if (message := f"{where}: {error}") not in broken:  # several stages may have it of their method
            broken.append(message)
        return component
    except PluginError as error:
        raise PluginError(f"{where}: {error}") from error
    return Component(component.name, bind(factory, component.options, where))


def bind_method(registry: Registry, name: str, keys: Mapping[str, Any], where: str, broken: list[str]) -> Method:
    """A method's keys, checked; `where` is its place in the suite. Notes in `broken` what of it cannot be imported."""
    if keys.get("encoder") is None:
        raise SuiteError(f"{where}.encoder: is missing")

    def part(kind: str, key: str) -> Component:
        return bind_component(registry, kind, keys[key] or DEFAULT_PARTS[key], f"{where}.{key}", broken)

    bind_training(keys.get("training"), f"{where}.training")
    filters = bind(_filters, {"filters": keys["filters"]} if keys.get("filters") is not None else {}, where)["filters"]
    trackers = [] if keys.get("trackers") is None else keys["trackers"]
    if not isinstance(trackers, list):
        raise SuiteError(f"{where}.trackers: should be a list")
    method = Method(
        name=name,
        tokenizer=part("tokenizers", "tokenizer"),
        encoder=part("encoders", "encoder"),
        retriever=part("retrievers", "retriever"),
        stages=_bind_stages(registry, keys, where, broken),
        filters=tuple(sorted(set(filters))),
        trackers=tuple(
            bind_component(registry, "trackers", tracker, f"{where}.trackers.{index}", broken)
            for index, tracker in enumerate(trackers)
        ),
    )
    if not broken:
        _check_interfaces(registry, method, where)
    return method


def training_options() -> Factory:
    """The factory whose options are a method's `training` keys."""
    from grbench.training.options import TrainingOptions

    return TrainingOptions


def _bind_losses(registry: Registry, value: Any, where: str, broken: list[str]) -> tuple[tuple[Component, float], ...]:
    if value is None:
        return ()
    listed = {f"{where}.{i}": loss for i, loss in enumerate(value)} if isinstance(value, list) else {where: value}
    losses = []
    for place, loss in listed.items():
        component = read_component(loss, place)
        weight = {key: option for key, option in component.options.items() if key == "weight"}
        options = {key: option for key, option in component.options.items() if key != "weight"}
        bound = bind_component(registry, "losses", {"name": component.name, **options}, place, broken)
        losses.append((bound, float(bind(_weight, weight, place)["weight"])))
    return tuple(losses)


def bind_training(value: Any, where: str) -> dict[str, Any]:
    """A `training` mapping with its defaults filled in."""
    if value is not None and not isinstance(value, dict):
        raise SuiteError(f"{where}: should be a mapping of keys such as epochs and batch_size")
    return bind(training_options(), value or {}, where)


def _bind_stages(registry: Registry, keys: Mapping[str, Any], where: str, broken: list[str]) -> tuple[Stage, ...]:
    """The method's stages, or itself as the only one; none where it has nothing to learn by."""
    below = {key: keys[key] for key in LEARNING_KEYS if keys.get(key) is not None}
    listed, place = keys.get("stages"), f"{where}.stages"
    if listed is None:
        return (_bind_stage(registry, below, {}, (where, where), broken),) if _learns(below) else ()
    if not isinstance(listed, list) or not listed:
        raise SuiteError(f"{place}: should be a list of stages, such as [{{name: clicks, targets: [click]}}]")
    stages: list[Stage] = []
    for index, written in enumerate(listed):
        here = f"{place}.{index}"
        if not isinstance(written, dict):
            raise SuiteError(f"{here}: should be a mapping with a name, such as {{name: clicks, targets: [click]}}")
        own = bind(stage_options, written, here)
        if own["name"] in [other.name for other in stages]:
            raise SuiteError(f"{here}.name: there is a stage {own['name']!r} already; the curve's rows name theirs")
        stages.append(_bind_stage(registry, below, own, (where, here), broken))
    return tuple(stages)


def _bind_stage(
    registry: Registry, below: Mapping[str, Any], own: Mapping[str, Any], places: tuple[str, str], broken: list[str]
) -> Stage:
    """A stage with its `own` keys on top of those `below`, which stand at these two places in the suite."""
    written = {key: own[key] for key in LEARNING_KEYS if own.get(key) is not None}
    keys = merge({"trainer": DEFAULT_PARTS["trainer"], "optimizer": DEFAULT_PARTS["optimizer"], **below}, written)
    at = {key: f"{places[key in written]}.{key}" for key in LEARNING_KEYS}
    if not _learns(keys):
        raise SuiteError(f"{at['loss']}: there is no loss, so nothing is learnt; give the method or this stage one")
    return Stage(
        name=own.get("name", ""),
        targets=None if own.get("targets") is None else tuple(own["targets"]),
        losses=_bind_losses(registry, keys.get("loss"), at["loss"], broken),
        trainer=bind_component(registry, "trainers", keys["trainer"], at["trainer"], broken),
        optimizer=bind_component(registry, "optimizers", keys["optimizer"], at["optimizer"], broken),
        training=bind_training(keys.get("training"), at["training"]),
    )


def _learns(keys: Mapping[str, Any]) -> bool:
    """Whether there is a loss, or a trainer other than the usual one, which may do without."""
    usual = DEFAULT_PARTS["trainer"]
    trainer = as_mapping(keys.get("trainer", usual))
    return bool(keys.get("loss")) or (isinstance(trainer, dict) and trainer.get("name", usual) != usual)


def stage_options(
    *,
    name: Annotated[str, pydantic.Field(min_length=1)],
    targets: Annotated[list[str], pydantic.Field(min_length=1)] | None = None,
    loss: str | dict[str, Any] | list[Any] | None = None,
    trainer: str | dict[str, Any] | None = None,
    optimizer: str | dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> None:
    """The keys of a stage, bound like a plug-in's options.

    Args:
        name: what the curve's rows call it.
        targets: actions whose events are learnt as targets; null = what the protocol says.
        loss: options on top of the method's loss, or others in its place.
        trainer: options on top of the method's, or another trainer.
        optimizer: options on top of the method's, or another optimizer.
        training: keys on top of the method's.
    """


def _filters(*, filters: tuple[Literal["history", "cold"], ...] = ()) -> None:
    """The `filters` of a method, bound like a plug-in's options."""


def _weight(*, weight: Annotated[float, pydantic.Field(gt=0)] = 1.0) -> None:
    """The `weight` of a loss, bound like a plug-in's options."""


def _check_interfaces(registry: Registry, method: Method, where: str) -> None:
    """Raises PluginError where a loss, a trainer, the retriever or a tracker calls an interface that the encoder does
    not show."""
    encoder = registry.get("encoders", method.encoder.name).factory
    callers = [("losses", loss) for stage in method.stages for loss, _ in stage.losses]
    callers += [("trainers", stage.trainer) for stage in method.stages] + [("retrievers", method.retriever)]
    callers += [("trackers", tracker) for tracker in method.trackers]
    for kind, caller in callers:
        shown = interface_class(registry.get(kind, caller.name).factory)
        usual = {"trackers": Tracker.needs, "trainers": Trainer.needs}.get(kind)
        needs = getattr(shown, "needs", usual)
        if needs is None:
            raise PluginError(
                f"{where}: {singular(kind)} {caller.name!r} does not say what it calls of an encoder; give its class "
                "needs = (Embedder,) or (Decoder,), or () for neither"
            )
        for interface in missing_interfaces(needs, encoder):
            fitting = [
                plugin.name
                for plugin in registry.plugins("encoders")
                if not missing_interfaces((interface,), plugin.factory)
            ]
            methods = ", ".join(interface_methods(interface))
            raise PluginError(
                f"{where}: {singular(kind)} {caller.name!r} calls {interface.__name__} ({methods}), "
                f"which encoder {method.encoder.name!r} does not show; encoders that do: {', '.join(fitting) or 'none'}"
            )
