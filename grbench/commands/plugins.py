"""`grbench plugins`: lists and shows installed plug-ins."""

from __future__ import annotations

import click

from grbench.commands import complete
from grbench.commands.groups import WholeSummaries
from grbench.commands.streams import say


@click.group(cls=WholeSummaries, invoke_without_command=True)
@click.pass_context
def plugins(context: click.Context) -> None:
    """List the installed plug-ins, show one, or show what plug-ins of a kind have to do.

    \b
    grbench plugins
    grbench plugins show encoders causal_transformer
    grbench plugins interface encoders
    """
    if context.invoked_subcommand is None:
        context.invoke(list_plugins)


@plugins.command("list")
@click.argument("kind", required=False, shell_complete=complete.kinds)
def list_plugins(kind: str | None = None) -> None:
    """List plug-ins of all kinds, or of one, with their packages and options."""
    from tabulate import tabulate

    from grbench.cache import cache_folder
    from grbench.registry.discovery import Registry
    from grbench.registry.options import describe

    registry = Registry.load(signature_cache=cache_folder())
    rows = [
        [
            plugin.kind,
            plugin.name,
            plugin.distribution,
            plugin.version,
            ", ".join(option.name for option in describe(plugin.factory)),
        ]
        for plugin in registry.plugins(plural_of(kind) if kind else None)
    ]
    say(
        tabulate(
            rows,
            headers=["kind", "name", "distribution", "version", "options"],
            maxcolwidths=[None, None, None, None, 60],
            disable_numparse=True,
        )
    )
    for broken in registry.broken:
        say(f"\nbroken: {broken.kind} {broken.name} of {broken.distribution} {broken.version}: {broken.reason}")
    registry.save_signatures()


@plugins.command("show")
@click.argument("kind", shell_complete=complete.kinds)
@click.argument("name", shell_complete=complete.plugins())
def show_plugin(kind: str, name: str) -> None:
    """Show a plug-in's options with their types, defaults and documentation.

    \b
    grbench plugins show encoders causal_transformer
    """
    import inspect

    from tabulate import tabulate

    from grbench.registry.discovery import Registry
    from grbench.registry.options import describe

    plugin = Registry.load().get(plural_of(kind), name)
    documentation = inspect.cleandoc(plugin.factory.__doc__ or "").partition("\nArgs:")[0].strip()
    say(f"{plugin.kind} {plugin.name} ({plugin.distribution} {plugin.version})\n")
    if documentation:
        say(documentation + "\n")
    rows = [[option.name, option.type, option.default, option.doc] for option in describe(plugin.factory)]
    if rows:
        headers = ["option", "type", "default", "what it does"]
        say(tabulate(rows, headers=headers, maxcolwidths=[None, 32, 20, 60], disable_numparse=True))
    else:
        say("no options")


@plugins.command("interface")
@click.argument("kind", shell_complete=complete.kinds)
def show_interface(kind: str) -> None:
    """Show what plug-ins of a kind have to do: what their factory takes, and the methods of what it makes, with shapes.

    Methods marked `@abstractmethod`, and all of a Protocol that a loss or retriever needs, must be there; the others
    are optional.

    \b
    grbench plugins interface encoders
    """
    import inspect

    import grbench.interfaces
    from grbench.hookspecs import KINDS

    shown = KINDS[plural_of(kind)]
    arguments = f"{shown.arguments}, then " if shown.arguments else ""
    say(f"{shown.name}: {shown.purpose}")
    say(f"A factory takes {arguments}its options, which are keyword-only, and makes: {shown.interface}.\n")
    say((inspect.getdoc(grbench.interfaces) or "").split("\n\n")[-1] + "\n")
    for name in (shown.interface, *shown.further):
        if (interface := getattr(grbench.interfaces, name, None)) is not None:
            say(inspect.getsource(interface))


def plural_of(kind: str) -> str:
    """The plural name of a kind, given in plural or singular; raises PluginError for an unknown kind."""
    from grbench.errors import PluginError
    from grbench.hookspecs import KINDS
    from grbench.registry.options import suggestion

    kinds = {kind.singular: name for name, kind in KINDS.items()} | {name: name for name in KINDS}
    if kind not in kinds:
        raise PluginError(f"unknown kind {kind!r}; {suggestion(kind, KINDS)}")
    return kinds[kind]
