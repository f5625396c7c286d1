"""The same method at sizes that are audited in seconds: whether a part leaks does not depend on how wide it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grbench.errors import GRBenchError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.suite.method import Method, Stage

LARGEST = 64
"""A number above this is cut to it."""
LARGEST_IN_LIST = 128
"""In a list, whose numbers may be names of features too, the first number above this is cut to it, the next to one
less, and so on, so that they stay different."""

BATCH_SIZE = 32

Cuts = dict[str, list[Any]]
"""{option: [its value in the suite, the value audited]}."""


def audited_size(method: Method, registry: Registry, *, full_size: bool) -> tuple[Method, Cuts]:
    """The method as it is audited: one epoch a stage without validation, in small batches, in float32, not compiled;
    and unless `full_size`, with numbers in the options of its parts cut, but for those of a part that reads a file."""
    cuts: Cuts = {}

    def part(kind: str, component: Component, key: str) -> Component:
        if full_size or names_a_file(registry, kind, component):
            return component
        options = {name: _cut(value) for name, value in component.options.items()}
        for name, value in options.items():
            if value != component.options[name]:
                cuts[f"{key}.{name}"] = [component.options[name], value]
        return Component(component.name, options)

    def stage(place: int, own: Stage) -> Stage:
        key = f"stages.{place}." if own.name else ""
        several = len(own.losses) > 1
        return replace(
            own,
            losses=tuple(
                (part("losses", loss, f"{key}loss.{number}" if several else f"{key}loss"), weight)
                for number, (loss, weight) in enumerate(own.losses)
            ),
            trainer=part("trainers", own.trainer, f"{key}trainer"),
            training=_short(own.training),
        )

    cut = replace(
        method,
        tokenizer=part("tokenizers", method.tokenizer, "tokenizer"),
        encoder=part("encoders", method.encoder, "encoder"),
        retriever=part("retrievers", method.retriever, "retriever"),
        stages=tuple(stage(place, own) for place, own in enumerate(method.stages)),
        trackers=(),
    )
    return cut, cuts


def names_a_file(registry: Registry, kind: str, component: Component) -> bool:
    """Whether an option of the component names a file or folder that it reads."""
    try:
        return bool(registry.file_contents(kind, component, component.name))
    except GRBenchError:  # it names one, which is not there
        return True


def _short(training: Mapping[str, Any]) -> dict[str, Any]:
    small = {
        "epochs": 1,
        "batch_size": min(int(training["batch_size"]), BATCH_SIZE),
        "precision": "fp32",
        "compile": False,
        "validate_every": None,
        "workers": 0,
    }
    return {**training, **small}


def _cut(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _cut(entry) for key, entry in value.items()}
    if isinstance(value, list):
        large = [place for place, entry in enumerate(value) if _is_large(entry, LARGEST_IN_LIST)]
        ranks = {place: rank for rank, place in enumerate(large)}
        return [
            LARGEST_IN_LIST - ranks[place] if place in ranks else entry if _is_number(entry) else _cut(entry)
            for place, entry in enumerate(value)
        ]
    return LARGEST if _is_large(value, LARGEST) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_large(value: Any, limit: int) -> bool:
    return _is_number(value) and value > limit
