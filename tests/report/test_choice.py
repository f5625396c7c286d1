"""Rows of a grid: the one with the best validation shows its test scores, unless all are tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records import HIT, MISS, a_record, measured

from grbench.errors import RunError
from grbench.report.compare import compare
from grbench.report.render import as_csv, markdown
from grbench.report.slices import slice_tables
from grbench.report.table import tables
from grbench.results.places import shows_scores
from grbench.results.record import Record


def validated(score: float, *, points: int = 2, ablation: bool = False) -> dict[str, Any]:
    """Keys of a record of a grid, whose best epoch's validation score is this."""
    return {
        "grid": {"name": "wider", "points": points, "ablation": ablation},
        "curve": [{"epoch": 1, "hit_rate@10": score / 2}, {"epoch": 2, "hit_rate@10": score}],
        "counts": {"best_epoch": 2, "validation_users": 50, "validated_users": 20, "validation_also_tested": 0},
    }


def of_grid(width: int, seed: int, test: float, score: float, **keys: Any) -> Record:
    options = {"encoder": {"width": width}, "seed": seed, "stages": [{"training": {"validate_every": 1}}]}
    options["stages"][0]["training"]["select"] = "hit_rate@10"  # type: ignore[index]
    identity = {"training": options, "ranking": {}, "metrics": []}
    made = {**validated(score, **keys), "identity": identity}
    return a_record(f"wider[width={width}]", seed, test, **made)


def test_of_a_grid_only_the_chosen_row_shows_its_test_scores() -> None:
    """The row with the better test scores has the worse validation."""
    records = [of_grid(64, 0, 0.1234, 0.5), of_grid(128, 0, 0.2345, 0.4), a_record("plain", 0, 0.3)]
    (table,) = tables(records)
    assert [row[1].text for row in table.rows] == [".1234", "—", ".3000"]
    assert [row[3].text for row in table.rows] == [".5000", ".4000", "—"]
    assert table.columns[3].title == "val HR@10 ↑"
    for text in (markdown([table]), as_csv([table])):
        assert "2345" not in text
    assert (
        "Grid wider: wider[width=64] is chosen of 2 rows by HR@10 of validation, mean over seeds; the others' test "
        "scores are not shown" in table.footer
    )
    assert (
        "Validation: 20 of 50 users of their own, a random sample; they are taken from the training users"
        in table.footer
    )


def test_an_ablation_shows_all_rows_and_no_validation() -> None:
    records = [of_grid(64, 0, 0.1, 0.5, ablation=True), of_grid(128, 0, 0.2, 0.4, ablation=True)]
    (table,) = tables(records)
    assert [row[1].text for row in table.rows] == [".1000", ".2000"]
    assert "val HR@10 ↑" not in [column.title for column in table.columns]
    assert "Grid" not in "\n".join(table.footer)


def test_a_grid_without_validation_shows_all_rows_and_says_so() -> None:
    grid = {"name": "wider", "points": 2, "ablation": False}
    (table,) = tables([a_record("wider[a]", 0, 0.1, grid=grid), a_record("wider[b]", 0, 0.2, grid=grid)])
    assert [row[1].text for row in table.rows] == [".1000", ".2000"]
    assert any(line.startswith("Grid wider: without validation") for line in table.footer)


def test_nothing_is_chosen_before_all_rows_have_run() -> None:
    (table,) = tables([of_grid(64, 0, 0.1, 0.5, points=3), of_grid(128, 0, 0.2, 0.4, points=3)])
    assert [row[1].text for row in table.rows] == ["—", "—"]
    assert any(line.startswith("Grid wider: 2 of its 3 rows have run") for line in table.footer)


def test_the_choice_is_by_the_seeds_that_all_rows_have() -> None:
    """By all of its seeds, the second row would be better."""
    records = [of_grid(64, 0, 0.1, 0.5), of_grid(128, 0, 0.2, 0.4), of_grid(128, 1, 0.2, 0.9)]
    (table,) = tables(records)
    assert [row[1].text for row in table.rows] == [".1000", "—"]


def test_a_row_that_failed_is_not_chosen() -> None:
    failed = a_record("wider[width=128]", 0, grid={"name": "wider", "points": 2, "ablation": False})
    (table,) = tables([of_grid(64, 0, 0.1, 0.5), failed])
    assert [row[1].text for row in table.rows] == [".1000", "—"]


def three_rows(folder: Path) -> list[Record]:
    """The chosen row is the worst of three by its test scores, the hidden one the best."""
    keys = {width: of_grid(width, 0, 0.0, score) for width, score in ((64, 0.9), (128, 0.1))}
    groups = {"half": ["first"] * 10 + ["second"] * 10}
    return [
        *measured(folder, "plain", HIT[:10] + MISS[:10], groups=groups),
        *(
            record
            for width, users in ((64, MISS), (128, HIT))
            for record in measured(
                folder,
                f"wider[width={width}]",
                users,
                groups=groups,
                **{key: getattr(keys[width], key) for key in ("grid", "curve", "counts", "identity")},
            )
        ),
    ]


def test_hidden_rows_are_compared_with_nothing(tmp_path: Path) -> None:
    (table,) = tables(three_rows(tmp_path))
    assert [(row[1].text, row[1].best) for row in table.rows] == [(".5000", True), (".0000", False), ("—", False)]


def test_hidden_rows_are_in_no_table_by_slices(tmp_path: Path) -> None:
    (table,) = slice_tables(three_rows(tmp_path), "half")
    assert [[cell.text for cell in row[:4]] for row in table.rows] == [
        ["plain", ".5000", "1.0000", ".0000"],
        ["wider[width=64]", ".0000", ".0000", ".0000"],
    ]
    assert any(line.startswith("Grid wider: wider[width=64] is chosen of 2 rows") for line in table.footer)


def test_hidden_rows_are_not_compared_by_pairs(tmp_path: Path) -> None:
    records = three_rows(tmp_path)
    assert compare(records, "plain", "wider[width=64]")
    with pytest.raises(RunError, match=r"^wider\[width=128\] is a row of a grid that was not chosen on validation"):
        compare(records, "plain", "wider[width=128]")


@pytest.mark.parametrize(("ablation", "shown"), [(False, False), (True, True)])
def test_a_cell_that_ends_shows_test_scores_where_it_may(ablation: bool, shown: bool) -> None:
    assert shows_scores(of_grid(64, 0, 0.1, 0.5, ablation=ablation)) == shown
    assert shows_scores(a_record("plain", 0, 0.1))


def test_tuned_methods_say_what_they_cost_and_what_was_chosen() -> None:
    tuning = {
        "budget": {"trials": 12},
        **{"trials": 12, "complete": 8, "pruned": 3, "failed": 1, "sampler": "tpe", "pruner": "median"},
        **{"seconds": 754.0, "metric": "hit_rate@10", "number": 6, "validation": 0.0512},
        "values": {"optimizer.lr": 0.001234, "encoder.blocks": 2},
        "not_repeatable": ["trials ran beside each other"],
    }
    (table,) = tables([a_record("tuned", 0, 0.1, tuning=tuning), a_record("plain", 0, 0.3)])
    texts = {column.title: cell.text for column, cell in zip(table.columns, table.rows[0], strict=True)}
    assert texts["trials"] == "12"
    assert (
        "Tuned: tuned: 12 trials (8 complete, 3 pruned, 1 failed), tpe, pruned by the median, 12 min 34 s of training; "
        "chosen: trial 7, HR@10 of validation .0512: optimizer.lr=0.001234, encoder.blocks=2; not repeatable, because "
        "trials ran beside each other" in table.footer
    )
    assert (
        "Budget of each tuned method: 12 trials; chosen on validation only, with the first seed; not tuned: plain"
        in table.footer
    )


def test_budgets_that_differ_are_said() -> None:
    def tuned(name: str, budget: dict[str, Any]) -> Record:
        tuning = {
            "budget": budget,
            **{"trials": 1, "complete": 1, "pruned": 0, "failed": 0, "sampler": "random", "pruner": "none"},
            **{"seconds": 1.0, "metric": "hit_rate@10", "number": 0, "validation": 0.1, "values": {"a": 1}},
            "not_repeatable": [],
        }
        return a_record(name, 0, 0.1, tuning=tuning)

    (table,) = tables([tuned("a", {"trials": 2}), tuned("b", {"training_seconds": 3600.0})])
    assert any(line.startswith("Budgets differ: 2 trials and 1 h 00 min of training") for line in table.footer)
