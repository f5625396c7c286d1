"""The commands `grbench data`. Heavy modules are imported by the commands themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from grbench.commands.groups import WholeSummaries
from grbench.errors import DataError, PluginError
from grbench.interfaces import Dataset, optional
from grbench.types import MAX_SEED
from grbench_reference.commands.console import make_console, plain, print_remarks, print_table, progress_report
from grbench_reference.commands.sources import (
    cache_option,
    dataset_option,
    locate,
    open_or_build_store,
    own_files,
    pushable_store,
    shown_path,
)

PROBLEM_FOUND = 2
"""Exit status of `validate` where something is wrong with the data."""
_COLOURS = {"ok": "green", "absent": "yellow", "problem": "bold red"}

_set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the dataset (of the suite, where one is given); repeatable.",
)


def add_commands(cli: click.Group) -> None:
    """Adds the group `data`."""
    cli.add_command(data)


@click.group(cls=WholeSummaries)
def data() -> None:
    """Generate, download, check, count, prepare and push datasets.

    PATH is a folder, a file, s3://bucket/folder or file:///folder.

    \b
    grbench data synth --users 20000 --items 100000 --actions 2 --out data/synthetic
    grbench data download 1M --embeddings 81 --out data/TencentGR-1M
    grbench data validate data/TencentGR-1M
    grbench data push data/TencentGR-1M s3://bucket/stores
    """


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@dataset_option
@_set_option
def validate(*, path: Path, dataset: str | None, overrides: tuple[str, ...]) -> None:
    """Read a whole dataset, or that of a suite, and report which parts are present, absent or wrong.

    Exit status: 0 when everything present can be read, 2 when something is wrong.

    \b
    grbench data validate data/TencentGR-1M
    grbench data validate my_log.csv --set timestamp=time
    grbench data validate suites/preliminary_round.yaml --set dataset.path=data/TencentGR-1M
    """
    from rich.table import Table

    from grbench.registry.discovery import Registry
    from grbench.run.data_source import build_dataset
    from grbench.run.prepared_store import PreparedStore

    registry, console = Registry.load(), make_console()
    component = locate(registry, path, dataset, overrides)
    with progress_report(console, in_bytes=True) as report:
        source = build_dataset(registry, component, where=shown_path(path), copying=report)
    if isinstance(source, PreparedStore):
        raise DataError(
            f"{shown_path(path)}: is a prepared store, whose source was read where it was prepared; `grbench data "
            "prepare` copies it and compares all files with their checksums"
        )
    with progress_report(console) as report:
        findings = optional(source, Dataset.validate)(report)
    if findings is None:
        raise PluginError(
            f"{component.name}: the dataset plug-in has no `validate`; `grbench data stats {shown_path(path)}` also "
            "reads all of it"
        )
    table = Table("part", "status", "rows", "detail")
    for finding in findings:
        colour = _COLOURS.get(finding.status, "")
        rows = "" if finding.rows is None else f"{finding.rows:,}"
        table.add_row(plain(finding.part), f"[{colour}]{finding.status}[/]", rows, plain(finding.detail))
    print_table(console, f"{shown_path(path)} ({component.name})", table)
    counts = {status: sum(finding.status == status for finding in findings) for status in _COLOURS}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if counts["problem"]:
        click.get_current_context().exit(PROBLEM_FOUND)


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@dataset_option
@_set_option
@cache_option
def stats(*, path: Path, dataset: str | None, overrides: tuple[str, ...], cache: Path | None) -> None:
    """Statistics of a dataset, a suite's dataset or a store: users, items, events, actions, popularity, features.

    A dataset without a store is converted into one first.

    \b
    grbench data stats data/TencentGR-1M
    grbench data stats data/TencentGR-1M --set embeddings=[81,82]
    grbench data stats quickstart
    """
    from rich.table import Table

    from grbench_reference.commands.store_statistics import statistics

    console = make_console()
    store = open_or_build_store(path, dataset, overrides, cache, console)
    for statistic in statistics(store):
        has_header = any(statistic.columns)
        table = Table(show_header=has_header)
        for number, column in enumerate(statistic.columns):
            table.add_column(column, justify="right" if has_header and number else "left")
        for row in statistic.rows:
            table.add_row(*map(plain, row))
        print_table(console, statistic.title, table)
    print_remarks(console, store)


@data.command()
@click.option("--users", type=int, required=True, help="Number of users.")
@click.option("--items", type=int, required=True, help="Number of ads; cold candidates are added to them.")
@click.option(
    "--actions",
    type=click.Choice(["2", "3"]),
    default="2",
    show_default=True,
    help="2: exposure, click (as TencentGR-1M); 3: also conversion (as TencentGR-10M).",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to write.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads  [default: one per core]")
def synth(*, users: int, items: int, actions: str, out: Path, seed: int, workers: int | None) -> None:
    """Write synthetic data in TencentGR's layout, with structure that better methods can learn.

    The same options always give the same data. A million users and 4.8 million ads take a few minutes and under 2 GB.

    \b
    grbench data synth --users 20000 --items 100000 --actions 2 --out data/synthetic --seed 0
    grbench run preliminary_round --set dataset.path=data/synthetic --only baseline
    """
    from grbench_reference.datasets.download.release import readable
    from grbench_reference.datasets.synthetic.generator import generate

    console, started = make_console(), time.monotonic()
    with progress_report(console) as report:
        generate(out, users=users, items=items, actions=int(actions), seed=seed, workers=workers, report=report)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    suite = "preliminary_round" if actions == "2" else "final_round"
    console.print(f"{out}: {readable(size)} in {time.monotonic() - started:.0f} s. Next:", highlight=False)
    next_command = f"grbench run {suite} --set dataset.path={out} --only baseline"
    console.print(f"  {next_command}", highlight=False, soft_wrap=True)


@data.command()
@click.argument("release", type=click.Choice(["1M", "10M"]))
@click.option(
    "--embeddings",
    multiple=True,
    metavar="ID",
    help="A content embedding, 81 to 86; repeatable, or several as 81,82; or none.  [default: 81]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to download to  [default: data/TencentGR-RELEASE]",
)
@click.option("--revision", help="Branch, tag or commit  [default: that of an earlier download to DIR, else newest]")
@click.option(
    "--endpoint", metavar="URL", help="Another hub, such as a mirror  [default: $HF_ENDPOINT, huggingface.co]"
)
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True, help="Files downloaded at once.")
@click.option("--dry-run", is_flag=True, help="Only list parts and sizes.")
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
    """Download TencentGR-1M or TencentGR-10M from the Hugging Face hub: the core parts and the embeddings named.

    Free disk space is checked first. After an interruption, run the command again: it downloads the missing files only,
    from the same commit.

    \b
    grbench data download 1M --dry-run
    grbench data download 1M --embeddings 81 --out data/TencentGR-1M
    grbench data download 10M --embeddings 81,84 --out /big/disk/TencentGR-10M
    """
    from rich.table import Table

    from grbench_reference.datasets.download import release as hub

    console, out = make_console(), out or Path("data") / f"TencentGR-{release}"
    listing = hub.list_files(release, out, embeddings=_embeddings(embeddings), revision=revision, endpoint=endpoint)
    missing = hub.missing_files(listing)
    remaining = sum(file.size for file in missing)
    table = Table("part")
    table.add_column("files", justify="right")
    table.add_column("size", justify="right")
    for part, (count, size) in listing.sizes().items():
        table.add_row(plain(part), f"{count:,}", hub.readable(size))
    print_table(console, f"{listing.request.repository} at {listing.commit[:12]}", table)
    console.print(f"{hub.readable(remaining)} to be downloaded to {out}", highlight=False, soft_wrap=True)
    if dry_run:
        return
    with progress_report(console, in_bytes=True) as report:
        hub.fetch(listing, workers=workers, report=report)
    console.print(f"{out}: complete. Check it with: grbench data validate {out}", highlight=False, soft_wrap=True)


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@dataset_option
@_set_option
@cache_option
def prepare(*, path: Path, dataset: str | None, overrides: tuple[str, ...], cache: Path | None) -> None:
    """Build the store of a dataset, or of a suite's dataset, in advance; otherwise `grbench run` builds it.

    A store that was pushed is copied.

    \b
    grbench data prepare data/TencentGR-1M
    grbench data prepare s3://bucket/stores/tencentgr-0123456789abcdef
    grbench data prepare preliminary_round --set dataset.path=data/TencentGR-1M
    """
    from grbench_reference.datasets.download.release import readable

    console, started = make_console(), time.monotonic()
    store = open_or_build_store(path, dataset, overrides, cache, console)
    size = sum(file.stat().st_size for file in store.path.iterdir())
    console.print(
        f"{store.path}: {store.catalogue.num_users:,} users, {len(store.items):,} events, {readable(size)}, "
        f"{time.monotonic() - started:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    print_remarks(console, store)


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("place", type=click.Path(path_type=Path))
@dataset_option
@_set_option
@click.option("--source", is_flag=True, help="Push the dataset's own files in place of its store.")
@cache_option
def push(
    *, path: Path, place: Path, dataset: str | None, overrides: tuple[str, ...], source: bool, cache: Path | None
) -> None:
    """Push the store of a dataset, or of a suite's dataset, to PLACE: s3://bucket/folder, file:///folder or a folder.
    It is prepared first where the cache does not have it.

    What is printed in the end is the `path` that suites on other machines have: they copy the store once, compare it
    with its checksums, and give the same cells the same identities as here. After an interruption, run the command
    again: it pushes what is missing.

    \b
    grbench data push data/TencentGR-1M s3://bucket/stores
    grbench data push preliminary_round /shared/stores --set dataset.path=data/TencentGR-1M
    grbench data push data/TencentGR-1M s3://bucket/data --source
    """
    from grbench.storage.place import place_of
    from grbench.storage.push import push as push_files
    from grbench.storage.refusals import readable

    console, started, target = make_console(), time.monotonic(), place_of(place)
    option = "path"
    if source:
        folder = own_files(path)
    else:
        folder, option = pushable_store(path, dataset, overrides, cache, console)
    target = target.below(folder.resolve().name)
    with progress_report(console, in_bytes=True) as report:
        written = push_files(folder, target, report)
    size = sum(file.stat().st_size for file in (folder.rglob("*") if folder.is_dir() else [folder]) if file.is_file())
    how = f"{readable(size)}, {time.monotonic() - started:.0f} s" if written else "is there already"
    console.print(f"{target.url}: {how}. Suites that read it have:", highlight=False, soft_wrap=True, markup=False)
    console.print(f"  dataset.{option}={target.url}", highlight=False, soft_wrap=True, markup=False)


def _embeddings(given: Sequence[str]) -> list[str]:
    """The embeddings named, comma-separated or repeated; 81 by default; [] for `none`."""
    named = [name.strip() for text in given for name in text.split(",") if name.strip()]
    if "none" in named:
        if len(named) > 1:
            raise click.BadParameter("`none` cannot be combined with embeddings", param_hint="--embeddings")
        return []
    return named or ["81"]
