"""Verifying records with the suite that they are of: metrics computed again from the lists, and cells run again."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grbench.cache import cache_folder
from grbench.errors import DataError, GRBenchError, RunError, SuiteError
from grbench.evaluation.scoring import score_lists
from grbench.registry.discovery import Registry
from grbench.report.format import counted
from grbench.results.lists import rankings_from, read_lists
from grbench.results.places import places_of, shows_scores
from grbench.results.record import Record
from grbench.results.record_files import ranking_path
from grbench.results.values import read_values
from grbench.results.verify import NOT_SHOWN, ROUNDING
from grbench.run.data_source import build_dataset
from grbench.run.plan import Plan, make_plan
from grbench.run.prepare import split_store
from grbench.run.run_request import RunRequest
from grbench.run.run_suite import run_suite
from grbench.suite.suite import load_suite
from grbench.temporary import temporary_folder

if TYPE_CHECKING:
    from rich.console import Console

    from grbench.data.split import Split

SAME_MACHINE = ("device", "cpu", "cpu_threads", "torch_threads", "gpu", "cuda", "torch", "numpy", "faiss")
"""What of the environment must be equal for numbers to be equal to the last digit."""

TOLERANCE = 0.05
"""Share by which a score may differ where the environment does: training then rounds otherwise, and ends elsewhere."""


@dataclass(frozen=True)
class RerunRequest:
    """suite: a file, or an installed suite's name; number: of cells to run again, chosen by `seed`; tolerance: the
    share by which scores may differ where the environment does."""

    suite: str
    overrides: Sequence[str] = ()
    number: int = 0
    seed: int = 0
    tolerance: float = TOLERANCE
    device: str = "auto"
    cache: Path | None = None


class SuiteCells:
    """The cells of a suite as it is now, to which records belong by their digests; those of tuned methods with the
    values that the records say were chosen. Raises GRBenchError where the suite
    is invalid or its data are missing."""

    def __init__(self, request: RerunRequest, records: Sequence[Record] = ()) -> None:
        self._request = request
        self._registry = Registry.load(signature_cache=cache_folder(request.cache))
        suite = load_suite(request.suite, request.overrides)
        cells = suite.cells(self._registry)
        self._tuned = frozenset(suite.spaces(self._registry, cells))
        kept = [cell for cell in cells if cell.method.name not in self._tuned]
        for method, values in _choices(records, self._tuned):
            with contextlib.suppress(SuiteError):  # values of an earlier suite: the record is none of its cells
                kept += [suite.tuned_cell(self._registry, cell, values) for cell in cells if cell.method.name == method]
        with temporary_folder() as nothing:
            self._plan: Plan = make_plan(suite, kept or cells, self._registry, nothing, cache=request.cache)
        self._cells = {planned.blank.digest: planned.cell for planned in self._plan.cells if kept}
        self._split: Split | None = None

    def __contains__(self, record: Record) -> bool:
        return record.digest in self._cells

    def prepare(self) -> str | None:
        """Opens the data for `score_problems`; returns why that cannot be, None where it can."""
        from grbench.data.store import Store
        from grbench.run.shared_store import ready_store

        cell, cache = self._plan.cells[0].cell, cache_folder(self._request.cache)
        if cell.error:
            return cell.error
        try:
            source = build_dataset(self._registry, cell.dataset, cache=cache)
            digest = self._plan.dataset_digest
            folder = ready_store(source, cell.dataset, self._registry, cache=cache, digest=digest)
            if folder is None:
                raise DataError(f"{cache} has no store of them; `grbench data prepare` makes it")
            self._split = split_store(Store.open(folder), cell.protocol, self._registry)
        except GRBenchError as error:
            return f"metrics were not computed from the lists, because the data are not prepared here: {error}"
        return None

    def score_problems(self, record: Record) -> list[str]:
        """Values of single users that are not those that the metrics give for the lists. Only after `prepare`."""
        assert record.folder is not None
        assert self._split is not None
        cell, path = self._cells[record.digest], ranking_path(record.folder, record.digest)
        try:
            scored, kept = rankings_from(read_lists(path), self._split, path)
            metrics = [self._registry.build("metrics", metric) for metric in cell.metrics]
            cutoffs = [metric.options.get("k") for metric in cell.metrics]
            made = score_lists(metrics, cutoffs, cell.list_length, scored, kept)
            _, stored = read_values(path, list(made)) or ([], {})
        except GRBenchError as error:
            return [str(error)]
        shown = shows_scores(record)
        return [
            f"{path}: {name}: the metric gives other values for these lists"
            + (f" (mean {float(values.mean())})" if shown else f"; {NOT_SHOWN}")
            for name, values in made.items()
            if name in stored and not np.allclose(values, stored[name], rtol=ROUNDING, atol=ROUNDING)
        ]

    def rerun(self, records: Sequence[Record], console: Console) -> dict[str, list[str]]:
        """Runs some of the records' cells again, in a temporary folder. -> {digest: what differs}, of those that were
        run. Raises RunError where none of the records is a cell of the suite, and what `run_suite` raises."""
        mine = {record.digest: record for record in records if record in self and record.status == "ok"}
        able = {digest: record for digest, record in mine.items() if record.rescored_from is None}
        tuned = [digest for digest, record in able.items() if self._is_tuned(record)]
        for digest in tuned:  # with other values than the suite's, which its search would have to find again
            del able[digest]
        if tuned:
            console.print(
                f"note: {counted(len(tuned), 'record')} of tuned methods cannot be rerun: their options are not in the "
                "suite, and a search for them anew would be another experiment"
            )
        if not able:
            raise RunError(
                f"--rerun: none of the successful records is of a cell of {self._plan.suite.path} as it is now: "
                "options, sources or data have changed since, the cell was re-scored, or its method is tuned"
            )
        request = self._request
        chosen = random.Random(request.seed).sample(sorted(able), min(request.number, len(able)))
        with temporary_folder() as place:
            outcome = run_suite(
                RunRequest(
                    suite=request.suite,
                    overrides=request.overrides,
                    device=request.device,
                    results=place,
                    cache=request.cache,
                    digests=frozenset(chosen),
                ),
                console,
            )
            if not outcome.records:
                raise KeyboardInterrupt
            return {again.digest: self._differences(able[again.digest], again) for again in outcome.records}

    def _is_tuned(self, record: Record) -> bool:
        """Whether all methods of the record are tuned."""
        return all(place["method"] in self._tuned for place in places_of(record))

    def _differences(self, record: Record, again: Record) -> list[str]:
        where = f"{record.folder}/{record.digest}.json"
        if again.status != "ok":
            message = (again.error or {}).get("message", "").partition("\n")[0]
            return [f"{where}: run again, the cell ended with {again.status}: {message}"]
        pairs = [(name, score, again.scores.get(name)) for name, score in record.scores.items()]
        shown = shows_scores(record)

        def said(score: float | None, other: float | None) -> str:
            return f"is {score}, run again {other}" if shown else f"is another when run again ({NOT_SHOWN})"

        changed = [
            f"{key} {record.environment.get(key)} -> {again.environment.get(key)}"
            for key in SAME_MACHINE
            if record.environment.get(key) != again.environment.get(key)
        ]
        if changed:
            share, why = self._request.tolerance, "; ".join(changed)
            return [
                f"{where}: {name}: {said(score, other)}, which is more than {share:.1%} off ({why})"
                for name, score, other in pairs
                if score is None or other is None or abs(score - other) > share * max(abs(score), abs(other))
            ]
        problems = [f"{where}: {name}: {said(score, other)}" for name, score, other in pairs if score != other]
        if not problems and not _equal_lists(record, again):
            problems.append(f"{where}: the scores are the same when run again, but not the lists")
        return problems


def _choices(records: Sequence[Record], tuned: Collection[str]) -> list[tuple[str, dict[str, Any]]]:
    """(tuned method, values that were chosen) of the records, each once."""
    found = {
        (place["method"], json.dumps(place["tuning"]["values"], sort_keys=True)): place["tuning"]["values"]
        for record in records
        for place in places_of(record)
        if place["tuning"] and place["method"] in tuned
    }
    return [(method, values) for (method, _), values in found.items() if values]


def _equal_lists(record: Record, again: Record) -> bool:
    assert record.folder is not None
    assert again.folder is not None
    first, second = (read_lists(ranking_path(each.folder, each.digest)) for each in (record, again) if each.folder)
    return bool(first.equals(second))
