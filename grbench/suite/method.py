"""A method of a suite: its tokenizer, encoder, retriever and training stages, with all their options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic

from grbench.errors import PluginError, Problems, SuiteError, cut
from grbench.hookspecs import DEFAULT_PARTS, PARTS, singular
from grbench.interfaces import Tracker, Trainer
from grbench.registry.arguments import Factory
from grbench.registry.component import Component
from grbench.registry.discovery import (
    BrokenPluginError,
    Registry,
    interface_class,
    interface_methods,
    missing_interfaces,
)
from grbench.registry.options import bind
from grbench.suite.grid import as_mapping, merge
from grbench.training.options import VALIDATION_ONLY
from grbench.types import Filter

STAGE_KEYS = ("loss", "trainer", "optimizer", "training")
"""The keys of a method that a stage can override."""
METHOD_KEYS = ("extends", "grid", "ablation", *PARTS, "training", "stages", "filters", "trackers")


@dataclass(frozen=True)
class Stage:
    """A training stage of the method's encoder, with its own losses, trainer, optimizer and training options.

    name: empty where the method has no `stages`; targets: actions whose events are targets, None = as the protocol
    defines; losses: (loss, weight).
    """

    name: str
    targets: tuple[str, ...] | None
    losses: tuple[tuple[Component, float], ...]
    trainer: Component
    optimizer: Component
    training: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A method, one row of the result table.

    stages: training stages in order, with the method's keys merged in; one stage without a name where the method has no
    `stages`, none where there is nothing to train.
    """

    name: str
    tokenizer: Component
    encoder: Component
    retriever: Component
    stages: tuple[Stage, ...]
    filters: tuple[str, ...]
    trackers: tuple[Component, ...]

    def plugins(self) -> set[tuple[str, str]]:
        """(kind, name) of all plug-ins of the method."""
        return {
            ("tokenizers", self.tokenizer.name),
            ("encoders", self.encoder.name),
            ("retrievers", self.retriever.name),
            *(("losses", loss.name) for stage in self.stages for loss, _ in stage.losses),
            *(("trainers", stage.trainer.name) for stage in self.stages),
            *(("optimizers", stage.optimizer.name) for stage in self.stages),
            *(("trackers", tracker.name) for tracker in self.trackers),
        }

    @property
    def devices(self) -> int:
        """How many devices share the work of a cell; one where nothing is trained."""
        return max((stage.training.get("devices", 1) for stage in self.stages), default=1)

    @property
    def shard_tables(self) -> int | None:
        """Rows from which on an embedding table is divided among its devices; None = none is."""
        return next((stage.training.get("shard_tables") for stage in self.stages), None)

    def training_key(self, number: int) -> str:
        """The method's key that holds the training options of stage `number` (0 = first)."""
        return f"stages.{number}.training" if self.stages[number].name else "training"


def read_component(value: Any, where: str) -> Component:
    """Reads a component: a name, or a mapping with a name and options. Raises SuiteError, prefixed by `where`, for
    anything else."""
    mapping = _component_mapping(value, where)
    if not isinstance(mapping.get("name"), str):
        raise SuiteError(f"{where}.name: should be the name of a plug-in")
    return Component(mapping["name"], {key: option for key, option in mapping.items() if key != "name"})


def _component_mapping(value: Any, where: str) -> dict[str, Any]:
    mapping = as_mapping(value)
    if not isinstance(mapping, dict):
        raise SuiteError(f"{where}: should be a name or a mapping with a name, got {cut(json.dumps(value))}")
    return mapping


def bind_component(registry: Registry, kind: str, value: Any, where: str, broken: list[str]) -> Component:
    """Reads a component and adds its options' defaults. Raises SuiteError and PluginError as `bind` and `Registry.get`
    do, but for a plug-in that cannot be imported, the message is appended to `broken`, and options are not checked."""
    component = read_component(value, where)
    try:
        factory = registry.get(kind, component.name).factory
    except BrokenPluginError as error:
        if (message := f"{where}: {error}") not in broken:  # stages with the same component give it several times
            broken.append(message)
        return component
    except PluginError as error:
        raise PluginError(f"{where}: {error}") from error
    return Component(component.name, bind(factory, component.options, where))


def bind_method(registry: Registry, name: str, keys: Mapping[str, Any], where: str, broken: list[str]) -> Method:
    """Reads and checks a method. where: its place in the suite, for messages; broken: receives the messages about
    plug-ins that cannot be imported. Raises SuiteError and PluginError."""
    problems = Problems()

    def part(kind: str, key: str) -> Component:
        value = DEFAULT_PARTS[key] if keys[key] is None else keys[key]
        return bind_component(registry, kind, value, f"{where}.{key}", broken)

    for key in ("loss", "trainer", "optimizer"):  # which are not read where nothing is trained
        if keys.get(key) is not None and not (key == "loss" and isinstance(keys[key], list)):
            with problems:
                _component_mapping(keys[key], f"{where}.{key}")
    with problems:
        if keys.get("encoder") is None:
            raise SuiteError(f"{where}.encoder: is missing")
        encoder = part("encoders", "encoder")
    with problems:
        tokenizer = part("tokenizers", "tokenizer")
    with problems:
        retriever = part("retrievers", "retriever")
    with problems:
        bind_training(keys.get("training"), f"{where}.training")
    with problems:
        given = {"filters": keys["filters"]} if keys.get("filters") is not None else {}
        filters = bind(_filters, given, where)["filters"]
    with problems:
        stages = _bind_stages(registry, keys, where, broken)
    with problems:
        trackers = _bind_trackers(registry, keys.get("trackers"), f"{where}.trackers", broken)
    problems.raise_found()
    _check_devices(stages, where)
    method = Method(name, tokenizer, encoder, retriever, stages, tuple(sorted(set(filters))), trackers)
    if not broken:
        _check_interfaces(registry, method, where)
    return method


def _bind_trackers(registry: Registry, value: Any, where: str, broken: list[str]) -> tuple[Component, ...]:
    listed = [] if value is None else value
    if not isinstance(listed, list):
        raise SuiteError(f"{where}: should be a list")
    return tuple(
        bind_component(registry, "trackers", tracker, f"{where}.{index}", broken)
        for index, tracker in enumerate(listed)
    )


def training_options() -> Factory:
    """The class whose arguments are the keys of `training`."""
    from grbench.training.options import TrainingOptions

    return TrainingOptions


def _bind_losses(registry: Registry, value: Any, where: str, broken: list[str]) -> tuple[tuple[Component, float], ...]:
    if value is None:
        return ()
    listed = {f"{where}.{i}": loss for i, loss in enumerate(value)} if isinstance(value, list) else {where: value}
    losses, problems = [], Problems()
    for key, loss in listed.items():
        with problems:
            component = read_component(loss, key)
            weight = {name: option for name, option in component.options.items() if name == "weight"}
            options = {name: option for name, option in component.options.items() if name != "weight"}
            bound = bind_component(registry, "losses", {"name": component.name, **options}, key, broken)
            losses.append((bound, float(bind(_weight, weight, key)["weight"])))
    problems.raise_found()
    return tuple(losses)


def bind_training(value: Any, where: str) -> dict[str, Any]:
    """A `training` mapping with all defaults; raises SuiteError where it is not a mapping, a key is invalid, or
    two keys define the warm-up."""
    if value is not None and not isinstance(value, dict):
        raise SuiteError(f"{where}: should be a mapping of keys such as epochs and batch_size")
    bound = bind(training_options(), value or {}, where)
    if bound.get("warmup_steps") and bound.get("warmup_share"):
        raise SuiteError(
            f"{where}.warmup_share: warmup_steps is set as well; give one of them (where the other is inherited, set "
            "it to 0)"
        )
    return bound


def _bind_stage_training(value: Any, where: str) -> dict[str, Any]:
    """The complete `training` mapping of a stage, bound. Raises SuiteError as `bind_training` does, and where it sets
    what only validation reads and nothing is validated."""
    bound = bind_training(value, where)
    unread = [key for key in VALIDATION_ONLY if (value or {}).get(key) is not None]
    if unread and not bound.get("validate_every"):
        raise SuiteError(
            f"{where}.{unread[0]}: nothing is validated, so it would have no effect; set validate_every to the number "
            f"of epochs between validations, or leave {unread[0]} out (where it is inherited, `validate_every: null` "
            "does)"
        )
    return bound


def _bind_stages(registry: Registry, keys: Mapping[str, Any], where: str, broken: list[str]) -> tuple[Stage, ...]:
    """The method's stages; without `stages`, one stage with the method's keys, or none where it has no training."""
    inherited = {key: keys[key] for key in STAGE_KEYS if keys.get(key) is not None}
    listed, stages_key = keys.get("stages"), f"{where}.stages"
    if listed is None:
        return (_bind_stage(registry, inherited, {}, (where, where), broken),) if _has_training(inherited) else ()
    if not isinstance(listed, list) or not listed:
        raise SuiteError(f"{stages_key}: should be a list of stages, such as [{{name: clicks, targets: [click]}}]")
    stages: list[Stage] = []
    problems = Problems()
    for number, stage in enumerate(listed):
        with problems:
            stage_key = f"{stages_key}.{number}"
            if not isinstance(stage, dict):
                raise SuiteError(
                    f"{stage_key}: should be a mapping with a name, such as {{name: clicks, targets: [click]}}"
                )
            own = bind(stage_options, stage, stage_key)
            if own["name"] in [other.name for other in stages]:
                taken = cut(own["name"])
                raise SuiteError(f"{stage_key}.name: there is already a stage {taken!r}; names must be unique")
            stages.append(_bind_stage(registry, inherited, own, (where, stage_key), broken))
    problems.raise_found()
    return tuple(stages)


def _bind_stage(
    registry: Registry, inherited: Mapping[str, Any], own: Mapping[str, Any], where: tuple[str, str], broken: list[str]
) -> Stage:
    """A stage with its `own` keys merged into those `inherited` from the method. where: places of method and stage in
    the suite, for messages."""
    given = {key: own[key] for key in STAGE_KEYS if own.get(key) is not None}
    keys = merge({"trainer": DEFAULT_PARTS["trainer"], "optimizer": DEFAULT_PARTS["optimizer"], **inherited}, given)
    at = {key: f"{where[key in given]}.{key}" for key in STAGE_KEYS}
    if not _has_training(keys):
        raise SuiteError(f"{at['loss']}: is missing, so nothing is trained; give the method or this stage a loss")
    problems = Problems()
    with problems:
        losses = _bind_losses(registry, keys.get("loss"), at["loss"], broken)
    with problems:
        trainer = bind_component(registry, "trainers", keys["trainer"], at["trainer"], broken)
    with problems:
        optimizer = bind_component(registry, "optimizers", keys["optimizer"], at["optimizer"], broken)
    with problems:
        training = _bind_stage_training(keys.get("training"), at["training"])
    problems.raise_found()
    targets = None if own.get("targets") is None else tuple(own["targets"])
    return Stage(own.get("name", ""), targets, losses, trainer, optimizer, training)


def _check_devices(stages: Sequence[Stage], where: str) -> None:
    """Raises SuiteError where stages are to run on different devices, or a batch has fewer users than devices."""
    for number, stage in enumerate(stages):
        key = f"{where}.stages.{number}.training" if stage.name else f"{where}.training"
        for option in ("devices", "shard_tables"):
            if stage.training.get(option) != stages[0].training.get(option):
                raise SuiteError(f"{key}.{option}: should be the same for all stages; set it in {where}.training alone")
        batch_size, devices = stage.training.get("batch_size", 1), stage.training.get("devices", 1)
        if batch_size < devices:
            raise SuiteError(
                f"{key}.batch_size: {batch_size} users cannot be shared by {devices} devices; it is the whole batch's, "
                f"so give it at least {devices}"
            )


def _has_training(keys: Mapping[str, Any]) -> bool:
    """Whether there is a loss, or a trainer other than the default, which may not need one."""
    default = DEFAULT_PARTS["trainer"]
    trainer = as_mapping(keys.get("trainer", default))
    return keys.get("loss") not in (None, []) or (isinstance(trainer, dict) and trainer.get("name", default) != default)


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
        name: identifies the stage in the rows of the training curve.
        targets: actions whose events are targets; null = as the protocol defines.
        loss: options that override those of the method's loss, or other losses.
        trainer: options that override those of the method's trainer, or another trainer.
        optimizer: options that override those of the method's optimizer, or another optimizer.
        training: keys that override the method's.
    """


def _not_cold(name: Any) -> Any:
    if name == "cold":
        raise ValueError(
            "is two filters now: not_indexed leaves out candidates that the dataset's indexer lacks, as published "
            "results do; no_training_event leaves out those without a training event, as cold did"
        )
    return name


def _filters(*, filters: tuple[Annotated[Filter, pydantic.BeforeValidator(_not_cold)], ...] = ()) -> None:
    """The `filters` of a method, bound like a plug-in's options."""


def _weight(*, weight: Annotated[float, pydantic.Field(gt=0)] = 1.0) -> None:
    """The `weight` of a loss, bound like a plug-in's options."""


def _check_interfaces(registry: Registry, method: Method, where: str) -> None:
    """Raises PluginError where a loss, trainer, retriever or tracker needs an interface that the encoder does not
    implement."""
    encoder = registry.get("encoders", method.encoder.name).factory
    callers = [("losses", loss) for stage in method.stages for loss, _ in stage.losses]
    callers += [("trainers", stage.trainer) for stage in method.stages] + [("retrievers", method.retriever)]
    callers += [("trackers", tracker) for tracker in method.trackers]
    for kind, caller in callers:
        caller_class = interface_class(registry.get(kind, caller.name).factory)
        default = {"trackers": Tracker.needs, "trainers": Trainer.needs}.get(kind)
        needs = getattr(caller_class, "needs", default)
        if needs is None:
            raise PluginError(
                f"{where}: {singular(kind)} {caller.name!r} does not declare which interfaces of an encoder it needs; "
                "give its class needs = (Embedder,) or (Decoder,), or () for neither"
            )
        for interface in missing_interfaces(needs, encoder):
            fitting = [
                plugin.name
                for plugin in registry.plugins("encoders")
                if not missing_interfaces((interface,), plugin.factory)
            ]
            methods = ", ".join(interface_methods(interface))
            raise PluginError(
                f"{where}: {singular(kind)} {caller.name!r} needs {interface.__name__} ({methods}), which encoder "
                f"{method.encoder.name!r} does not implement; encoders that do: {', '.join(fitting) or 'none'}"
            )
