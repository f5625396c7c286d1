"""The check of what a plug-in reads from disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from grbench.audit.files import paths_in, plugin_folders
from grbench.audit.opened_files import OpenedFiles
from grbench.evaluation.ranking import evaluating
from grbench.registry.options import flat_values
from grbench.testing.checks.check import Check, KindChecks, require
from grbench.testing.checks.checked_plugin import CheckedPlugin

_FILES = KindChecks("")


@_FILES.add(
    means="A file that is read is no part of a result's identity: with another content under its name, old results are "
    "taken for new ones.",
    mend="Annotate the option that names it `grbench.DataFile`, or `grbench.DataFolder`. Files that a library opens in "
    "its own C code are not seen here.",
)
def file_contents_in_the_identity(plugin: CheckedPlugin) -> None:
    """Files that are opened while the plug-in works, and paths that options name."""
    factory = plugin.plugin.factory
    values = flat_values(factory, plugin.options, plugin.id)
    contents = plugin.registry.file_contents(plugin.kind, plugin.component, plugin.id)
    declared = [path.resolve() for name in contents for path in paths_in(values[name])]
    unhashed = [
        f"option {name} names {path}"
        for name, value in values.items()
        if name not in contents
        for path in paths_in(value)
        if path.exists()
    ]
    require(not unhashed, f"{', '.join(unhashed)}, whose content is not hashed")
    files = OpenedFiles({})
    with files:
        _WORK[plugin.kind](plugin)
    own = [*declared, *(folder.resolve() for folder in plugin_folders())]
    read = [path for path in files.read() if not any(path == each or each in path.parents for each in own)]
    require(not read, f"it reads {', '.join(map(str, read))}, which no option declares")


def _encode(plugin: CheckedPlugin) -> None:
    from grbench.testing.checks.outputs import outputs_of

    encoder = plugin.make_encoder()
    outputs = outputs_of(plugin, encoder)
    with evaluating(encoder):
        outputs(encoder, plugin.world.queries(encoder.history_length))  # type: ignore[arg-type]


def _lose(plugin: CheckedPlugin) -> None:
    encoder = plugin.make_encoder()
    with torch.no_grad():
        plugin.make_losses(encoder)[0](encoder, plugin.world.batch(encoder.history_length))  # type: ignore[arg-type]


def _rank(plugin: CheckedPlugin) -> None:
    from grbench.testing.checks.rankings import mixed

    plugin.make()(mixed(plugin.world))


_WORK: dict[str, Callable[[CheckedPlugin], object]] = {
    "tokenizers": lambda plugin: plugin.make().fit(plugin.world.training_data()),
    "encoders": _encode,
    "losses": _lose,
    "metrics": _rank,
    "slices": _rank,
}


def file_check(kind: str, needs: Sequence[Check]) -> tuple[Check, ...]:
    """Of a kind whose plug-ins may read files that are no dataset's. needs: see Check."""
    return tuple(replace(check, kind=kind, needs=tuple(needs)) for check in _FILES.all) if kind in _WORK else ()
