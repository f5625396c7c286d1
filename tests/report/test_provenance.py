"""Costs of cells beside which others ran are marked, and never averaged with those of cells that ran alone."""

from __future__ import annotations

from typing import Any

from records import MACHINE, a_record

from grbench.report.render import as_csv, latex, markdown
from grbench.report.table import tables
from grbench.results.record import Record


def beside(method: str, seed: int, cells: int, seconds: float, share: float = 0.5) -> Record:
    record = a_record(method, seed, 0.1)
    cost = record.cost | {"train_seconds": seconds, "beside": {"cells": cells, "share": share, "threads": 2}}
    return a_record(method, seed, 0.1, cost=cost)


def texts(table: Any, row: int) -> dict[str, str]:
    return {column.title: cell.text + cell.mark for column, cell in zip(table.columns, table.rows[row], strict=True)}


def test_costs_beside_others_are_marked_and_left_out_where_a_seed_ran_alone() -> None:
    (table,) = tables(
        [
            *[beside("alone", seed, 0, 60.0, 0.0) for seed in (0, 1)],
            *[beside("crowded", seed, 2, 120.0) for seed in (0, 1)],
            *[beside("partly", 0, 0, 60.0, 0.0), beside("partly", 1, 1, 600.0, 0.25)],
        ]
    )
    assert [texts(table, row)["train min"] for row in range(3)] == ["1.00", "2.00‖", "1.00"]
    assert [texts(table, row)["p99 ms"] for row in range(3)] == ["0.500", "0.500‖", "0.500"]
    assert [texts(table, row)["RAM GiB"] for row in range(3)] == ["3.00"] * 3  # others do not change it
    assert [row["train_seconds"] for row in table.values] == [60.0, 120.0, 60.0]
    assert [row["ran_beside"] for row in table.values] == [False, True, False]
    said = "\n".join(table.footer)
    assert "up to 2 other cells ran on the machine, for 25% to 50% of the cell's time" in said
    assert "Costs are of the seeds that ran alone: partly (1 of 2)" in said
    assert "2.00‖" in markdown([table])
    assert r"2.00\rlap{$\parallel$}" in latex([table])
    assert "‖" not in latex([table])
    assert "ran_beside" in as_csv([table]).splitlines()[0]


def test_where_all_ran_alone_or_it_is_not_known_nothing_is_said() -> None:
    (table,) = tables([beside("alone", 0, 0, 60.0), a_record("older", 0, 0.1)])
    assert "‖" not in markdown([table])
    assert "ran alone" not in markdown([table])


def test_versions_and_threads_that_differ_are_said() -> None:
    newer = MACHINE | {"torch": "2.13.0", "numpy": "2.1", "torch_threads": 2}
    older = MACHINE | {"torch": "2.10.0", "numpy": "2.1", "torch_threads": 1, "faiss": "1.14"}
    (table,) = tables([a_record("a", 0, 0.1, environment=newer), a_record("b", 0, 0.1, environment=older)])
    (line,) = [line for line in table.footer if line.startswith("Differ within this table")]
    assert line == "Differ within this table: torch 2.13.0 (a), 2.10.0 (b); threads 2 (a), 1 (b)"
    (table,) = tables([a_record("a", 0, 0.1, environment=newer), a_record("b", 0, 0.1, environment=newer)])
    assert not any(line.startswith("Differ") for line in table.footer)
