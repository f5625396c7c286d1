"""`grbench data`: makes, fetches, checks and measures datasets. Whatever is heavy is imported by the command itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grbench.errors import DataError, PluginError
from grbench.interfaces import Dataset, optional
from grbench.types import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from grbench.data.store import Store
    from grbench.registry.discovery import Registry

PROBLEM_FOUND = 2
_COLOURS = {"ok": "green", "absent": "yellow", "problem": "bold red"}


_SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the dataset (of the suite, where one is given); repeatable.",
)
_CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where stores are kept  [default: $GRBENCH_CACHE or ~/.cache/grbench]",
)
_DATASET = click.option(
    "--dataset", metavar="NAME", help="The dataset plug-in; left out, the one that recognises PATH."
)


def add_commands(cli: click.Group) -> None:
    """Adds the group `data`."""
    cli.add_command(data)


@click.group()
def data() -> None:
    """Make, fetch, check and measure datasets.

    \b
    grbench data synth --users 20000 --items 100000 --actions 2 --out data/synthetic
    grbench data download 1M --embeddings 81 --out data/TencentGR-1M
    grbench data validate data/TencentGR-1M
    """


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@_DATASET
def validate(*, path: Path, dataset: str | None) -> None:
    """Read all of a dataset and say what is there, what is absent, and what is wrong.

    Exit status: 0 when everything that is there can be read, 2 when something is wrong.

    \b
    grbench data validate data/TencentGR-1M
    grbench data validate my_log --dataset interactions
    """
    from rich.table import Table

    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry

    registry, console = Registry.load(), _console()
    name, options = _recognised(registry, path, dataset)
    source = registry.build("datasets", Component(name, options), where=str(path))
    with _progress(console) as report:
        findings = optional(source, Dataset.validate)(report)
    if findings is None:
        raise PluginError(
            f"{name}: the dataset plug-in has no `validate`; `grbench data stats {path}` reads all of it too"
        )
    table = Table("part", "status", "rows", "detail")
    for finding in findings:
        colour = _COLOURS.get(finding.status, "")
        rows = "" if finding.rows is None else f"{finding.rows:,}"
        table.add_row(finding.part, f"[{colour}]{finding.status}[/]", rows, _plain(finding.detail))
    _print(console, f"{path} ({name})", table)
    counts = {status: sum(finding.status == status for finding in findings) for status in _COLOURS}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if counts["problem"]:
        click.get_current_context().exit(PROBLEM_FOUND)


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@_DATASET
@_SET
@_CACHE
def stats(*, path: Path, dataset: str | None, overrides: tuple[str, ...], cache: Path | None) -> None:
    """Count what a dataset, a suite's dataset or a store holds: users, events, actions, features, embeddings, tail.

    A dataset that has no store yet is made into one first.

    \b
    grbench data stats data/TencentGR-1M
    grbench data stats data/TencentGR-1M --set embeddings=[81,82]
    grbench data stats suites/quickstart.yaml
    """
    from rich.table import Table

    from grbench_reference.commands.store_statistics import statistics

    console = _console()
    store = _store(path, dataset, overrides, cache, console)
    for found in statistics(store):
        titled = any(found.columns)
        table = Table(show_header=titled)
        for number, column in enumerate(found.columns):
            table.add_column(column, justify="right" if titled and number else "left")
        for row in found.rows:
            table.add_row(*map(_plain, row))
        _print(console, found.title, table)


@data.command()
@click.option("--users", type=int, required=True, help="How many users.")
@click.option("--items", type=int, required=True, help="How many ads; cold candidates come on top.")
@click.option(
    "--actions",
    type=click.Choice(["2", "3"]),
    default="2",
    show_default=True,
    help="2: exposure, click (as TencentGR-1M); 3: and conversion (as TencentGR-10M).",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where it is written.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads  [default: one a core]")
def synth(*, users: int, items: int, actions: str, out: Path, seed: int, workers: int | None) -> None:
    """Write made-up data in TencentGR's layout, with structure that a better method finds.

    The same numbers always give the same data. A million users and 4.8 million ads take a few minutes and under 2 GB.

    \b
    grbench data synth --users 20000 --items 100000 --actions 2 --out data/synthetic --seed 0
    grbench run suites/preliminary_round.yaml --set dataset.path=data/synthetic --only baseline
    """
    from grbench_reference.datasets.download.release import readable
    from grbench_reference.datasets.synthetic.generator import generate

    console, began = _console(), time.monotonic()
    with _progress(console) as report:
        generate(out, users=users, items=items, actions=int(actions), seed=seed, workers=workers, report=report)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    suite = "preliminary_round" if actions == "2" else "final_round"
    console.print(f"{out}: {readable(size)} in {time.monotonic() - began:.0f} s. Next:", highlight=False)
    next_command = f"grbench run suites/{suite}.yaml --set dataset.path={out} --only baseline"
    console.print(f"  {next_command}", highlight=False, soft_wrap=True)


@data.command()
@click.argument("release", type=click.Choice(["1M", "10M"]))
@click.option(
    "--embeddings",
    multiple=True,
    metavar="ID",
    help="A content embedding, 81 to 86; repeatable, or several as 81,82; none for none.  [default: 81]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where it goes  [default: data/TencentGR-RELEASE]"
)
@click.option("--revision", help="Branch, tag or commit  [default: the one DIR was begun with, else the newest]")
@click.option("--endpoint", metavar="URL", help="Another hub, a mirror say  [default: $HF_ENDPOINT or huggingface.co]")
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True, help="Files fetched at once.")
@click.option("--dry-run", is_flag=True, help="List parts and sizes, and stop.")
def download(
    *,
    release: str,
    embeddings: tuple[str, ...],
    out: Path | None,
    revision: str | None,
    endpoint: str | None,
    workers: int,
    dry_run: bool,
) -> None:
    """Fetch TencentGR-1M or TencentGR-10M from the Hugging Face hub: the core parts and the embeddings you name.

    The free disk is looked at first. Files that arrived stay: run an interrupted command again, and it goes on with the
    others, from the same commit.

    \b
    grbench data download 1M --dry-run
    grbench data download 1M --embeddings 81 --out data/TencentGR-1M
    grbench data download 10M --embeddings 81,84 --out /big/disk/TencentGR-10M
    """
    from rich.table import Table

    from grbench_reference.datasets.download import release as hub

    console, out = _console(), out or Path("data") / f"TencentGR-{release}"
    listing = hub.list_files(release, out, embeddings=_embeddings(embeddings), revision=revision, endpoint=endpoint)
    missing = hub.missing_files(listing)
    to_come = sum(file.size for file in missing)
    table = Table("part")
    table.add_column("files", justify="right")
    table.add_column("size", justify="right")
    for part, (count, size) in listing.sizes().items():
        table.add_row(part, f"{count:,}", hub.readable(size))
    _print(console, f"{listing.request.repository} at {listing.commit[:12]}", table)
    console.print(f"{hub.readable(to_come)} to be downloaded to {out}", highlight=False, soft_wrap=True)
    if dry_run:
        return
    with _progress(console, sizes=True) as report:
        hub.fetch(listing, workers=workers, report=report)
    console.print(f"{out}: whole. Check it with: grbench data validate {out}", highlight=False, soft_wrap=True)


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@_DATASET
@_SET
@_CACHE
def prepare(*, path: Path, dataset: str | None, overrides: tuple[str, ...], cache: Path | None) -> None:
    """Make the store of a dataset, or of a suite's dataset, now; `grbench run` would make it when it starts.

    \b
    grbench data prepare data/TencentGR-1M
    grbench data prepare suites/preliminary_round.yaml --set dataset.path=data/TencentGR-1M
    """
    from grbench_reference.datasets.download.release import readable

    console, began = _console(), time.monotonic()
    store = _store(path, dataset, overrides, cache, console)
    size = sum(file.stat().st_size for file in store.path.iterdir())
    console.print(
        f"{store.path}: {store.catalogue.num_users:,} users, {len(store.items):,} events, {readable(size)}, "
        f"{time.monotonic() - began:.0f} s",
        highlight=False,
        soft_wrap=True,
    )


def _embeddings(given: Sequence[str]) -> list[str]:
    """81 where none is named; `none` takes none."""
    named = [name.strip() for text in given for name in text.split(",") if name.strip()]
    if "none" in named:
        if len(named) > 1:
            raise click.BadParameter("`none` cannot stand beside embeddings", param_hint="--embeddings")
        return []
    return named or ["81"]


def _store(path: Path, dataset: str | None, overrides: Sequence[str], cache: Path | None, console: Console) -> Store:
    """The store at `path`, or the one made from the dataset or the suite's dataset there."""
    from grbench.data.store import STORE_FILE, Store
    from grbench.data.store_writer import build_store
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry
    from grbench.run.prepare import store_cache

    if (path / STORE_FILE).is_file():
        return Store.open(path)
    registry = Registry.load()
    if path.suffix in (".yaml", ".yml"):
        name, options = _dataset_of_suite(registry, path, overrides)
    else:
        name, options = _recognised(registry, path, dataset)
        options |= _options(overrides)
    source = registry.build("datasets", Component(name, options), where="dataset")
    with _progress(console) as report:
        return build_store(source, name=name, cache=store_cache(cache), report=report)


def _dataset_of_suite(registry: Registry, path: Path, overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    from grbench.suite.suite import load_suite

    cell = load_suite(path, list(overrides)).cells(registry)[0]
    return cell.dataset.name, dict(cell.dataset.options)


def _recognised(registry: Registry, path: Path, dataset: str | None) -> tuple[str, dict[str, Any]]:
    """The dataset plug-in for a path, and its options; raises DataError where none recognises it."""
    from grbench_reference.datasets.download.release import describe_missing

    if dataset is not None:
        return dataset, {"path": str(path)}
    if not path.exists():
        raise DataError(describe_missing(path))
    installed = registry.plugins("datasets")
    for plugin in installed:
        if getattr(plugin.factory, "recognises", Dataset.recognises)(path):
            return plugin.name, {"path": str(path)}
    names = ", ".join(plugin.name for plugin in installed)
    raise DataError(f"{path}: none of the dataset plug-ins ({names}) recognises it; name one with --dataset")


def _options(overrides: Sequence[str]) -> dict[str, Any]:
    from grbench.suite.file import parse_yaml

    options = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{override}: should be KEY=VALUE, such as embeddings=[81]", param_hint="--set")
        options[key] = parse_yaml(value, f"--set {override}")
    return options


def _console() -> Console:
    from rich.console import Console

    console = Console()
    # A pipe has no width; a narrow one would cut every message into columns.
    return console if console.is_terminal else Console(width=160)


def _print(console: Console, title: str, table: Table) -> None:
    """A table under its title, which rich itself would fold to the table's width."""
    console.print(f"[bold]{_plain(title)}[/]", highlight=False, soft_wrap=True)
    console.print(table)


def _plain(text: str) -> str:
    """Text in which rich finds no markup of its own."""
    from rich.markup import escape

    return escape(text)


@contextmanager
def _progress(console: Console, *, sizes: bool = False) -> Iterator[Progress]:
    """Bars with the time left on a terminal; elsewhere one line for each thing that is finished."""
    if not console.is_terminal:
        yield _lines(console)
        return
    from rich import progress

    amounts = (progress.DownloadColumn(), progress.TransferSpeedColumn()) if sizes else (progress.MofNCompleteColumn(),)
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *amounts,
        progress.TimeRemainingColumn(),
        console=console,
    ) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _lines(console: Console) -> Progress:
    finished: set[str] = set()

    def report(what: str, done: int, total: int | None) -> None:
        if total is not None and done >= total and what not in finished:
            finished.add(what)
            console.print(f"{what}: {done:,}", highlight=False)

    return report
