"""The whole plug-in surface: the table of kinds, and a hook for each. Implement any of the hooks in a module or object
named by an entry point of group `grbench`:

    from grbench import hookimpl

    @hookimpl
    def register_encoders(register):
        register("my_encoder", "my_package.encoder:MyEncoder")

The factory is named as `module:attribute`, and imported when a suite asks for it; the object itself is taken too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pluggy

if TYPE_CHECKING:
    import click

# A factory, or where to import it from: "package.module:attribute".
Register = Callable[[str, Callable[..., Any] | str], None]

GROUP = "grbench"
"""The entry-point group."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in. Hooks, suite keys, JSON schema, listing and timings follow from the table below.

    name:      the hook is register_<name>
    singular:  as messages say it
    place:     whether a suite names it for all its methods or for each, and each method one or a list of them
    arguments: run-time objects that its factories take before their options
    gives:     the class of `grbench/interfaces.py` that the factory's product is
    default:   the plug-in of a method that names none
    timed:     what of it is timed by the fixtures of `grbench.testing`, "step" = a training step; "" = nothing
    purpose:   what it is for
    """

    name: str
    singular: str
    place: Literal["suite", "suite list", "method", "method list"]
    arguments: str
    gives: str
    timed: Literal["ingest", "split", "fit", "step", "search", "scores", ""]
    purpose: str
    default: str | None = None

    @property
    def key(self) -> str:
        """Its key in a suite or a method."""
        return self.name if self.place.endswith("list") else self.singular


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("datasets", "dataset", "suite", "", "Dataset", "ingest", "A source on disk that a store is made from."),
        Kind("protocols", "protocol", "suite", "", "EvaluationProtocol", "split", "Who is evaluated, and on what."),
        Kind("tokenizers", "tokenizer", "method", "", "Tokenizer", "fit", "How items become codes.", "ids"),
        Kind("encoders", "encoder", "method", "data, codes", "Encoder", "step", "The model of histories."),
        Kind("losses", "loss", "method", "data, codes", "Loss", "step", "What training minimises."),
        Kind("trainers", "trainer", "method", "", "Trainer", "step", "How a batch becomes updates.", "supervised"),
        Kind("retrievers", "retriever", "method", "", "Retriever", "search", "How candidates are found.", "exact"),
        Kind("metrics", "metric", "suite list", "", "Metric", "scores", "What a ranking is worth, one value a query."),
        Kind("optimizers", "optimizer", "method", "module", "list[Optimizer]", "step", "How weights change.", "adam"),
        Kind("trackers", "tracker", "method list", "", "Tracker", "", "Who hears what happens while a cell runs."),
    )
}
"""Every kind of plug-in, in the order in which listings show them."""

KIND_OF_PART = {kind.key: kind.name for kind in KINDS.values() if kind.place == "method"}
"""The keys of a method that name one plug-in each, and its kind; `loss` may be a list of several."""

PARTS = tuple(KIND_OF_PART)

DEFAULT_PARTS = {kind.key: kind.default for kind in KINDS.values() if kind.place == "method" and kind.default}


def _register_hook(kind: Kind) -> Callable[[Register], None]:
    def hook(register: Register) -> None: ...

    hook.__name__ = f"register_{kind.name}"
    hook.__doc__ = kind.purpose
    return hookspec(hook)


class HookSpecs:
    """What pluggy checks hooks against: `register_<kind>(register)` for each kind, and commands."""

    @staticmethod
    @hookspec
    def register_commands(cli: click.Group) -> None:
        """Adds commands to the command line."""


for _kind in KINDS.values():
    setattr(HookSpecs, f"register_{_kind.name}", staticmethod(_register_hook(_kind)))


def singular(kind: str) -> str:
    """`losses` -> `loss`, as messages say it."""
    return KINDS[kind].singular
