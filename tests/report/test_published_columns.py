"""Published figures in tables: the difference, and where they lie against intervals that were worked out by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from records import HIT, METRICS, MISS, a_record, measured

from grbench.report.entries import ResultTable
from grbench.report.render import FORMATS, as_csv, latex, markdown, render, svg
from grbench.report.reproduction import Reproduction, reproduction
from grbench.report.table import tables
from grbench.results.record import Record


def figure(value: float, metric: str = "hit_rate@10", **values: Any) -> dict[str, Any]:
    return {"metric": metric, "value": value, "source": "arXiv 1", "same_protocol": True, **values}


def half_hit(folder: Path, method: str, *figures: dict[str, Any], **values: Any) -> list[Record]:
    """40 users, half of them hit: .5 +- .1619 (see test_scores)."""
    return measured(folder, method, [*HIT, *MISS], published=list(figures), **values)


def entries(table: ResultTable, title: str) -> list[str]:
    (place,) = [index for index, column in enumerate(table.columns) if column.title == title]
    return [row[place].text for row in table.rows]


def test_each_figure_stands_beside_ours(tmp_path: Path) -> None:
    records = half_hit(tmp_path, "inside", figure(0.35))
    records += half_hit(tmp_path, "above", figure(0.33, source="arXiv 2", seeds=3))
    records += half_hit(tmp_path, "below", figure(0.67, interval=[0.66, 0.68]))
    records += half_hit(tmp_path, "floor")
    records += [a_record("unknown", 0, 0.5, published=[figure(0.5, standard_error=0.01)])]
    (table,) = tables(records)
    assert entries(table, "published HR@10") == [
        ".3500 (+.1500, inside) [1]",
        ".3300 (+.1700, above) [2]",
        ".6700 in .6600 to .6800 (-.1700, below) [1]",
        "—",
        ".5000 s.e. .0100 (+.0000) [1]",
    ]
    assert [column.title for column in table.columns[:4]] == ["method", "HR@10 ↑", "published HR@10", "MR ↓"]
    footer = "\n".join(table.footer)
    assert "[1] arXiv 1 (same protocol)" in footer
    assert "[2] arXiv 2 (3 seeds, same protocol)" in footer
    assert "†" not in footer


def test_another_protocol_and_other_users_are_marked(tmp_path: Path) -> None:
    other = figure(0.5, same_protocol=False, differs="a hidden test")
    records = half_hit(tmp_path, "hidden", other)
    records += half_hit(tmp_path, "sample", figure(0.5, users=22_363))  # ours are 78,921
    records += half_hit(tmp_path, "same", figure(0.5, users=78_921))
    (table,) = tables(records)
    assert entries(table, "published HR@10") == [
        ".5000 (+.0000, inside) [1]†",
        ".5000 (+.0000, inside) [2]†",
        ".5000 (+.0000, inside) [3]",
    ]
    footer = "\n".join(table.footer)
    assert "†: not comparable (other protocol, 78,921 users evaluated here)" in footer
    assert "[1] arXiv 1 (other protocol); differs: a hidden test" in footer
    assert "[2] arXiv 1 (22,363 users, same protocol)" in footer


def test_every_format_has_them(tmp_path: Path) -> None:
    made = tables(half_hit(tmp_path, "a", figure(0.35, source="x_y & z", same_protocol=False, differs="50 %")))
    for form in FORMATS:
        assert render(made, form)
    assert r"\dag{}" in latex(made)
    assert r"x\_y \& z" in latex(made)
    assert ".3500 (+.1500, inside) [1]†" in markdown(made)
    assert ".3500 (+.1500, inside) [1]†" in "".join(ElementTree.fromstring(svg(made)).itertext()).replace("\xa0", " ")
    (row,) = csv.DictReader(io.StringIO(as_csv(made)))
    assert (row["hit_rate@10 published"], row["hit_rate@10 against published"]) == ("0.35", "inside")
    assert float(row["hit_rate@10 - published"]) == pytest.approx(0.15)
    assert row["hit_rate@10 published, same protocol"] == "False"


def test_the_newest_record_of_a_row_says_its_figures(tmp_path: Path) -> None:
    old = a_record("a", 0, 0.5, published=[figure(0.1)], finished="2026-01-01")
    (table,) = tables([old, a_record("a", 1, 0.5, published=[figure(0.2)], finished="2026-01-02")])
    assert entries(table, "published HR@10") == [".2000 (+.3000) [1]"]


def test_a_property_of_all_lists_has_neither_interval_nor_mark(tmp_path: Path) -> None:
    metrics = {**METRICS, "mean_rank": {**METRICS["mean_rank"], "per_user": False}}
    records = measured(tmp_path, "a", [*HIT, *MISS], ranks=[1.0, 2.0] * 20, metrics=metrics, baseline="a")
    records += measured(tmp_path, "b", [*HIT, *MISS], ranks=[1.0, 2.0] * 20, metrics=metrics, baseline="a")
    (table,) = tables(records)
    assert [(row[2].text, row[2].spread, row[2].best, row[2].mark) for row in table.rows] == 2 * [
        ("1.5000", "", False, "")
    ]
    assert [(row[1].best, bool(row[1].spread)) for row in table.rows] == [(True, True), (True, True)]
    assert "(MR: of all lists together, so that users' values give neither interval nor mark)" in "\n".join(
        table.footer
    )
    # records that do not say so read as before
    (table,) = tables(measured(tmp_path, "a", [*HIT, *MISS], ranks=[1.0, 2.0] * 20))
    assert table.rows[0][2].spread


def verdicts(report: Reproduction) -> dict[str, str]:
    return {row.method: row.verdict for row in report.figures}


def test_a_figure_is_met_where_our_interval_holds_it(tmp_path: Path) -> None:
    records = half_hit(tmp_path, "met", figure(0.35))
    records += half_hit(tmp_path, "above", figure(0.33))
    records += half_hit(tmp_path, "other", figure(0.9, same_protocol=False, differs="a hidden test"))
    records += half_hit(tmp_path, "floor")
    report = reproduction(records)
    assert verdicts(report) == {"met": "met", "above": "above", "other": "below", "floor": "no figure"}
    assert report.met
    text = report.text()
    assert "Intervals are over users only" in text
    assert "1 met, 1 above, 1 no figure; † not counted: 1 figure of another protocol" in text
    assert [line.split()[-2:] for line in text.splitlines() if line.startswith("other")] == [["below†", "[2]"]]


@pytest.mark.parametrize(
    ("figures", "values", "verdict"),
    [
        ([figure(0.67)], {}, "below"),
        ([figure(0.5, users=5)], {}, "other users"),
        ([figure(0.5)], {"folder": None}, "no interval"),
        ([figure(0.5)], {"status": "error", "error": {"message": "x"}, "scores": {}}, "failed"),
    ],
)
def test_a_figure_that_is_not_met_fails(
    tmp_path: Path, figures: list[Any], values: dict[str, Any], verdict: str
) -> None:
    from dataclasses import replace

    records = [replace(record, **values) for record in half_hit(tmp_path, "a", *figures)]
    report = reproduction([*records, *half_hit(tmp_path, "b", figure(0.5))])
    assert verdicts(report) == {"a": verdict, "b": "met"}
    assert not report.met


def test_a_method_without_records_fails(tmp_path: Path) -> None:
    report = reproduction(half_hit(tmp_path, "a", figure(0.5)), {"a": ["hit_rate@10"], "never_run": ["ndcg@10"]})
    assert verdicts(report) == {"a": "met", "never_run": "no result"}
    assert not report.met
    report = reproduction(half_hit(tmp_path, "a"), {"a": ["ndcg@10"]})  # a metric that its records lack
    assert verdicts(report) == {"a": "no result"}


def test_below_means_worse_where_lower_is_better(tmp_path: Path) -> None:
    ranks = [4.0, 6.0] * 20  # 5 +- .32
    better, worse = figure(9.0, "mean_rank"), figure(2.0, "mean_rank")
    assert verdicts(reproduction(half_hit(tmp_path, "a", better, ranks=ranks))) == {"a": "above"}
    assert verdicts(reproduction(half_hit(tmp_path, "a", worse, ranks=ranks))) == {"a": "below"}
