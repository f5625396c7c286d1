"""Intervals, the best of a column and the baseline, from users' values made by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from records import HIT, MISS, a_record, measured

from grbench.report.format import number
from grbench.report.render import as_csv, latex, markdown
from grbench.report.table import tables


def test_the_interval_of_one_seed_is_over_users(tmp_path: Path) -> None:
    (table,) = tables(measured(tmp_path, "a", [*HIT, *MISS]))
    # 40 users, half of them hit: standard deviation .50637, error .080064; t(.975, 39 degrees) = 2.022691
    assert (table.rows[0][1].text, table.rows[0][1].spread) == (".5000", number(2.022691 * 0.50637 / 40**0.5))
    assert "over users only: there are too few seeds" in "\n".join(table.footer)


def test_without_users_values_there_is_neither_interval_nor_mark() -> None:
    (table,) = tables([a_record("a", 0, 0.1), a_record("a", 1, 0.2), a_record("b", 0, 0.9)])
    assert [(row[1].text, row[1].spread, row[1].best, row[1].mark) for row in table.rows] == [
        (".1500", "", False, ""),
        (".9000", "", False, ""),
    ]
    assert "without the users' values, there is neither interval nor mark" in "\n".join(table.footer)


def test_rows_that_cannot_be_told_from_the_best_share_its_mark(tmp_path: Path) -> None:
    records = measured(tmp_path, "best", [*HIT, *HIT, *MISS], ranks=[1.0, 2.0] * 30)
    records += measured(tmp_path, "close", [*HIT, *HIT[1:], *MISS, 0.0], ranks=[3.0, 4.0] * 30)  # one user fewer
    records += measured(tmp_path, "far", [*MISS, *MISS, *MISS], ranks=[1.0, 2.0] * 30)
    (table,) = tables(records)
    assert [row[1].best for row in table.rows] == [True, True, False]
    assert [row[2].best for row in table.rows] == [True, False, True]  # a smaller rank is better
    assert "bold: the best, and what cannot be told from it" in "\n".join(table.footer)


def test_nothing_is_bold_where_the_best_row_s_users_are_not_known(tmp_path: Path) -> None:
    records = [*measured(tmp_path, "known", [*HIT, *MISS]), a_record("copied", 0, 0.9)]
    (table,) = tables(records)
    assert [row[1].best for row in table.rows] == [False, False]
    assert table.rows[0][1].spread


def test_rows_are_tested_against_the_baseline(tmp_path: Path) -> None:
    records = measured(tmp_path, "floor", [*MISS, *MISS], baseline="floor")
    records += measured(tmp_path, "same", [1.0, *MISS[1:], *MISS], baseline="floor")
    records += measured(tmp_path, "better", [*HIT, *MISS], baseline="floor")
    (table,) = tables(records)
    assert [row[1].mark for row in table.rows] == ["", "°", ""]
    assert "°: cannot be told from floor, the baseline" in "\n".join(table.footer)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(as_csv([table])))}
    assert float(rows["better"]["hit_rate@10 - baseline"]) == pytest.approx(0.5)
    assert float(rows["better"]["hit_rate@10 p"]) < 0.001
    assert float(rows["same"]["hit_rate@10 p"]) > 0.3
    assert rows["floor"]["hit_rate@10 p"] == ""
    for text in (markdown([table]), latex([table])):
        assert "°" in text or r"^\circ" in text


def test_five_seeds_are_enough_for_an_interval_over_seeds_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (table,) = tables(
        measured(tmp_path, "a", *(rng.random((5, 50)) < rng.uniform(0.2, 0.4, (5, 1))).astype(float).tolist())
    )
    assert "95 % interval over users and seeds" in "\n".join(table.footer)
