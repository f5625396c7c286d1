"""Tables of the scores within groups of users, from users' values made by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from records import HIT, METRICS, MISS, a_record, measured
from scipy import stats

from grbench.errors import RunError
from grbench.report.format import number
from grbench.report.render import FORMATS, as_csv, render
from grbench.report.slices import slice_tables

HEAD_TAIL = {"popularity": ["head"] * 20 + ["tail"] * 20}


def test_each_group_has_its_own_mean_interval_and_tests(tmp_path: Path) -> None:
    half = [1.0, 0.0] * 10
    records = measured(tmp_path, "floor", [*MISS, *half], groups=HEAD_TAIL, baseline="floor")
    records += measured(tmp_path, "good", [*HIT, *half], groups=HEAD_TAIL, baseline="floor")
    (table,) = slice_tables(records, "popularity")
    assert table.heading == "tiny: HR@10 ↑ by popularity"
    assert [column.title for column in table.columns] == ["method", "all (40)", "head (20)", "tail (20)", "seeds"]
    floor, good = table.rows
    assert [entry.text for entry in floor] == ["floor", ".2500", ".0000", ".5000", "1"]
    assert [entry.text for entry in good] == ["good", ".7500", "1.0000", ".5000", "1"]
    # Of the head, all users have the same value: nothing is known of how much others vary.
    assert (floor[2].spread, good[2].spread) == ("", "")
    assert floor[3].spread == number(float(stats.t.ppf(0.975, 19) * stats.sem(half)))
    # Two that are equal cannot be told apart; where one group differs, the other still does not.
    assert [row[2].best for row in table.rows] == [False, True]
    assert [row[3].best for row in table.rows] == [True, True]
    assert (good[2].mark, good[3].mark) == ("", "°")
    (row,) = [row for row in csv.DictReader(io.StringIO(as_csv([table]))) if row["method"] == "good"]
    assert (row["slice"], row["metric"], row["head users"]) == ("popularity", "hit_rate@10", "20")
    assert float(row["head p"]) == 2.0**-19  # all 20 users differ in one direction
    assert float(row["tail p"]) == 1
    for form in FORMATS:
        assert "popularity" in render([table], form)


def test_another_metric_and_groups_in_the_slice_s_order(tmp_path: Path) -> None:
    labels = ["late", "", "early", "late", "early"]
    records = measured(tmp_path, "a", [0.0] * 5, ranks=[1, 100, 3, 5, 9], groups={"gap": labels})
    (table,) = slice_tables(records, "gap", "mean_rank")
    assert [column.title for column in table.columns][1:-1] == ["all (5)", "late (2)", "early (2)"]
    assert [entry.text for entry in table.rows[0]][1:-1] == ["23.6000", "3.0000", "6.0000"]
    assert "in brackets their number; in no group: 1 user" in "\n".join(table.footer)


def test_a_metric_that_the_first_record_lacks(tmp_path: Path) -> None:
    """A cell that failed is not scored again by a further metric."""
    records = [a_record("failed", metrics={"hit_rate@10": METRICS["hit_rate@10"]})]
    records += measured(tmp_path, "a", [*HIT, *MISS], groups=HEAD_TAIL)
    (table,) = slice_tables(records, "popularity", "mean_rank")
    assert [[entry.text for entry in row[:2]] for row in table.rows] == [["failed", "—"], ["a", "5.0000"]]


def test_a_single_user_has_a_mean_and_nothing_more(tmp_path: Path) -> None:
    groups = {"repeat": ["new"] * 39 + ["repeat"]}
    records = measured(tmp_path, "a", [*HIT, *MISS], groups=groups, baseline="a")
    records += measured(tmp_path, "b", [*MISS, *HIT], groups=groups, baseline="a")
    (table,) = slice_tables(records, "repeat")
    assert [(row[3].text, row[3].spread, row[3].best, row[3].mark) for row in table.rows] == [
        (".0000", "", False, ""),
        ("1.0000", "", False, ""),
    ]


def test_few_users_who_all_differ_prove_nothing(tmp_path: Path) -> None:
    """Three users with 1 against three with 0 have no variance, so that Student's t would call any difference sure."""
    groups = {"repeat": ["new"] * 37 + ["repeat"] * 3}
    records = measured(tmp_path, "a", [*MISS, *MISS[3:], 1.0, 1.0, 1.0], groups=groups)
    records += measured(tmp_path, "b", [*MISS, *MISS], groups=groups)
    (table,) = slice_tables(records, "repeat")
    assert [row[3].best for row in table.rows] == [True, True]


def test_one_record_with_groups_is_enough_for_all_rows(tmp_path: Path) -> None:
    records = measured(tmp_path, "labelled", [*HIT, *MISS], groups=HEAD_TAIL)
    records += measured(tmp_path, "other", [*MISS, *HIT])
    (table,) = slice_tables(records, "popularity")
    assert [[entry.text for entry in row][2:4] for row in table.rows] == [["1.0000", ".0000"], [".0000", "1.0000"]]


def test_seeds_count_within_a_group_as_in_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = []
    for name in ("a", "b"):
        seeds = (rng.random((3, 40)) < rng.uniform(0.2, 0.6, (3, 1))).astype(float).tolist()
        records += measured(tmp_path, name, *seeds, groups=HEAD_TAIL)
    (table,) = slice_tables(records, "popularity")
    assert "95 % interval over users and seeds" in "\n".join(table.footer)
    assert all(entry.spread for row in table.rows for entry in row[1:4])


def test_a_row_without_users_values_stays_and_takes_the_marks(tmp_path: Path) -> None:
    records = [*measured(tmp_path, "known", [*HIT, *MISS], groups=HEAD_TAIL), a_record("copied", 0, 0.9)]
    records += [a_record("failed")]
    (table,) = slice_tables(records, "popularity")
    assert [[entry.text for entry in row][1:4] for row in table.rows] == [
        [".5000", "1.0000", ".0000"],
        [".9000", "—", "—"],
        ["—", "—", "—"],
    ]
    assert not any(entry.best for row in table.rows for entry in row)


def test_what_is_missing_is_said_with_what_adds_it(tmp_path: Path) -> None:
    old = measured(tmp_path, "old", [*HIT, *MISS])
    with pytest.raises(
        RunError,
        match=rf"{tmp_path}: the records have no groups of users by any slice .* rescore .* --slice popularity adds",
    ):
        slice_tables(old, "popularity")
    records = measured(tmp_path, "a", [*HIT, *MISS], groups=HEAD_TAIL)
    with pytest.raises(RunError, match=r"no groups by a slice 'populrity'; did you mean popularity\?.* rescore"):
        slice_tables(records, "populrity")
    with pytest.raises(RunError, match=r"--metric hit_rate@9: .* did you mean hit_rate@10\?"):
        slice_tables(records, "popularity", "hit_rate@9")
    with pytest.raises(
        RunError, match=r"no value of hit_rate@10 for each user; .*rescore tiny --metric hit_rate@10 adds them"
    ):
        slice_tables([a_record("bare", 0, 0.5)], "popularity")
    together = [replace(record, metrics=METRICS | {"hit_rate@10": {"per_user": False}}) for record in records]
    assert "MR ↓" in slice_tables(together, "popularity")[0].heading  # the first that can be divided
    with pytest.raises(RunError, match="--metric hit_rate@10: is of all lists together, so that it is not divided"):
        slice_tables(together, "popularity", "hit_rate@10")
    with pytest.raises(RunError, match="no cell has finished"):
        slice_tables([a_record("failed")], "popularity")
    failed = [replace(record, lists={"unlabelled": {"gap": "KeyError: 'x'"}}) for record in records]
    with pytest.raises(RunError, match="the slice gap failed when a, seed 0, was run: KeyError: 'x'"):
        slice_tables(failed, "gap")


def test_records_that_do_not_agree_on_the_groups_are_named(tmp_path: Path) -> None:
    records = measured(tmp_path, "a", [*HIT, *MISS], groups=HEAD_TAIL)
    records += measured(tmp_path, "b", [*HIT, *MISS], groups={"popularity": ["head"] * 19 + ["tail"] * 21})
    with pytest.raises(
        RunError, match=r"a-0.parquet and .*b-0.parquet: their users' groups by the slice popularity differ"
    ):
        slice_tables(records, "popularity")


def test_incomparable_records_are_apart_and_those_without_groups_left_out_with_a_note(tmp_path: Path) -> None:
    records = measured(tmp_path, "a", [*HIT, *MISS], groups=HEAD_TAIL)
    records += measured(tmp_path, "b", [*HIT, *MISS], groups=HEAD_TAIL, protocol={"name": "leave_last_out"})
    older = METRICS | {"hit_rate@10": {**METRICS["hit_rate@10"], "version": "v0"}}
    records += measured(tmp_path, "c", [*HIT, *MISS], metrics=older)
    one, other = slice_tables(records, "popularity")
    assert ([row[0].text for row in one.rows], [row[0].text for row in other.rows]) == (["a"], ["b"])
    assert "A table is left out:" in other.footer[-1]
