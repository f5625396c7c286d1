"""The command `grbench inspect codes`: the quality of a tokenizer's codes, before a model is trained on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grbench.commands.groups import WholeSummaries
from grbench.errors import PluginError, SuiteError
from grbench.output import printable
from grbench_reference.commands.console import make_console
from grbench_reference.commands.sources import (
    build_dataset_store,
    cache_option,
    dataset_option,
    is_store,
    parse_overrides,
    recognise,
)

if TYPE_CHECKING:
    from rich.console import Console

    from grbench.data.training_data import TrainingData
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry

DATASET_OPTION = "dataset."
_SECTIONS = ("codes", "fitted", "use", "fan-out", "embeddings", "co-occurrence", "popularity")
# Printed in the section of the codes.
_LEFT_OUT = ("items", "distinct_codes", "colliding_items", "colliding_share", "most_items_on_a_code")


def add_inspect_command(cli: click.Group) -> None:
    """Adds `codes` to the group `inspect`, which is created where it does not exist."""
    group = cli.commands.get("inspect")
    if not isinstance(group, click.Group):
        group = WholeSummaries("inspect", help="Inspect the parts of a method before it is trained.")
        cli.add_command(group)
    group.add_command(codes)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--method", "methods", multiple=True, metavar="NAME", help="With a suite: only this method; repeatable.")
@click.option("--tokenizer", metavar="NAME", help="With a dataset or a store: the tokenizer plug-in.")
@dataset_option
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the suite; without a suite an option of the tokenizer, or dataset.OPTION; repeatable.",
)
@cache_option
@click.option("--json", "as_json", is_flag=True, help="All statistics as JSON, one object per tokenizer.")
def codes(
    *,
    path: Path,
    methods: tuple[str, ...],
    tokenizer: str | None,
    dataset: str | None,
    overrides: tuple[str, ...],
    cache: Path | None,
    as_json: bool,
) -> None:
    """Fit tokenizers, without training a model, and report the quality of their codes.

    Reported are the share of codes in use, collisions, the number of codes after a prefix, whether items with the same
    prefix are close in the content embeddings and co-occur in users' histories, and all that for popular and rare
    items. PATH is a suite, whose tokenizers are compared side by side, or a dataset or a store together with
    --tokenizer; of these, each user's last two events are held out.

    \b
    grbench inspect codes amazon_beauty
    grbench inspect codes final_round --method first_place --set dataset.path=data/TencentGR-10M
    grbench inspect codes data/TencentGR-1M --tokenizer rq_kmeans --set sizes=[256,256,256] --set collision=none
    """
    from rich.console import Console

    from grbench.data.store import Store
    from grbench.registry.component import Component
    from grbench.registry.discovery import Registry
    from grbench.run.prepare import split_store
    from grbench.suite.installed import is_suite

    # With --json, stdout holds nothing but the JSON.
    registry, console = Registry.load(), Console(stderr=True) if as_json else make_console()
    if is_suite(path):
        if tokenizer or dataset:
            raise SuiteError(f"{path}: is a suite; choose tokenizers with --method, not with --tokenizer or --dataset")
        source: Component | None
        chosen, source, protocol = _of_suite(registry, path, methods, overrides)
    else:
        if tokenizer is None or methods:
            raise SuiteError(f"{path}: is not a suite; name a tokenizer with --tokenizer, not with --method")
        chosen, options = _of_options(registry, tokenizer, overrides)
        source = None
        if not is_store(path):
            recognised = recognise(registry, path, dataset)
            source = Component(recognised.name, {**recognised.options, **options})
        protocol = Component("leave_last_out", {})
    store = Store.open(path) if source is None else build_dataset_store(registry, source, cache, console)
    training = split_store(store, protocol, registry).training
    reports = {}
    for label, component in chosen.items():
        console.print(f"fitting {label} ...", style="dim", highlight=False, markup=False)
        reports[label] = _quality_report(registry, component, training)
    if as_json:
        click.echo(json.dumps(reports, indent=1))
    else:
        _print(reports, console)


def _of_suite(
    registry: Registry, path: Path, methods: Sequence[str], overrides: Sequence[str]
) -> tuple[dict[str, Component], Component, Component]:
    """The distinct tokenizers of a suite, labelled with the methods that use them; its dataset and its protocol."""
    from grbench.suite.suite import load_suite

    cells = load_suite(path, overrides).cells(registry, methods or None, seeds=1)
    users: dict[str, list[str]] = {}
    tokenizers: dict[str, Component] = {}
    for cell in cells:
        if cell.error is not None:
            raise PluginError(cell.error)
        key = json.dumps([cell.method.tokenizer.name, cell.method.tokenizer.options], sort_keys=True)
        users.setdefault(key, []).append(cell.method.name)
        tokenizers[key] = cell.method.tokenizer
    chosen = {f"{tokenizers[key].name} ({', '.join(names)})": tokenizers[key] for key, names in users.items()}
    return chosen, cells[0].dataset, cells[0].protocol


def _of_options(
    registry: Registry, tokenizer: str, overrides: Sequence[str]
) -> tuple[dict[str, Component], dict[str, Any]]:
    """The tokenizer with its options, by its label; the options of the dataset."""
    from grbench.suite.method import bind_component

    own, of_dataset = {}, {}
    for key, value in parse_overrides(overrides).items():
        if key.startswith(DATASET_OPTION):
            of_dataset[key.removeprefix(DATASET_OPTION)] = value
        else:
            own[key] = value
    broken: list[str] = []
    component = bind_component(registry, "tokenizers", {"name": tokenizer, **own}, "--tokenizer", broken)
    if broken:
        raise PluginError(broken[0])
    return {tokenizer: component}, of_dataset


def _quality_report(registry: Registry, component: Component, training: TrainingData) -> dict[str, Any]:
    """The tokenizer's own report, completed by the quality of its codes where it lacks that."""
    from grbench_reference.codes.quality import code_quality

    fitted = registry.build("tokenizers", component).fit(training)
    return {**({} if "fan_out" in fitted.report else code_quality(fitted, training)), **fitted.report}


def _print(reports: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """One table with a row for each statistic and a column for each tokenizer."""
    from rich.table import Table
    from rich.text import Text

    columns = {label: dict(_figures(report)) for label, report in reports.items()}
    table = Table("", title="Codes", title_justify="left")
    for label in columns:
        table.add_column(Text(printable(label)), justify="right")
    section = ""
    figures = dict.fromkeys(figure for column in columns.values() for figure in column)
    for figure in sorted(figures, key=lambda figure: _SECTIONS.index(figure[0])):
        if section and figure[0] != section:
            table.add_section()
        section = figure[0]
        table.add_row(Text(figure[1]), *(Text(printable(column.get(figure, ""))) for column in columns.values()))
    console.print(table)


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """((section, statistic), value) as printed."""
    yield ("codes", "items"), f"{report['items']:,}"
    yield ("codes", "codes a level"), " x ".join(f"{size:,}" for size in report["sizes"])
    yield ("codes", "different codes"), f"{report['distinct_codes']:,}"
    yield ("codes", "items that share their code"), f"{report['colliding_items']:,} ({report['colliding_share']:.1%})"
    yield ("codes", "most items on one code"), f"{report['most_items_on_a_code']:,}"
    yield from _fitted(report)
    for number, level in enumerate(report["utilisation"], 1):
        used = f"{level['used']:,} of {level['size']:,} ({level['share']:.1%})"
        yield ("use", f"level {number}: codes in use"), used
        yield ("use", f"level {number}: perplexity"), f"{level['perplexity']:,.1f}"
    for row in report["fan_out"]:
        length = row["prefix_length"]
        name = f"codes after {_count(length)}: mean, median, most" if length else "first codes"
        branching = f"{row['mean']:,.1f}, {row['median']:,.0f}, {row['most']:,}" if length else f"{row['most']:,}"
        yield ("fan-out", name), branching
        if length:
            yield ("fan-out", f"most items behind {_count(length)}"), f"{row['most_items']:,}"
    near, following = report["embedding_agreement"], report["cooccurrence_agreement"]
    if near is not None:
        yield from _agreement("embeddings", f"{near['neighbours']} nearest in {near['of']}", near)
    if following is not None:
        yield from _agreement("co-occurrence", "next event of another item", following)
    for band in report["popularity"]:
        name = f"{band['band']} ({band['share_of_items']:.1%} of items, {band['share_of_events']:.1%} of events)"
        shared = f"{band['colliding_share']:.1%}, {band['first_codes_used']:,}"
        yield ("popularity", f"{name}: share a code, first codes in use"), shared if band["items"] else "none"


def _fitted(report: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """The numbers and texts that a tokenizer reports of its fitting."""
    for key, value in report.items():
        if key in _LEFT_OUT:
            continue
        if isinstance(value, float):
            yield ("fitted", key.replace("_", " ")), f"{value:.4g}"
        elif isinstance(value, int | str):
            yield ("fitted", key.replace("_", " ")), f"{value:,}" if isinstance(value, int) else value


def _agreement(
    section: str, what: str, agreement: Mapping[str, Iterable[float]]
) -> Iterator[tuple[tuple[str, str], str]]:
    for length, (share, chance) in enumerate(zip(agreement["same_prefix"], agreement["by_chance"], strict=True), 1):
        yield (section, f"{what}: share {_count(length)}"), f"{share:.1%} (by chance {chance:.1%})"


def _count(codes: int) -> str:
    return "1 code" if codes == 1 else f"{codes} codes"
