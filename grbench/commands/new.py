"""`grbench new`: writes packages to start from."""

from __future__ import annotations

from pathlib import Path

import click

from grbench.commands.groups import WholeSummaries
from grbench.commands.streams import say


@click.group(cls=WholeSummaries)
def new() -> None:
    """Write a package of your own to start from.

    \b
    grbench new plugin my-encoder --kinds encoder,loss
    """


@new.command()
@click.argument("name")
@click.option(
    "--kinds", required=True, metavar="KIND,KIND...", help="Kinds of plug-ins, such as encoder,loss; all = one of each."
)
@click.option("--out", type=click.Path(path_type=Path), help="The package's folder, which is made.  [default: ./NAME]")
@click.option("--author", metavar="'NAME <EMAIL>'", help="For the package's metadata.")
def plugin(name: str, kinds: str, out: Path | None, author: str | None) -> None:
    """Write a pip-installable package of plug-ins that runs as it is.

    It has one file for each kind, with code that works and is meant to be changed, tests by the conformance kit, a
    suite that compares the plug-ins with reference methods, a README and a workflow for GitHub Actions. The plug-ins
    are called like the package.

    \b
    grbench new plugin my-encoder --kinds encoder,loss
    grbench new plugin my-codes --kinds tokenizer --out packages/my-codes --author 'Jane Doe <jane@example.org>'
    """
    import shlex

    from grbench.hookspecs import singular
    from grbench.registry.discovery import Registry
    from grbench.scaffold.package import chosen_kinds, package_files, read_author, write_package
    from grbench.scaffold.package_name import checked_name

    chosen, written_by = chosen_kinds(kinds), read_author(author)
    checked = checked_name(name, Registry.load())
    folder = Path(name) if out is None else out
    files = package_files(checked, chosen, written_by)
    write_package(folder, files)
    say(f"{folder}: a package of {len(files)} files, with {', '.join(map(singular, chosen))} {checked.module}")
    say("\nNext:")
    for command in (
        f"cd {shlex.quote(str(folder))}",
        "pip install -e '.[dev]'",
        f"grbench check {name}",
        "pytest",
        f"grbench run {name}",
    ):
        say(f"  {command}")
    say(f"\nThen change the code in src/{checked.module}: the README says what is where.")
