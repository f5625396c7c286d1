"""The pages of the plug-ins that ship, one for each kind, from the registry."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import grbench.interfaces
from grbench.hookspecs import KINDS, Kind
from grbench.registry.discovery import Plugin, Registry
from grbench.registry.options import describe
from reference.markdown import block, code, escaped, folded, table

SHIPPED = "grbench"
"""The distribution whose plug-ins are shown; others may be installed where the site is built."""


def plugin_pages() -> dict[str, str]:
    """{name of the page: Markdown}: an index, and a page for each kind."""
    registry = Registry.load()
    shipped = {name: [plugin for plugin in registry.plugins(name) if plugin.distribution == SHIPPED] for name in KINDS}
    return {"index": _index(shipped)} | {name: _page(KINDS[name], plugins) for name, plugins in shipped.items()}


def _index(shipped: dict[str, list[Plugin]]) -> str:
    rows = [
        [f"[{kind}]({kind}.md)", f"[`{plugin.name}`]({kind}.md#{plugin.name})", escaped(_summary(plugin))]
        for kind, plugins in shipped.items()
        for plugin in plugins
    ]
    return (
        "# Plug-ins and options\n\nAll plug-ins that ship, from their own signatures and docstrings. `grbench plugins` "
        "lists what is installed on your machine, other packages' plug-ins too, and `grbench plugins show KIND NAME` "
        "the options of one. A kind's page begins with the interface that its plug-ins implement, as does `grbench "
        "plugins interface KIND`. [The methods that ship](../../methods.md) has examples of how they are combined.\n\n"
        + table(["kind", "plug-in", "what it is"], rows)
    )


def _page(kind: Kind, plugins: list[Plugin]) -> str:
    example = f"[an example of {_article(kind.singular)}](../../plugin_kinds.md#{kind.singular})"
    parts = [f"# {kind.name.capitalize()}", f"{kind.purpose} {_key(kind)} To write one: {example}."]
    for name in (kind.interface, *kind.further):
        if (interface := getattr(grbench.interfaces, name, None)) is not None:
            parts.append(folded(f"grbench.interfaces.{name}", block(inspect.getsource(interface), "python")))
    rows = [[f"[`{plugin.name}`](#{plugin.name})", escaped(_summary(plugin))] for plugin in plugins]
    parts += [table([kind.singular, "what it is"], rows), *(_section(plugin) for plugin in plugins)]
    return "\n\n".join(parts)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _key(kind: Kind) -> str:
    """Where a suite names plug-ins of the kind, and which are used where it names none."""
    owner = "suite" if kind.scope.startswith("suite") else "method"
    text = f"A {owner} names {'them' if kind.scope.endswith('list') else 'one'} by the key `{kind.key}`"
    defaults = [kind.default] if kind.default else list(kind.defaults)
    return f"{text}; the default is {', '.join(map(code, defaults))}." if defaults else f"{text}."


def _section(plugin: Plugin) -> str:
    """A plug-in: its source's description, its own, its options, and where its source is."""
    module = _module(plugin)
    parts = [f"## {plugin.name}", *_paragraphs(module.__doc__), *_paragraphs(plugin.factory.__doc__)]
    options = [
        [code(option.name), code(option.type), code(option.default), escaped(option.doc)]
        for option in describe(plugin.factory)
    ]
    parts.append(table(["option", "type", "default", "what it does"], options) if options else "No options.")
    return "\n\n".join([*parts, f"Source: `{module.__name__}`, `{plugin.factory.__qualname__}`\n"])


def _paragraphs(documentation: str | None) -> list[str]:
    """A docstring's paragraphs before `Args:`, without that on the letters of shapes, which are for readers of code."""
    prose = inspect.cleandoc(documentation or "").partition("\nArgs:")[0]
    return [escaped(paragraph) for paragraph in prose.strip().split("\n\n") if not paragraph.startswith("Shapes:")]


def _summary(plugin: Plugin) -> str:
    """The first paragraph of its module's docstring."""
    return inspect.cleandoc(_module(plugin).__doc__ or "").split("\n\n")[0]


def _module(plugin: Plugin) -> ModuleType:
    return sys.modules[plugin.factory.__module__]
