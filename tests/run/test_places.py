"""Methods with the same options are one experiment: it is run once, and its record has the names of all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tiny_suite import run, suite_of

from grbench.cli import main
from grbench.registry.discovery import Registry
from grbench.report.table import tables
from grbench.results.places import places_of
from grbench.results.record import Record
from grbench.results.record_files import read_records, write_record
from grbench.run.places import with_present_places
from grbench.run.plan import Plan, make_plan
from grbench.suite.suite import load_suite

SMALL = (
    "{encoder: {name: causal_transformer, width: 8, heads: 1, blocks: 1}, loss: full_softmax, "
    "training: {epochs: 1, validate_every: 1, select: hit_rate@2}}"
)
GRID = "wider: {extends: small, grid: {encoder.width: [8, 16]}}"


def names_on_disk() -> list[list[str]]:
    """The methods of each record."""
    return [[place["method"] for place in places_of(record)] for record in read_records([Path("results")])]


def shown(records: list[Record]) -> tuple[list[str], list[list[str]], str]:
    """(methods, their scores' texts, notes on the grid) of the only table."""
    (table,) = tables(records)
    notes = [line for line in table.footer if line.startswith("Grid wider")]
    return [row[0].text for row in table.rows], [[each.text for each in row[:3]] for row in table.rows], "".join(notes)


def test_a_method_that_is_a_row_of_a_grid_too_is_a_row_of_its_own(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = suite_of(world, f"small: {SMALL}", GRID)
    outcome, said = run(suite)
    assert "wider[width=8], seed 0: the same experiment as small, seed 0; run once" in said
    assert names_on_disk() == [["small", "wider[width=8]"], ["wider[width=16]"]]
    methods, scores, note = shown(read_records([Path("results")]))
    assert methods == ["small", "wider[width=8]", "wider[width=16]"]
    assert "is chosen of 2 rows" in note
    assert (methods, scores, note) == shown(outcome.records)
    # The method is compared under its own name, whether or not the grid chose the row that equals it.
    hidden = next(name for name in methods[1:] if f"{name} is chosen" not in note)
    assert main(["compare", "small", hidden, "--results", "results"]) == 2
    assert f"{hidden} is a row of a grid that was not chosen" in capsys.readouterr().err
    # Re-scoring keeps the names.
    assert main(["rescore", "results", "--metric", "ndcg@2"]) == 0
    assert names_on_disk() == [["small", "wider[width=8]"], ["wider[width=16]"]]


def test_names_that_a_suite_gains_and_loses_reach_the_records(world: Path) -> None:
    registry = Registry.load()

    def planned(*only: str) -> Plan:
        suite = load_suite(world / "suite.yaml")
        return make_plan(suite, suite.cells(registry, only=only or None), registry, Path("results"))

    def run_anew(plan: Plan) -> None:
        """As a run that ends the first cell, or finds it done."""
        cell = plan.cells[0]
        if cell.finished and cell.former is not None:
            with_present_places(plan.folder, cell.blank, cell.former)
        else:
            write_record(plan.folder, replace(cell.blank, status="ok"), pa.table({"user": [1]}))

    suite_of(world, f"small: {SMALL}", GRID)
    run_anew(planned("wider[width=8]"))
    assert names_on_disk() == [["wider[width=8]"]]
    run_anew(planned())
    assert names_on_disk() == [["wider[width=8]", "small"]]
    assert shown(read_records([Path("results")]))[0] == ["small", "wider[width=8]"]
    alone = planned("small")  # of the others, which are not planned, the record keeps the names
    assert [place["method"] for place in places_of(alone.cells[0].blank)] == ["small", "wider[width=8]"]
    run_anew(alone)
    assert names_on_disk() == [["wider[width=8]", "small"]]
    suite_of(world, f"renamed: {SMALL}", GRID.replace("small", "renamed"))
    run_anew(planned())
    assert names_on_disk() == [["wider[width=8]", "renamed"]]
    suite_of(world, f"renamed: {SMALL}")
    run_anew(planned())
    assert names_on_disk() == [["renamed"]]
