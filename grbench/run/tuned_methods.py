"""The methods of a suite whose options are tuned: their searches, and the plan with what these have chosen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grbench.errors import SuiteError
from grbench.registry.discovery import Registry
from grbench.report.format import counted, duration, label_of, number
from grbench.results.cell_files import cells_in
from grbench.results.facts import short_hash
from grbench.results.identity import cell_identity
from grbench.results.places import places_of
from grbench.results.record import TRIALS
from grbench.run.plan import Plan, PlannedCell, make_plan
from grbench.suite.suite import Cell, Suite
from grbench.suite.tuning import Space, Tuning
from grbench.tuning.search import Search, values_text

EXAMPLES = 1_000
"""Combinations of a space's values of which one has to be valid, so that its search has a name."""


@dataclass(frozen=True)
class TunedMethod:
    """A method whose options are tuned. planned: its cell with the suite's first seed, with which its trials are
    trained, and with its own options; metric: of validation, by which trials are compared."""

    planned: PlannedCell
    metric: str
    search: Search

    @property
    def name(self) -> str:
        """Of the method."""
        return self.planned.cell.method.name

    @property
    def stage(self) -> str:
        """The name of the training stage that ends in the state that is compared."""
        return self.planned.cell.method.stages[-1].name

    def score_text(self, value: float | None) -> str:
        """`validation NDCG@10 .0512`"""
        label = self.planned.blank.metrics[self.metric].get("label") or label_of(self.metric)
        return f"validation {label} {number(value)}"


def tuned_methods(plan: Plan, registry: Registry) -> list[TunedMethod]:
    """The methods of the plan whose options the suite tunes, and that can run."""
    suite, tuning = plan.suite, plan.suite.tuning
    if tuning is None:
        return []
    spaces = suite.spaces(registry, [planned.cell for planned in plan.cells])
    found = []
    for planned in plan.cells:
        name = planned.cell.method.name
        if name not in spaces or planned.cell.seed != suite.seeds[0]:
            continue
        metric = tuning.metric_of(planned.cell.method)
        search = Search(
            trials_folder(plan),
            _study_name(plan, planned, spaces[name], registry, metric),
            spaces[name],
            tuning,
            higher_is_better=bool(planned.blank.metrics[metric]["higher_is_better"]),
        )
        found.append(TunedMethod(planned, metric, search))
    return found


def trials_folder(plan: Plan) -> Path:
    """Of the records of trials, beside those of the suite's cells."""
    return plan.folder / TRIALS


def _study_name(plan: Plan, planned: PlannedCell, space: Space, registry: Registry, metric: str) -> str:
    """Stands for all that a trial's value and the order of trials depend on, but for the values that are tried, and for
    the budget: a search with a larger one goes on from the trials there are."""
    tuning: Tuning | None = plan.suite.tuning
    assert tuning is not None
    identity = cell_identity(_example(plan, planned.cell, space, registry), registry, plan.dataset_digest)
    facts = {
        "training": identity["training"],
        "space": {key: values.to_json() for key, values in space.items()},
        "metric": planned.blank.metrics[metric],
        **tuning.facts(),
    }
    return f"{planned.cell.method.name} {short_hash(facts)}"


def _example(plan: Plan, cell: Cell, space: Space, registry: Registry) -> Cell:
    """The cell with values of the space in place of its own: the first of their combinations that the method takes.
    Raises SuiteError as the first one does where none of EXAMPLES does."""
    refused: SuiteError | None = None
    for values in itertools.islice(itertools.product(*(each.examples() for each in space.values())), EXAMPLES):
        try:
            return plan.suite.tuned_cell(registry, cell, dict(zip(space, values, strict=True)))
        except SuiteError as error:
            refused = refused or error
    assert refused is not None  # a space has a key, and each key a value
    raise refused


def plan_with_choices(
    suite: Suite,
    cells: Sequence[Cell],
    registry: Registry,
    results: Path,
    *,
    force: bool = False,
    cache: Path | None = None,
) -> tuple[Plan, list[TunedMethod]]:
    """The plan, with the chosen values in the cells of tuned methods as far as they are known; and these methods.
    Raises what `make_plan` raises, and RunError where the file of the searches is damaged."""
    plan = make_plan(suite, cells, registry, results, force=force, cache=cache)
    tuned = tuned_methods(plan, registry)
    return with_choices(plan, tuned, registry, results, force=force, cache=cache), tuned


def with_choices(
    plan: Plan,
    tuned: Sequence[TunedMethod],
    registry: Registry,
    results: Path,
    *,
    force: bool,
    cache: Path | None = None,
) -> Plan:
    """The plan with the chosen values in the cells of tuned methods; those whose search is not finished await it."""
    if not tuned:
        return plan
    searches = {method.name: method for method in tuned}
    facts = {name: _choice(method) for name, method in searches.items()}
    cells = []
    for planned in plan.cells:
        cell, chosen = planned.cell, facts.get(planned.cell.method.name)
        if chosen is not None and chosen["values"]:
            cell = plan.suite.tuned_cell(registry, cell, chosen["values"])
        elif chosen is not None:
            cell = replace(cell, error=_no_choice(searches[cell.method.name]))
        cells.append(cell)
    return make_plan(plan.suite, cells, registry, results, force=force, tuning=facts, cache=cache)


def _choice(method: TunedMethod) -> dict[str, Any] | None:
    """The search, and the trial that it chose, as a record has them; None where it is not finished."""
    if not method.search.finished:
        return None
    chosen = method.search.chosen
    of_trial: dict[str, Any] = {"values": {}, "number": -1, "validation": None}
    if chosen is not None:
        of_trial = {"values": chosen.values, "number": chosen.number, "validation": chosen.value}
    return {**method.search.facts(), "metric": method.metric, **of_trial}


def _no_choice(method: TunedMethod) -> str:
    failed = [trial for trial in method.search.trials if trial.state == "failed"]
    return (
        f"none of its {counted(len(method.search.trials), 'trial')} was completed ({len(failed)} failed), so no values "
        f"could be chosen; their records are in {method.search.folder}"
    )


def needed_records(plan: Plan, tuned: Sequence[TunedMethod]) -> set[str]:
    """Digests of all records that a suite still has: of its cells and what they are re-scored or re-ranked from, of all
    trials of its searches, of tuned methods whose search is to go on, because it may choose the same values again, and
    of rankings made elsewhere, which no run makes again."""
    needed = {planned.blank.digest for planned in plan.cells}
    needed |= {planned.shown.digest for planned in plan.cells}
    needed |= {planned.source.digest for planned in plan.cells if planned.source is not None}
    needed |= {planned.weights.digest for planned in plan.cells if planned.weights is not None}
    studies = {short_hash(method.search.name) for method in tuned}
    trials = cells_in(trials_folder(plan), plan.suite.name).values()
    needed |= {each.digest for each in trials if each.record and (each.record.trial or {}).get("study") in studies}
    awaiting = {planned.cell.method.name for planned in plan.cells if planned.awaits_tuning}
    cells = cells_in(plan.folder, plan.suite.name).values()
    return needed | {
        each.digest
        for each in cells
        if each.record
        and (
            each.record.external
            or any(place["tuning"] and place["method"] in awaiting for place in places_of(each.record))
        )
    }


def searches_text(tuned: Sequence[TunedMethod]) -> str:
    """A line for each tuned method: what was tried of it, and what was chosen."""
    lines = []
    for method in tuned:
        trials, budget = method.search.trials, method.search.tuning.budget
        ended = [trial for trial in trials if trial.state != "running"]
        whole = f"{budget.trials} trials" if budget.trials else f"{duration(budget.training_seconds)} of training"
        if (chosen := method.search.chosen) is not None:
            said = (
                f"trial {chosen.number + 1} is chosen, {method.score_text(chosen.value)}: {values_text(chosen.values)}"
            )
        elif method.search.finished:
            said = "none was completed"
        else:
            spent = duration(sum(trial.seconds for trial in ended))
            said = f"{len(ended)} done" + ("" if budget.trials else f" in {spent}")
        lines.append(f"tuning {method.name}, {whole}: {said}\n")
    return "".join(lines)
