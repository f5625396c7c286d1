"""Computes further metrics and slices of finished records from their kept lists, in place; nothing is trained or
searched for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.cache import cache_folder
from grbench.errors import DataError, GRBenchError, RunError, SuiteError, cut, first_line
from grbench.evaluation.scoring import check_metrics, score_lists
from grbench.registry.component import Component
from grbench.registry.discovery import BrokenPluginError, Registry
from grbench.report.format import counted, duration, label_of, number
from grbench.results.claims import Claim, claim
from grbench.results.facts import dataset_digest, metric_facts
from grbench.results.identity import cell_digest, data_identity, longest_cutoff, metric_identities
from grbench.results.integrity import altered_lists
from grbench.results.lists import rankings_from, read_lists
from grbench.results.places import shows_scores
from grbench.results.record import Record, now
from grbench.results.record_files import newest, ranking_path, read_records, record_path, write_in_place
from grbench.results.slices import with_slice
from grbench.results.values import with_further_values
from grbench.run.label_users import label_users
from grbench.run.open_data import OpenData, open_data, reporting_to
from grbench.suite.file import parse_yaml, set_value
from grbench.suite.method import bind_component
from grbench.suite.slices import bind_slices
from grbench.suite.suite import expand_cutoff

if TYPE_CHECKING:
    from grbench.run.progress import PlainProgress


@dataclass(frozen=True)
class RescoreRequest:
    """What `grbench rescore` was asked for. results: folders and record files; metrics, slices: as in a suite, in YAML;
    overrides: `dataset.KEY=VALUE`, for data that have moved since."""

    results: Sequence[Path]
    metrics: Sequence[str] = ()
    overrides: Sequence[str] = ()
    cache: Path | None = None
    slices: Sequence[str] = ()


@dataclass(frozen=True)
class FurtherMetrics:
    """The metrics to compute. facts, identities: what a record says of them; all in the same order."""

    components: tuple[Component, ...]
    facts: Mapping[str, dict[str, Any]]
    identities: Sequence[dict[str, Any]]

    @property
    def cutoffs(self) -> list[int | None]:
        """Each metric's k, None where it has none."""
        return [component.options.get("k") for component in self.components]


Slices = Sequence[tuple[Component, str]]
"""Slices with their names."""


@dataclass(frozen=True)
class ToDo:
    """A record, the metrics that it lacks, and the slices that are written anew: they may be of another version."""

    record: Record
    metrics: FurtherMetrics
    slices: Slices


@dataclass(frozen=True)
class Rescored:
    """records: those that have the metrics and slices now, with their folders; already: how many of them had all
    before; refused: a line for each record that cannot have them, with the reason."""

    records: list[Record]
    already: int
    refused: list[str]


def rescore(request: RescoreRequest, progress: PlainProgress) -> Rescored:
    """Scores every finished record in the folders; of several records of the same lists in one folder, the newest.

    Raises GRBenchError where the request is wrong, and RunError where no record can have the metrics.
    """
    registry = Registry.load(signature_cache=cache_folder(request.cache))
    metrics = further_metrics(request.metrics, registry)
    slices = further_slices(request.slices, registry)
    overrides = [_override(text) for text in request.overrides]
    refused, to_do, done = list[str](), list[ToDo](), list[Record]()
    found = read_records(
        request.results,
        note=lambda text: progress.say(f"note: {text}"),
        altered=lambda _, error: refused.append(str(error)),
    )
    finished = _finished(found)
    if not finished and not refused:
        raise RunError(f"{', '.join(map(str, request.results))}: there is no finished record; grbench run writes them")
    for record in finished:
        missing = ToDo(record, _missing(record, metrics), slices)
        if not missing.metrics.components and not missing.slices:
            done.append(record)
        elif problem := why_not(record, missing.metrics):
            refused.append(f"{_name(record)}: {problem}")
        else:
            to_do.append(missing)
    already = len(done)
    progress.plan([None] * len(to_do))
    position = 0
    for group in _by_data(to_do):
        names = f"{counted(len(group), 'record')} of {group[0].record.suite}"
        progress.start(f"preparing the data of {names}", position)
        try:
            data = _data_of([each.record for each in group], overrides, registry, request.cache, progress)
            built = _checked_metrics(metrics, data, registry)
        except GRBenchError as error:
            refused.append(f"{names}: {error}")
            continue
        for each in group:
            record = each.record
            heading, began = f"[{position + 1}/{len(to_do)}] {_name(record)}", time.monotonic()
            progress.start(heading, position)
            progress.tick()
            position += 1
            try:
                got = claim(_folder(record), record.digest)
                if not isinstance(got, Claim):
                    raise RunError(f"{got.where} is running this cell; score it again once it has ended")
                with got:
                    scored = rescore_record(each, data, built, registry)
            except GRBenchError as error:
                refused.append(f"{_name(record)}: {error}")
                continue
            seconds = time.monotonic() - began
            values = [_score_text(scored, name) for name in each.metrics.facts]
            values += [f"groups by {', '.join(name for _, name in each.slices)}"] * bool(each.slices)
            progress.end(f"{heading}: {', '.join(values)} ({duration(seconds)})", seconds)
            done.append(scored)
    if not done:
        raise RunError("\n".join(refused))
    return Rescored(done, already, refused)


def further_metrics(texts: Sequence[str], registry: Registry) -> FurtherMetrics:
    """texts: as in a suite's `metrics`, such as `ndcg@10` or `{name: novelty, k: 10, by: events}`. Raises SuiteError
    and PluginError where they are wrong."""
    components = list[Component]()
    for text in texts:
        where, broken = f"--metric {cut(text)}", list[str]()
        component = bind_component(registry, "metrics", expand_cutoff(parse_yaml(text, where), where), where, broken)
        if broken:
            raise BrokenPluginError(broken[0])
        if component in components:
            raise SuiteError(f"{where}: is given twice")
        components.append(component)
    identities = metric_identities(registry, components)
    facts = metric_facts(registry, components, identities)
    if len(facts) < len(components):
        raise SuiteError("--metric: two of the metrics have the same name")
    return FurtherMetrics(tuple(components), facts, identities)


def further_slices(texts: Sequence[str], registry: Registry) -> Slices:
    """texts: as in a suite's `slices`, such as `gap` or `{name: popularity, head: .5}`. Raises
    SuiteError and PluginError where they are wrong."""
    given, broken = [parse_yaml(text, f"--slice {cut(text)}") for text in texts], list[str]()
    components = bind_slices(registry, given, "--slice", broken)
    if broken:
        raise BrokenPluginError(broken[0])
    return [(component, str(registry.build("slices", component).name)) for component in components]


def rescore_record(to_do: ToDo, data: OpenData, built: Mapping[str, Any], registry: Registry) -> Record:
    """The record with these metrics and slices too, which is in the former one's place by then, as its lists with the
    users' values are. built: the metrics by name, which may keep what they have computed of the data. Raises RunError
    where the lists cannot be read or are of other data, and where a metric or a slice fails."""
    record, metrics = to_do.record, to_do.metrics
    folder = _folder(record)
    path = ranking_path(folder, record.digest)
    table = read_lists(path)
    scored, kept = rankings_from(table, data.split, path)
    identity = with_metrics(record, metrics)
    chosen = [built[name] for name in metrics.facts]
    try:
        values = score_lists(chosen, metrics.cutoffs, longest_cutoff(identity["metrics"]), scored, kept)
    except GRBenchError:
        raise
    except Exception as error:
        raise RunError(f"a metric failed: {type(error).__name__}: {first_line(error)}") from error
    groups, failed = label_users([component for component, _ in to_do.slices], scored, registry)
    if failed:
        name, reason = next(iter(failed.items()))
        raise RunError(f"the slice {name} failed: {reason}")
    table = with_further_values(table, values)
    for name, grouping in groups.items():
        table = with_slice(table, name, grouping)
    scores = {name: float(each.mean()) for name, each in values.items()}
    again = replace(
        record,
        digest=cell_digest(identity),
        identity=identity,
        metrics={**record.metrics, **metrics.facts},
        scores={**record.scores, **scores},
        finished=now(),
    )
    write_in_place(folder, record, again, table)
    return again


def with_metrics(record: Record, metrics: FurtherMetrics) -> dict[str, Any]:
    """The record's identity with these metrics too: in place of the former one of the same name, else at the end."""
    described = dict(zip(record.metrics, record.identity["metrics"], strict=True))
    described |= dict(zip(metrics.facts, metrics.identities, strict=True))
    return {**record.identity, "metrics": list(described.values())}


def _finished(records: Sequence[Record]) -> list[Record]:
    """The newest record of each cell in each folder, of those with scores."""
    folders = dict.fromkeys(record.folder for record in records)
    of_folders = [newest(record for record in records if record.folder == folder) for folder in folders]
    return [record for found in of_folders for record in found if record.status == "ok"]


def _missing(record: Record, metrics: FurtherMetrics) -> FurtherMetrics:
    """Those of the metrics that the record does not have in this version."""
    missing = [
        (component, name, identity)
        for component, name, identity in zip(metrics.components, metrics.facts, metrics.identities, strict=True)
        if record.metrics.get(name, {}).get("version") != metrics.facts[name]["version"] or name not in record.scores
    ]
    return FurtherMetrics(
        tuple(component for component, _, _ in missing),
        {name: metrics.facts[name] for _, name, _ in missing},
        [identity for _, _, identity in missing],
    )


def why_not(record: Record, metrics: FurtherMetrics) -> str | None:
    """Why the record cannot have these metrics, or further slices, as far as it says so itself."""
    if record.older_identity or len(record.metrics) != len(record.identity.get("metrics", [])):
        return "was written by an earlier grbench; grbench run runs its cell again"
    if record.lists_gone:
        return f"its lists are gone ({ranking_path(_folder(record), record.digest)}); grbench run runs its cell again"
    if altered := altered_lists(record):
        return f"{altered}; grbench run runs its cell again"
    if not record_path(_folder(record), record.digest).is_file():
        return f"its file was renamed; it should be {record.digest}.json"
    for (name, _), cutoff in zip(metrics.facts.items(), metrics.cutoffs, strict=True):
        if (cutoff or 1) > record.list_length:
            return (
                f"{name} needs lists of {cutoff}, and the longest kept ones have {record.list_length}; use k up to "
                f"{record.list_length}, or add the metric to the suite and run it"
            )
    return _changed_by_length(record, metrics)


def _changed_by_length(record: Record, metrics: FurtherMetrics) -> str | None:
    """A message where the record has a metric without a cutoff, which lists of another length would change."""
    former = record.identity["metrics"]
    length = longest_cutoff(with_metrics(record, metrics)["metrics"])
    for name, identity in zip(record.metrics, former, strict=True):
        if not identity.get("options", {}).get("k") and length != longest_cutoff(former) and name not in metrics.facts:
            return (
                f"{name} has no cutoff, so that a longer one of another metric changes it; add the new metrics to the "
                "suite and run it"
            )
    return None


def _by_data(to_do: Sequence[ToDo]) -> list[list[ToDo]]:
    """Groups the records by dataset and protocol, so that each store is opened and split once."""
    groups: dict[str, list[ToDo]] = {}
    for each in to_do:
        facts = [each.record.dataset, each.record.protocol]
        groups.setdefault(json.dumps(facts, sort_keys=True), []).append(each)
    return list(groups.values())


def _override(text: str) -> tuple[str, Any, str]:
    """(key, value, where) of `dataset.KEY=VALUE`."""
    key, equals, value = text.partition("=")
    where = f"--set {cut(text, 200)}"
    if not equals or not key.startswith("dataset."):
        raise SuiteError(f"{where}: should be dataset.KEY=VALUE, such as dataset.path=DIR")
    return key, parse_yaml(value, where), where


def _data_of(
    records: Sequence[Record],
    overrides: Sequence[tuple[str, Any, str]],
    registry: Registry,
    cache: Path | None,
    progress: PlainProgress,
) -> OpenData:
    """The data that the records were scored by, which all name the same. Raises DataError where they are not to be
    found or have changed."""
    record = records[0]
    tree: dict[str, Any] = {"dataset": {"name": record.dataset.get("name"), **record.dataset.get("options", {})}}
    for key, value, where in overrides:
        set_value(tree, key, value, where)
    broken: list[str] = []
    dataset = bind_component(registry, "datasets", tree["dataset"], "dataset", broken)
    protocol = bind_component(registry, "protocols", dict(record.protocol), "protocol", broken)
    if broken:
        raise BrokenPluginError(broken[0])
    try:
        data = open_data(dataset, protocol, registry, cache=cache, report=reporting_to(progress))
    except DataError as error:
        raise DataError(f"{error}; where the data have moved, give --set dataset.path=PATH") from error
    if dataset_digest(data.digest) != record.dataset.get("digest"):
        raise DataError(
            f"dataset {dataset.name}: its content is not what these records are of (digest "
            f"{dataset_digest(data.digest)}, and not {record.dataset.get('digest')}); give the right one with --set "
            "dataset.path=PATH"
        )
    pool = {"size": len(data.split.candidates), "digest": data.split.pool_digest}
    if record.pool != pool:
        raise DataError(f"protocol {protocol.name}: gives other candidates than these records are of; run the suite")
    here = data_identity(registry, dataset, protocol, data.digest)
    if older := sum(any(each.identity["training"].get(key) != here[key] for key in here) for each in records):
        progress.say(
            f"note: {counted(older, 'record')} of {record.suite}: of other versions of dataset, protocol or grbench; "
            "grbench run runs their cells again"
        )
    return data


def _checked_metrics(metrics: FurtherMetrics, data: OpenData, registry: Registry) -> dict[str, Any]:
    """{name: metric}; raises RunError or what the metrics raise where one of them does not fit the dataset."""
    built = {
        name: registry.build("metrics", component)
        for name, component in zip(metrics.facts, metrics.components, strict=True)
    }
    try:
        check_metrics([*built.values()], data.split, longest_cutoff(metrics.identities))
    except GRBenchError:
        raise
    except Exception as error:
        raise RunError(f"a metric failed: {type(error).__name__}: {first_line(error)}") from error
    return built


def _score_text(record: Record, name: str) -> str:
    if not shows_scores(record):
        return f"{record.metrics[name].get('label') or label_of(name)} of a row of a grid"
    return f"{record.metrics[name].get('label') or label_of(name)} {number(record.scores[name])}"


def _name(record: Record) -> str:
    return f"{record.method}, seed {record.seed}"


def _folder(record: Record) -> Path:
    assert record.folder is not None  # all records were read from files
    return record.folder
