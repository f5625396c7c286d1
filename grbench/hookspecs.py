"""The kinds of plug-ins, and the hooks that register them. A package implements any of the hooks in a module or object
that an entry point of the group `grbench` refers to:

    from grbench import hookimpl

    @hookimpl
    def register_encoders(register):
        register("my_encoder", "my_package.encoder:MyEncoder")

The factory is given as `module:attribute` and imported when it is used, or as the object itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pluggy

if TYPE_CHECKING:
    import click

Register = Callable[[str, Callable[..., Any] | str], None]
"""Registers a factory, or the `package.module:attribute` to import it from, under a name."""

GROUP = "grbench"
"""The entry-point group."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in. Hooks, suite keys, JSON schema, listing and timings are derived from the table below.

    name:      plural name; the hook is register_<name>
    singular:  singular name, for messages
    scope:     whether a suite has one for all methods, or each method has one, and whether it is a list
    arguments: run-time objects that factories take before their options
    interface: the class of `grbench/interfaces.py` whose methods the objects made by the factory have
    timed:     what the fixtures of `grbench.testing` time, "step" = a training step, "" = nothing
    purpose:   a description, for the hook's documentation
    default:   the plug-in used where a method names none
    defaults:  of a list, the plug-ins used where a suite does not have the key, as far as they are installed
    further:   further classes of `grbench/interfaces.py` that the objects may implement
    """

    name: str
    singular: str
    scope: Literal["suite", "suite list", "method", "method list"]
    arguments: str
    interface: str
    timed: Literal["ingest", "split", "fit", "step", "search", "scores", ""]
    purpose: str
    default: str | None = None
    defaults: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The kind's key in a suite or a method."""
        return self.name if self.scope.endswith("list") else self.singular


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("datasets", "dataset", "suite", "", "Dataset", "ingest", "Reads data on disk into a store."),
        Kind("protocols", "protocol", "suite", "", "EvaluationProtocol", "split", "Splits a store for evaluation."),
        Kind("tokenizers", "tokenizer", "method", "", "Tokenizer", "fit", "Gives items semantic IDs.", "ids"),
        Kind(
            *("encoders", "encoder", "method", "data, codes", "Encoder", "step", "The model of users' histories."),
            further=("Embedder", "Decoder", "DecoderState"),
        ),
        Kind("losses", "loss", "method", "data, codes", "Loss", "step", "The function that training minimises."),
        Kind("trainers", "trainer", "method", "", "Trainer", "step", "Updates the model by a batch.", "supervised"),
        Kind("retrievers", "retriever", "method", "", "Retriever", "search", "Finds the best candidates.", "exact"),
        Kind("metrics", "metric", "suite list", "", "Metric", "scores", "Scores ranked lists, one value per query."),
        Kind(
            "slices",
            "slice",
            "suite list",
            "",
            "Slice",
            "",
            "Divides the queries into groups.",
            defaults=("history_length", "popularity", "action", "repeat", "gap"),
        ),
        Kind(
            *("optimizers", "optimizer", "method", "module", "list[Optimizer]", "step", "Updates parameters.", "adam"),
            further=("TrainEvalOptimizer",),
        ),
        Kind("trackers", "tracker", "method list", "", "Tracker", "", "Logs the events of a running cell."),
    )
}
"""All kinds of plug-ins by name, in the order of listings."""

KIND_OF_PART = {kind.key: kind.name for kind in KINDS.values() if kind.scope == "method"}
"""{key of a method that takes one plug-in, its part: kind of the plug-in}; `loss` also takes a list."""

PARTS = tuple(KIND_OF_PART)

DEFAULT_PARTS = {kind.key: kind.default for kind in KINDS.values() if kind.scope == "method" and kind.default}


def _register_hook(kind: Kind) -> Callable[[Register], None]:
    def hook(register: Register) -> None: ...

    hook.__name__ = f"register_{kind.name}"
    hook.__doc__ = kind.purpose
    return hookspec(hook)


class HookSpecs:
    """Specifications of the hooks for pluggy: `register_<kind>(register)` for each kind, and `register_commands`."""

    @staticmethod
    @hookspec
    def register_commands(cli: click.Group) -> None:
        """Adds commands to the command line interface."""


for _kind in KINDS.values():
    setattr(HookSpecs, f"register_{_kind.name}", staticmethod(_register_hook(_kind)))


def singular(kind: str) -> str:
    """The singular name of a kind, for messages: `losses` -> `loss`."""
    return KINDS[kind].singular
