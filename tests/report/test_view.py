"""Which columns and rows a table shows, in which order and under which names; and that none of it changes a number."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from records import HIT, MISS, a_record, measured

from grbench.cli import cli
from grbench.errors import RunError
from grbench.report.entries import ResultTable
from grbench.report.render import as_csv
from grbench.report.slices import slice_tables
from grbench.report.table import tables
from grbench.report.view import View
from grbench.results.record import Record


def view(**options: Any) -> View:
    """A view of options as they are typed."""
    return View.of_options(
        **{name: [value] if name in ("columns", "rows") else value for name, value in options.items()}
    )


def titles(table: ResultTable) -> list[str]:
    return [column.title for column in table.columns]


def names(table: ResultTable) -> list[str]:
    return [row[0].text for row in table.rows]


def rows_in_csv(made: list[ResultTable]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(made))))


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Of 40 users, good hits 30, middling 12, poor 2: each differs from the next; the last cell failed."""
    values: dict[str, Any] = {"baseline": "middling"}
    hits = {"poor": 2, "good": 30, "middling": 12}
    made = [
        record
        for method, many in hits.items()
        for record in measured(tmp_path, method, [1.0] * many + [0.0] * (40 - many), ranks=[50.0 - many] * 40, **values)
    ]
    return [*made, a_record("broken", 0, **values)]


def test_columns_are_chosen_ordered_and_renamed(records: list[Record]) -> None:
    (table,) = tables(records, view(columns="train min=Time,mean_rank=Rank,HR@10,search_q/s"))
    assert titles(table) == ["method", "Time", "Rank ↓", "HR@10 ↑", "search q/s"]
    assert [entry.text for entry in table.rows[1]] == ["good", "1.50", "20.0000", ".7500", "1,800"]
    footer = "\n".join(table.footer)
    assert "Names in the records: Time = train min, Rank = MR" in footer
    assert "Costs are means over seeds" in footer


def test_the_method_is_first_wherever_it_is_named(records: list[Record]) -> None:
    (table,) = tables(records, view(columns="seeds,method=Model"))
    assert titles(table) == ["Model", "seeds"]
    assert "Costs" not in "\n".join(table.footer)
    assert "Hardware" not in "\n".join(table.footer)
    assert "Scores are" not in "\n".join(table.footer)


def test_a_star_is_all_other_columns(records: list[Record]) -> None:
    (whole,) = tables(records)
    (table,) = tables(records, view(columns="seeds,*,hit_rate@10=H"))
    assert titles(table) == ["method", "seeds", *titles(whole)[2:-2], "failed", "H ↑"]


def test_rows_are_chosen_ordered_and_renamed_in_all_that_is_said_of_them(records: list[Record]) -> None:
    (table,) = tables(records, view(rows="middling=Base & co,good=Ours"))
    assert names(table) == ["Base & co", "Ours"]
    footer = "\n".join(table.footer)
    assert "Names in the records: Base & co = middling, Ours = good" in footer
    assert "failed" not in titles(table)  # none of the shown rows did
    assert [(row["method"], row["renamed from"]) for row in rows_in_csv([table])] == [
        ("Base & co", "middling"),
        ("Ours", "good"),
    ]


def test_the_baseline_is_named_as_its_row_is(tmp_path: Path) -> None:
    base = measured(tmp_path, "base", [*HIT, *MISS], baseline="base")
    same = measured(tmp_path, "same", [*HIT[:-1], *MISS, 1.0], baseline="base")
    (table,) = tables([*base, *same], view(rows="same=Ours,base=Theirs"))
    assert table.rows[0][1].mark == "°"
    assert "cannot be told from Theirs, the baseline" in "\n".join(table.footer)


def test_marks_and_intervals_are_those_over_all_rows(records: list[Record]) -> None:
    """good is the best. Without it, middling would be: it stays unmarked, and the footer says why."""
    (whole,) = tables(records)
    (table,) = tables(records, view(rows="middling,poor"))
    places = [names(whole).index(name) for name in ("middling", "poor")]
    columns = [titles(whole).index(title) for title in titles(table)]
    assert table.rows == tuple(tuple(whole.rows[place][column] for column in columns) for place in places)
    assert not any(entry.best for row in table.rows for entry in row)
    footer = "\n".join(table.footer)
    assert "Rows: 2 of 4 are shown; intervals and marks are computed over all 4" in footer
    assert "Not shown, but the best, or not told from it: HR@10: good .7500; MR: good 20.0000" in footer


def test_where_all_rows_are_shown_nothing_is_said_of_it(records: list[Record]) -> None:
    (table,) = tables(records, view(rows="good,*"))
    assert names(table) == ["good", "poor", "middling", "broken"]
    assert not re.search("shown|Names", "\n".join(table.footer))


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("hit_rate@10", ["good", "middling", "poor", "broken"]),
        ("HR@10:asc", ["poor", "middling", "good", "broken"]),
        ("mean_rank", ["good", "middling", "poor", "broken"]),
        ("mean_rank:desc", ["poor", "middling", "good", "broken"]),
        ("method", ["broken", "good", "middling", "poor"]),
        ("method:desc", ["poor", "middling", "good", "broken"]),
        ("train min", ["poor", "good", "middling", "broken"]),
    ],
)
def test_rows_are_sorted(sort: str, order: list[str], records: list[Record]) -> None:
    (table,) = tables(records, view(sort=sort, columns="seeds"))
    assert names(table) == order


def test_a_failed_row_keeps_its_reason_without_the_column(records: list[Record]) -> None:
    (table,) = tables(records, view(columns="hit_rate@10", rows="broken=Ours,good"))
    assert names(table) == ["Ours", "good"]
    footer = "\n".join(table.footer)
    assert "Failed: Ours: error, seed 0: no such thing" in footer
    assert "Seeds: 0 of 1 (Ours), else 1" in footer


def test_filters_are_said_without_their_column(records: list[Record]) -> None:
    filtered = replace(records[1], identity={**records[1].identity, "ranking": {"filters": ["history"]}})
    (table,) = tables([records[0], filtered, *records[2:3]], view(columns="hit_rate@10"))
    assert "Filters: history (good), else none" in "\n".join(table.footer)


def test_only_some_metrics(records: list[Record]) -> None:
    (whole,) = tables(records)
    (table,) = tables(records, view(metrics=["MR"]))
    assert titles(table) == [title for title in titles(whole) if title != "HR@10 ↑"]
    assert not any(name.startswith("hit_rate") for name in rows_in_csv([table])[0])


def test_csv_has_unrounded_numbers_under_the_records_names(records: list[Record]) -> None:
    (whole,) = tables(records)
    (table,) = tables(records, view(columns="mean_rank=R,hit_rate@10=H", rows="poor,good"))
    row = rows_in_csv([table])[1]
    of_rank = ["mean_rank", "mean_rank ±", "mean_rank - baseline", "mean_rank - baseline ±", "mean_rank p"]
    of_hits = [name.replace("mean_rank", "hit_rate@10") for name in of_rank]
    assert list(row) == ["table", "method", *of_rank, *of_hits, "notes"]
    before = rows_in_csv([whole])[1]
    assert {name: row[name] for name in of_rank + of_hits} == {name: before[name] for name in of_rank + of_hits}


def test_scores_that_are_not_shown_stay_so() -> None:
    """Of a grid's two rows, the one with the worse validation has no test scores, even if it is chosen and sorted by
    them."""

    def of_grid(width: int, test: float, validation: float) -> Record:
        stages = [{"training": {"validate_every": 1, "select": "hit_rate@10"}}]
        return a_record(
            f"wider[width={width}]",
            0,
            test,
            grid={"name": "wider", "points": 2, "ablation": False},
            curve=[{"epoch": 1, "hit_rate@10": validation}],
            counts={"best_epoch": 1, "validation_users": 5, "validated_users": 5, "validation_also_tested": 0},
            identity={"training": {"width": width, "seed": 0, "stages": stages}, "ranking": {}, "metrics": []},
        )

    made = [of_grid(64, 0.1234, 0.5), of_grid(128, 0.2345, 0.4), a_record("plain", 0, 0.05)]
    chosen = view(rows="wider[width=128]=Ours,plain,wider[width=64]=Small", sort="hit_rate@10")
    (table,) = tables(made, chosen)
    assert names(table) == ["Small", "plain", "Ours"]
    assert table.rows[2][1].text == "—"
    assert ".2345" not in as_csv([table])
    assert "Small is chosen of 2 rows" in "\n".join(table.footer)


def test_a_table_without_the_chosen_rows_is_left_out_and_counted() -> None:
    other = {"dataset": {"name": "toy", "digest": "d2", "options": {}}}
    made = [a_record("here", 0, 0.1), a_record("there", 0, 0.2, **other)]
    (table,) = tables(made, view(rows="there", caption="Main"))
    assert names(table) == ["there"]
    assert table.heading.startswith("Main: tiny, table 2 of 2, not comparable")
    (alone,) = tables(made[:1], view(caption="Main"))
    assert alone.heading == "Main"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows": "good,god"}, r"--rows: there is no 'god'; there are: poor, good, middling, broken"),
        ({"columns": "ndcg@10"}, r"--columns: there is no 'ndcg@10'; there are: method, hit_rate@10 \(HR@10\), mean_"),
        ({"sort": "ndcg@10:asc"}, r"--sort: there is no 'ndcg@10'; there are: method, hit_rate@10 \(HR@10\), mean_"),
        ({"sort": "hit_rate@10:up"}, "--sort hit_rate@10:up: a direction is :asc or :desc"),
        ({"metrics": ["ndcg@10"]}, r"--metric: there is no 'ndcg@10'; there are: hit_rate@10 \(HR@10\), mean_rank"),
        ({"rows": "poor=good"}, "--rows: poor cannot be called good, as another row is"),
    ],
)
def test_what_there_is_not_is_one_message(options: dict[str, Any], said: str, records: list[Record]) -> None:
    with pytest.raises(RunError, match=said):
        tables(records, view(**options))


def test_two_rows_may_change_their_names(records: list[Record]) -> None:
    (table,) = tables(records, view(rows="good=poor,poor=good"))
    assert names(table) == ["poor", "good"]
    assert table.rows[0][1].text == ".7500"


def test_a_slice_s_table_is_viewed_in_the_same_way(tmp_path: Path) -> None:
    groups = {"popularity": ["head"] * 20 + ["tail"] * 20}
    made = measured(tmp_path, "good", [*HIT, *MISS], groups=groups)
    made += measured(tmp_path, "poor", [*MISS, *MISS[1:], 1.0], groups=groups)
    (table,) = slice_tables(made, "popularity", "hit_rate@10", view(rows="poor=Ours", columns="tail,head=Top"))
    assert titles(table) == ["method", "tail (20)", "Top"]
    assert [entry.text for entry in table.rows[0]] == ["Ours", ".0500", ".0000"]
    assert "Not shown, but the best, or not told from it: tail (20): good .0000; Top: good 1.0000" in "\n".join(
        table.footer
    )
    assert rows_in_csv([table])[0]["head users"] == "20"
    with pytest.raises(RunError, match="--columns: there is no 'middle'; there are: method, all"):
        slice_tables(made, "popularity", "hit_rate@10", view(columns="middle"))


def test_options_of_latex_are_refused_elsewhere(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["table", str(tmp_path), "--out", "x.md", "--label", "tab:x", "--fit", "page"])
    assert done.exit_code == 2
    assert "--label, --fit: only of LaTeX tables" in done.output
