"""Scores a file of rankings that were made elsewhere, under a suite's dataset, protocol and metrics; the result is a
row of the suite's tables without costs, marked as external."""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.cache import cache_folder
from grbench.errors import GRBenchError, PluginError, RunError, SuiteError, cut, first_line
from grbench.evaluation.filters import filtered_candidates
from grbench.evaluation.scoring import check_metrics, score_lists
from grbench.ranking_files.formats import format_of, read_given_lists
from grbench.ranking_files.given_ranking import given_ranking
from grbench.ranking_files.id_rows import IdRows
from grbench.registry.discovery import Registry
from grbench.registry.options import suggestion
from grbench.report.format import counted, label_of, number
from grbench.results.facts import dataset_facts, metric_facts, protocol_facts
from grbench.results.identity import cell_digest, external_identity, lists_digest, training_digest
from grbench.results.lists import lists_table
from grbench.results.record import Record, now
from grbench.results.record_files import ranking_path, read_records, record_path, write_record
from grbench.results.values import with_values
from grbench.run.data_counts import data_counts
from grbench.run.open_data import OpenData, open_data, reporting_to
from grbench.suite.suite import Cell, Suite, load_suite
from grbench.types import FILTERS, Ranking

if TYPE_CHECKING:
    from grbench.run.progress import PlainProgress

LONGEST_NAME = 100
READ_BYTES = 1 << 24


@dataclass(frozen=True)
class ScoreRequest:
    """What `grbench score` was asked for. name: of the row; filters: that the lists keep to, None = those of the
    suite's `defaults`; note: how the lists were made; empty_if_missing: users without a list count as missed."""

    lists: Path
    suite: str | Path
    name: str
    form: str | None = None
    seed: int = 0
    note: str = ""
    filters: Sequence[str] | None = None
    empty_if_missing: bool = False
    overrides: Sequence[str] = ()
    results: Path = Path("results")
    cache: Path | None = None


def score_file(request: ScoreRequest, progress: PlainProgress) -> Record:
    """The record of the file's lists, which is written by then, in place of an earlier one of the same name and seed.

    Raises GRBenchError, and writes nothing, where the suite or the file is wrong or they do not fit each other.
    """
    registry = Registry.load(signature_cache=cache_folder(request.cache))
    suite = load_suite(request.suite, request.overrides)
    form, filters = format_of(request.lists, request.form), _filters(request, suite)
    _check_name(request.name, suite)
    cell = replace(suite.cells(registry)[0], seed=request.seed)
    if cell.error is not None:
        raise PluginError(f"{suite.path}: {cell.error}")
    progress.plan([None])
    progress.start(f"{request.lists.name} as {request.name}", 0)
    report, started = reporting_to(progress), now()
    data = open_data(cell.dataset, cell.protocol, registry, cache=request.cache, report=report)
    metrics = [registry.build("metrics", each) for each in cell.metrics]
    filtered_candidates(data.split, cell.list_length, filters)
    check_metrics(metrics, data.split, cell.list_length)
    catalogue = data.store.catalogue
    given = read_given_lists(
        request.lists,
        form,
        IdRows(catalogue.user_ids, "user", first_row=0),
        IdRows(catalogue.item_ids[1:], "item", first_row=1),
        report,
    )
    content = _hash(request.lists)
    kept_length = min(max(cell.keep_lists or 0, cell.list_length), max(int(given.lengths.max()), cell.list_length))
    found = given_ranking(
        given,
        data.split,
        request.lists,
        length=kept_length,
        filters=filters,
        empty_if_missing=request.empty_if_missing,
        report=report,
    )
    scored = found.ranking.cut(cell.list_length)
    kept = found.ranking if kept_length > cell.list_length else None
    try:
        values = score_lists(metrics, [each.options.get("k") for each in cell.metrics], cell.list_length, scored, kept)
    except GRBenchError:
        raise
    except Exception as error:
        raise RunError(f"a metric failed: {type(error).__name__}: {first_line(error)}") from error
    identity = external_identity(cell, registry, data.digest, content=content, filters=filters)
    record = replace(
        _blank(request, suite, cell, registry, data=data, identity=identity),
        status="ok",
        scores={name: float(each.mean()) for name, each in values.items()},
        lists=_list_facts(scored, kept),
        counts=data_counts(data.store, data.split, filters),
        external={
            "file": request.lists.name,
            "format": form,
            "sha256": content,
            "note": request.note,
            "by": _user(),
            "ordered_by": "the file's order" if given.scores is None else "scores",
            "users_not_evaluated": found.not_evaluated,
            "users_without_list": found.missing,
        },
        started=started,
        finished=now(),
    )
    table = with_values(lists_table(scored, catalogue.user_ids, catalogue.item_ids, kept), values)
    folder = request.results / suite.name
    write_record(folder, record, table)
    _remove_former(folder, record, progress)
    _say(record, progress)
    return record


def _blank(
    request: ScoreRequest, suite: Suite, cell: Cell, registry: Registry, *, data: OpenData, identity: dict[str, Any]
) -> Record:
    """What of the record does not depend on the lists' content beyond its hash."""
    return Record(
        digest=cell_digest(identity),
        suite=suite.name,
        method=request.name,
        seed=request.seed,
        status="error",
        training_digest=training_digest(identity),
        lists_digest=lists_digest(identity),
        order=len(suite.methods),
        identity=identity,
        dataset=dataset_facts(cell.dataset, data.digest),
        protocol=protocol_facts(cell.protocol),
        metrics=metric_facts(registry, cell.metrics, identity["metrics"]),
        pool={"size": len(data.split.candidates), "digest": data.split.pool_digest},
        title=suite.title,
        baseline=suite.baseline,
    )


def _filters(request: ScoreRequest, suite: Suite) -> tuple[str, ...]:
    """The request's filters, else those of the suite's defaults, each once."""
    filters = suite.defaults.get("filters") or () if request.filters is None else request.filters
    for name in filters:
        if name not in FILTERS:
            raise SuiteError(f"--filter {cut(str(name))}: unknown filter; {suggestion(str(name), FILTERS)}")
    return tuple(dict.fromkeys(filters))


def _check_name(name: str, suite: Suite) -> None:
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise SuiteError(
            f"--name {cut(name)!r}: should be 1 to {LONGEST_NAME} printable characters, without spaces around"
        )
    if name in suite.methods or name in suite.grids:
        raise SuiteError(f"--name {cut(name)}: is a method of {suite.path}; give the external row another name")


def _list_facts(scored: Ranking, kept: Ranking | None) -> dict[str, int | None]:
    facts: dict[str, int | None] = {"scored": scored.items.shape[1], "shortest": _shortest(scored), "kept": None}
    if kept is not None:
        facts |= {"kept": kept.items.shape[1], "kept_shortest": _shortest(kept)}
    return facts


def _shortest(ranking: Ranking) -> int:
    """The fewest items in one of the lists."""
    return int((ranking.items > 0).sum(axis=1).min(initial=ranking.items.shape[1]))


def _hash(path: Path) -> str:
    """sha256 of the file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _user() -> str:
    """The name of the user who runs this, as far as the system knows one."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user in a container; OSError since Python 3.13
        return "unknown"


def _remove_former(folder: Path, record: Record, progress: PlainProgress) -> None:
    """Removes the external records of the same name and seed whose place this one takes."""
    for former in read_records([folder], note=lambda _: None):
        same = former.external and (former.method, former.seed) == (record.method, record.seed)
        if same and former.digest != record.digest and former.folder == folder:
            progress.say(f"note: takes the place of the former {record.method}, seed {record.seed} ({former.digest})")
            record_path(folder, former.digest).unlink(missing_ok=True)
            ranking_path(folder, former.digest).unlink(missing_ok=True)


def _say(record: Record, progress: PlainProgress) -> None:
    facts = record.external or {}
    if facts["users_not_evaluated"]:
        progress.say(f"note: lists of {facts['users_not_evaluated']:,} users who are not evaluated were left out")
    if facts["users_without_list"]:
        progress.say(f"note: {facts['users_without_list']:,} evaluated users have no list and count as missed")
    values = ", ".join(
        f"{record.metrics[name].get('label') or label_of(name)} {number(value)}"
        for name, value in record.scores.items()
    )
    evaluated = counted(int(record.counts.get("evaluated", 0)), "user")
    progress.end(f"{record.method}, seed {record.seed}: {values} ({evaluated})", 0.0)
