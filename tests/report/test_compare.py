"""Two methods compared from users' values made by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records import HIT, METRICS, MISS, a_record, measured
from scipy import stats

from grbench.errors import RunError
from grbench.report.compare import compare
from grbench.report.entries import ResultTable
from grbench.report.format import number
from grbench.report.render import FORMATS, as_csv, render
from grbench.report.table import tables
from grbench.results.record import Record
from grbench.results.record_files import ranking_path
from grbench.statistics.comparison import holm

NOISE = np.random.default_rng(0).permutation(40).tolist()


def texts(table: ResultTable) -> list[list[str]]:
    return [[entry.text for entry in row] for row in table.rows]


def pair(folder: Path, **values: Any) -> list[Record]:
    """`a` hits 30 of 40 users, `b` 10 of them, all of which `a` hits too; a smaller rank is better."""
    records = measured(folder, "a", [*HIT, *HIT[:10], *MISS[:10]], ranks=NOISE, **values)
    return records + measured(folder, "b", [*HIT[:10], *MISS[:10], *MISS], ranks=[x + 1 for x in NOISE], **values)


def test_means_difference_p_and_users_won(tmp_path: Path) -> None:
    summary, _ = compare(pair(tmp_path), "a", "b")
    assert summary.heading == "tiny: a against b"
    hits, ranks = texts(summary)
    assert hits == ["HR@10 ↑", ".7500", ".2500", "+.5000", "<.001", "20", "0", "20"]
    assert ranks == ["MR ↓", "19.5000", "20.5000", "-1.0000", "<.001", "40", "0", "0"]
    assert [row[1].best for row in summary.rows] == [True, True]  # a is better by both
    assert not any(row[2].best for row in summary.rows)
    # Of 40 users, 20 have difference 1: the paired t interval.
    width = stats.t.ppf(0.975, 39) * stats.sem([1.0] * 20 + [0.0] * 20)
    assert summary.rows[0][3].spread == number(float(width))
    assert summary.rows[1][3].spread == ""  # each user differs by 1: no variance
    footer = "\n".join(summary.footer)
    assert "over users only: there are too few seeds" in footer
    assert "Holm's correction over the 2 tests of this table" in footer
    assert "differences are a minus b" in footer
    for form in FORMATS:
        assert "a against b" in render([summary], form).replace("&#160;", " ")


def test_the_other_way_round_is_the_mirror(tmp_path: Path) -> None:
    records = pair(tmp_path)
    one, other = (compare(records, *names)[0] for names in (("a", "b"), ("b", "a")))
    for ours, theirs in zip(one.values, other.values, strict=True):
        assert (ours["difference"], ours["p"]) == (-theirs["difference"], theirs["p"])
        assert (ours["won"], ours["lost"], ours["same"]) == (theirs["lost"], theirs["won"], theirs["same"])
        assert (ours["first mean"], ours["second mean"]) == (theirs["second mean"], theirs["first mean"])


def test_intervals_are_those_of_the_table_and_p_is_corrected_over_what_is_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    records = []
    for name, rate in (("a", 0.4), ("b", 0.25), ("c", 0.3)):
        seeds = (rng.random((3, 40)) < rng.normal(rate, 0.05, (3, 1))).astype(float).tolist()
        records += measured(tmp_path, name, *seeds, ranks=rng.random(40).tolist(), baseline="b")
    summary, _ = compare(records, "a", "b")
    (table,) = tables(records)
    for place in (0, 1):
        shown = summary.rows[place]
        assert [(entry.text, entry.spread) for entry in shown[1:3]] == [
            (table.rows[row][place + 1].text, table.rows[row][place + 1].spread) for row in (0, 1)
        ]
    assert "over users and seeds" in "\n".join(summary.footer)
    alone = [compare(records, "a", "b", metrics=[metric])[0].values[0] for metric in METRICS]
    assert [each["p"] for each in summary.values] == pytest.approx(holm([each["p"] for each in alone]).tolist())


def test_within_the_groups_of_a_slice(tmp_path: Path) -> None:
    groups = {"gap": ["1h"] * 10 + ["1d"] * 29 + [""]}
    summary, users = compare(pair(tmp_path, groups=groups), "a", "b", metrics=["hit_rate@10"], by="gap", users=2)
    assert [row[:5] for row in texts(summary)] == [
        ["HR@10 ↑", "all (40)", ".7500", ".2500", "+.5000"],
        ["HR@10 ↑", "1h (10)", "1.0000", "1.0000", ".0000"],
        ["HR@10 ↑", "1d (29)", ".6897", ".0000", "+.6897"],
    ]
    assert [row[-3:] for row in texts(summary)] == [["20", "0", "20"], ["0", "0", "10"], ["20", "0", "9"]]
    assert "over the 3 tests of this table" in "\n".join(summary.footer)
    assert "in no group: 1 user" in "\n".join(summary.footer)
    assert texts(users)[0] == ["10", "1d", "1.0000", ".0000", "+1.0000"]
    rows = list(csv.DictReader(io.StringIO(as_csv([summary, users]))))
    assert [row["group"] for row in rows] == ["all", "1h", "1d", "1d", "1d"]


def test_a_group_of_one_user_is_not_tested(tmp_path: Path) -> None:
    groups = {"gap": ["1h"] * 39 + ["1d"]}
    summary, _ = compare(pair(tmp_path, groups=groups), "a", "b", metrics=["hit_rate@10"], by="gap")
    assert texts(summary)[2] == ["HR@10 ↑", "1d (1)", ".0000", ".0000", ".0000", "—", "0", "0", "1"]
    assert "over the 2 tests" in "\n".join(summary.footer)


def test_the_users_who_differ_most_come_first_with_their_ids_and_histories(tmp_path: Path) -> None:
    records = measured(tmp_path, "a", [0.5, 0.2, 0.9, 0.3]) + measured(tmp_path, "b", [0.4, 0.8, 0.9, 0.6])
    for record in records:
        lists = pq.read_table(ranking_path(tmp_path, record.digest))
        lists = lists.set_column(0, "user", pa.array(["u|1", "u2", "u3", "[b]u4"]))
        lists = lists.append_column("history_length", pa.array([7, 1200, 3, 0]))
        pq.write_table(lists, ranking_path(tmp_path, record.digest))
    summary, users = compare(records, "a", "b", metrics=["hit_rate@10"])
    assert users.heading == "3 users for whom hit_rate@10 differs most, of 3 for whom it differs"
    assert [column.title for column in users.columns] == ["user", "history", "a", "b", "difference"]
    assert texts(users) == [
        ["u2", "1,200", ".2000", ".8000", "-.6000"],
        ["[b]u4", "0", ".3000", ".6000", "-.3000"],
        ["u|1", "7", ".5000", ".4000", "+.1000"],
    ]
    assert "u\\|1" in render([users], "md")
    assert "[b]u4" in render([users], "terminal")
    assert len(compare(records, "a", "b", users=1)[1].rows) == 1
    assert compare(records, "a", "b", metrics=["hit_rate@10"], users=0)[0] == summary
    assert len(compare(records, "a", "b", users=0)) == 1


def test_methods_that_are_the_same_for_everybody(tmp_path: Path) -> None:
    records = measured(tmp_path, "a", [*HIT, *MISS]) + measured(tmp_path, "b", [*HIT, *MISS])
    (summary,) = compare(records, "a", "b", metrics=["hit_rate@10"])
    assert texts(summary) == [["HR@10 ↑", ".5000", ".5000", ".0000", "1.000", "0", "0", "40"]]
    assert not any(entry.best for entry in summary.rows[0])


def test_a_metric_without_a_value_for_each_user_has_means_and_no_test(tmp_path: Path) -> None:
    coverage = {"coverage@10": {"higher_is_better": True, "version": "v1"}}
    records = [
        replace(record, metrics=coverage | record.metrics, scores=record.scores | {"coverage@10": 0.125})
        for record in pair(tmp_path)
    ]
    summary, users = compare(records, "a", "b")
    assert texts(summary)[-1] == ["Coverage@10 ↑", ".1250", ".1250", "—", "—", "—", "—", "—"]
    assert "neither interval nor test: coverage@10" in "\n".join(summary.footer)
    assert "hit_rate@10" in users.heading
    # Of all lists together, though there is a share of each user's.
    together = [replace(record, metrics=record.metrics | {"hit_rate@10": {"per_user": False}}) for record in records]
    assert texts(compare(together, "a", "b", metrics=["hit_rate@10"])[0])[0][1:] == [".7500", ".2500", *["—"] * 5]
    (alone,) = compare(records, "a", "b", metrics=["coverage@10"])
    assert len(alone.rows) == 1
    assert as_csv([alone]).count("coverage@10") >= 1


def test_names_of_rows_and_of_suites(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = pair(tmp_path / "one", suite="one"), pair(tmp_path / "two", suite="two")
    two += measured(tmp_path / "two", "only", [*HIT, *MISS], suite="two")
    with pytest.raises(
        RunError, match=r"a may be 'one/a', 'two/a'; write one of these, or give the folder of one suite"
    ):
        compare(one + two, "a", "b")
    assert compare(one + two, "one/a", "b")[0].heading == "one: a against b"
    assert compare(one + two, "a", "only")[0].heading == "two: a against only"  # only one suite has both
    (across,) = compare(one + two, "one/a", "two/a", metrics=["hit_rate@10"])
    assert texts(across)[0][1:4] == [".7500", ".7500", ".0000"]
    assert [column.title for column in across.columns][1:3] == ["one/a", "two/a"]


def test_a_method_with_other_options_is_several_rows(tmp_path: Path) -> None:
    def identity(rate: float) -> dict[str, Any]:
        return {"training": {"lr": rate, "seed": 0}, "ranking": {}, "metrics": []}

    records = pair(tmp_path)
    variants = [
        replace(record, digest=f"{rate}", identity=identity(rate))
        for rate in (0.1, 0.2)
        for record in records
        if record.method == "a"
    ]
    for record in variants:
        ranking_path(tmp_path, record.digest).write_bytes(ranking_path(tmp_path, "a-0").read_bytes())
    others = [record for record in records if record.method == "b"] + variants
    with pytest.raises(RunError, match=r"a may be 'tiny/a \(lr=0.1\)', 'tiny/a \(lr=0.2\)'"):
        compare(others, "a", "b")
    assert compare(others, "a (lr=0.2)", "tiny/b")[0].heading == "tiny: a (lr=0.2) against b"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"protocol": {"name": "leave_last_out"}}, "protocol.name, protocol.positives, protocol.out_of_pool differ"),
        ({"dataset": {"name": "toy", "digest": "d2"}}, "dataset differ"),
        ({"pool": {"size": 5, "digest": "p2"}}, "candidate pool differ"),
        (
            {"metrics": METRICS | {"mean_rank": {"higher_is_better": False, "version": "v2"}}},
            "metrics.mean_rank differ",
        ),
        ({"metrics": {"mrr": {"version": "v1"}}}, "has the metrics hit_rate@10, mean_rank, b has mrr: none in common"),
    ],
)
def test_what_is_not_comparable_is_refused(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    records = measured(tmp_path, "a", [*HIT, *MISS]) + measured(tmp_path, "b", [*HIT, *MISS], **values)
    with pytest.raises(RunError, match=said):
        compare(records, "a", "b")


def test_of_metrics_that_differ_in_version_the_others_can_be_compared(tmp_path: Path) -> None:
    newer = {"metrics": METRICS | {"mean_rank": {"higher_is_better": False, "version": "v2"}}}
    records = measured(tmp_path, "a", [*HIT, *MISS]) + measured(tmp_path, "b", [*MISS, *HIT], **newer)
    assert texts(compare(records, "a", "b", metrics=["hit_rate@10"])[0])[0][1:3] == [".5000", ".5000"]


def test_bad_requests_are_one_message(tmp_path: Path) -> None:
    records = pair(tmp_path, groups={"gap": ["1h"] * 40})
    records += [a_record("failed"), *measured(tmp_path, "fewer", MISS)]
    for names, options, said in (
        (("a", "bb"), {}, "there is no method 'bb' in these results; "),
        (("a", "faild"), {}, "there is no method 'faild' in these results; did you mean failed?"),
        (("a", "a"), {}, "a and a are the same row; name two methods"),
        (("a", "failed"), {}, "failed has no finished cell (error: no such thing)"),
        (
            ("a", "b"),
            {"metrics": ["hitrate@10"]},
            "--metric hitrate@10: the two have no such metric in common; did you mean",
        ),
        (("a", "b"), {"by": "gpa"}, "the records have no groups by a slice 'gpa'; did you mean gap?"),
        (
            ("a", "fewer"),
            {},
            "fewer-0.parquet: its users are others than those of a (20 users and 40, 20 in one of them",
        ),
    ):
        with pytest.raises(RunError) as raised:
            compare(records, *names, **options)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_records_without_users_values_say_what_adds_them(tmp_path: Path) -> None:
    records = pair(tmp_path)
    pq.write_table(pa.table({"user": np.arange(40)}), ranking_path(tmp_path, "b-0"))
    with pytest.raises(
        RunError, match=rf"b-0.parquet: has no users' values; grbench rescore {tmp_path} --metric hit_rate@10"
    ):
        compare(records, "a", "b")
    ranking_path(tmp_path, "b-0").unlink()
    with pytest.raises(RunError, match="b, seed 0: its lists are gone"):
        compare(records, "a", "b")
