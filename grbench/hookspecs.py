"""The whole plug-in surface. Implement any of these in a module or object named by an entry point of group `grbench`:

    from grbench import hookimpl

    @hookimpl
    def register_encoders(register):
        register("my_encoder", "my_package.encoder:MyEncoder")

The factory is named as `module:attribute`, and imported when a suite asks for it; the object itself is taken too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

# A factory, or where to import it from: "package.module:attribute".
Register = Callable[[str, Callable[..., Any] | str], None]

GROUP = "grbench"
"""The entry-point group."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_datasets(register: Register) -> None:
    """A layout on disk that a store can be made from."""


@hookspec
def register_tokenizers(register: Register) -> None:
    """How items become codes."""


@hookspec
def register_encoders(register: Register) -> None:
    """The model: histories in, vectors or code logits out."""


@hookspec
def register_losses(register: Register) -> None:
    """What training minimises."""


@hookspec
def register_retrievers(register: Register) -> None:
    """How the top k of the candidates are found."""


@hookspec
def register_metrics(register: Register) -> None:
    """What a ranking is worth, one value a query."""


@hookspec
def register_optimizers(register: Register) -> None:
    """How parameters are updated."""


@hookspec
def register_trackers(register: Register) -> None:
    """Who is told while a cell runs."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Further commands of the command line."""
