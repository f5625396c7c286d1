"""The page of all commands, from what they say of themselves by --help."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from grbench.cli import cli
from reference.markdown import block, code, escaped, table

INTRODUCTION = """What `grbench COMMAND --help` says of each command. `grbench --debug COMMAND` shows the traceback of
an error. Exit status: 0 success, 2 invalid suite, file or arguments, 130 interrupted; others are said below."""

PACKAGES = {"grbench", "grbench_reference"}
"""Commands of other packages, which may be installed where the site is built, are not part of it."""


def commands_page() -> str:
    """All commands, in the order of `grbench --help`."""
    sections = [
        _section(command, context) for command, context in _commands(cli, click.Context(cli, info_name="grbench"))
    ]
    return "\n\n".join(["# Commands", INTRODUCTION, *sections])


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden or not _ours(command):
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield command, inner
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _ours(command: click.Command) -> bool:
    if isinstance(command, click.Group) and command.callback is None:
        return any(_ours(inner) for inner in command.commands.values())
    module = inspect.getmodule(inspect.unwrap(command.callback)) if command.callback else None
    return module is not None and module.__name__.partition(".")[0] in PACKAGES


def _section(command: click.Command, context: click.Context) -> str:
    options = [
        record for option in command.get_params(context) if (record := option.get_help_record(context)) is not None
    ]
    rows = [[code(names), escaped(text)] for names, text in options if text and "--help" not in names]
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    level = "##" if context.parent and context.parent.parent is None else "###"
    parts = [f"{level} {context.command_path}", block(usage, "text"), *_help(command.help or "")]
    if rows:
        parts.append(table(["option", "what it does"], rows))
    return "\n\n".join(parts) + "\n"


def _help(text: str) -> Iterator[str]:
    """The paragraphs of a help text; those behind a line with \\b keep their lines, as click shows them."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        yield block(inspect.cleandoc(rest), "bash") if first.strip() == "\b" else escaped(paragraph)
