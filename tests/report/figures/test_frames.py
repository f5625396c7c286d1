"""What figures show, from records and users' values made by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from records import HIT, MISS, a_record, measured
from scipy import stats

from grbench.errors import RunError
from grbench.report.compared import ComparedRows, compared_rows
from grbench.report.figures.curves import curves_frame, default_value
from grbench.report.figures.difference import difference_frame
from grbench.report.figures.pareto import on_front, pareto_frame
from grbench.report.figures.selected import check_rows, selected
from grbench.report.figures.slices import slices_frame
from grbench.report.selection import picks
from grbench.results.record import Record

HALF = [1.0, 0.0] * 10
GIB = 2**30


def the_rows(records: list[Record]) -> ComparedRows:
    (compared,) = compared_rows(records)
    return compared


def costing(seconds: float | None, **cost: Any) -> dict[str, Any]:
    return {"cost": {"train_seconds": seconds, "peak_process_bytes": GIB, **cost}}


def four(folder: Path) -> list[Record]:
    """`floor` is not trained; `good` is on the front and so is `quick`; `slow` is beaten by `good` in both."""
    records = measured(folder, "floor", [*MISS, *MISS], baseline="floor", **costing(None))
    records += measured(folder, "good", [*HIT, *HALF], baseline="floor", **costing(60.0))
    records += measured(folder, "quick", [*HALF, *HALF], baseline="floor", **costing(30.0))
    return records + measured(folder, "slow", [*HIT, *MISS], baseline="floor", **costing(90.0))


def test_the_front_of_points_worked_out_by_hand() -> None:
    values, costs = np.array([0.3, 0.2, 0.2, 0.1, 0.3, 0.4]), np.array([5.0, 2.0, 3.0, 1.0, 5.0, 9.0])
    # The third is as good as the second and dearer. Of two equal points, neither beats the other.
    assert on_front(values, costs).tolist() == [True, True, False, True, True, True]


def test_pareto_has_the_table_s_scores_and_which_rows_are_on_the_front(tmp_path: Path) -> None:
    frame = pareto_frame(the_rows(four(tmp_path)), "hit_rate@10")
    assert frame["row"].tolist() == ["floor", "good", "quick", "slow"]
    assert frame["value"].tolist() == [0.0, 0.75, 0.5, 0.5]
    assert frame["on_front"].tolist() == [False, True, True, False]
    assert math.isnan(frame["cost"][0])
    assert frame["cost"].tolist()[1:] == [60.0, 30.0, 90.0]
    half = float(stats.t.ppf(0.975, 39) * stats.sem([*HIT, *HALF]))
    assert frame["high"][1] - 0.75 == pytest.approx(half)
    assert 0.75 - frame["low"][1] == pytest.approx(half)
    assert set(frame["over"]) == {"users"}  # one seed


def test_a_smaller_rank_is_better(tmp_path: Path) -> None:
    records = measured(tmp_path, "a", [1.0, 0.0], ranks=[1, 3], **costing(10.0))
    records += measured(tmp_path, "b", [1.0, 0.0], ranks=[4, 6], **costing(20.0))
    frame = pareto_frame(the_rows(records), "mean_rank")
    assert frame["value"].tolist() == [2.0, 5.0]
    assert frame["on_front"].tolist() == [True, False]


def test_costs_of_other_machines_and_of_cells_beside_others_have_fronts_of_their_own(tmp_path: Path) -> None:
    other = {"environment": {"cpu": "Other CPU", "cpu_threads": 8, "ram_bytes": GIB}}
    records = measured(tmp_path, "a", [*HIT, *MISS], **costing(10.0))
    records += measured(tmp_path, "worse_elsewhere", [*HALF, *MISS], **costing(20.0), **other)
    records += measured(tmp_path, "worse_beside", [*HALF, *MISS], **costing(20.0, beside={"cells": 1, "share": 1.0}))
    records += measured(tmp_path, "worse", [*HALF, *MISS], **costing(20.0))
    frame = pareto_frame(the_rows(records)).set_index("row")
    assert frame["on_front"].to_dict() == {
        "a": True,
        "worse_elsewhere": True,
        "worse_beside": True,
        "worse": False,
    }
    assert frame["beside"].to_dict()["worse_beside"]
    memory = pareto_frame(the_rows(records), cost="peak_process_bytes").set_index("row")
    assert not memory["beside"].any()  # other cells do not change it
    assert memory["cost"].tolist() == [GIB] * 4


def test_unknown_metrics_and_costs_are_refused(tmp_path: Path) -> None:
    compared = the_rows(four(tmp_path))
    with pytest.raises(RunError, match="there are: hit_rate@10, mean_rank"):
        pareto_frame(compared, "xxx")
    with pytest.raises(RunError, match="there are: train_seconds, train_cpu_seconds, peak_process_bytes"):
        pareto_frame(compared, cost="euros")


def test_differences_are_the_table_s(tmp_path: Path) -> None:
    compared = the_rows(four(tmp_path))
    frame = difference_frame(compared)
    assert frame["row"].tolist() == ["good", "quick", "slow"]
    assert frame["value"].tolist() == [0.75, 0.5, 0.5]
    # Holm: the least p times 3, the next times 2. 30 users differ of good, 20 of the others, all in one direction.
    raw = [2 * stats.t.sf(mean / stats.sem(hits), 39) for mean, hits in ((0.75, [*HIT, *HALF]), (0.5, [*HIT, *MISS]))]
    assert frame["p"].tolist() == pytest.approx([3 * max(raw[0], 2**-29), *[2 * max(raw[1], 2**-19)] * 2])
    assert frame["differs"].all()
    assert frame["low"][1] == pytest.approx(0.5 - stats.t.ppf(0.975, 39) * stats.sem([*HIT, *MISS]))
    by_good = difference_frame(compared, against="good").set_index("row")
    assert by_good["value"].to_dict() == {"floor": -0.75, "quick": -0.25, "slow": -0.25}


def test_without_baseline_or_users_values_there_is_no_difference(tmp_path: Path) -> None:
    records = measured(tmp_path, "a", [1.0, 0.0]) + measured(tmp_path, "b", [1.0, 1.0])
    with pytest.raises(RunError, match="no baseline to compare with; --against ROW names one of: a, b"):
        difference_frame(the_rows(records))
    lost = [dataclasses.replace(record, baseline="gone") for record in records]
    with pytest.raises(RunError, match="there is no row of gone, the suite's baseline, to compare with; --against ROW"):
        difference_frame(the_rows(lost))
    with pytest.raises(RunError, match="there is no row 'c'"):
        difference_frame(the_rows(records), against="c")
    records = [a_record("a", hit_rate=0.5, folder=tmp_path), *records[1:]]
    (tmp_path / "a-0.parquet").unlink()
    with pytest.raises(RunError, match="no value of hit_rate@10 for each user"):
        difference_frame(the_rows(records), against="b")


def test_slices_have_each_group_s_scores(tmp_path: Path) -> None:
    groups = {"popularity": ["head"] * 20 + ["tail"] * 20, "gap": ["x"] * 40}
    records = measured(tmp_path, "floor", [*MISS, *HALF], groups=groups, baseline="floor")
    records += measured(tmp_path, "good", [*HIT, *HALF], groups=groups, baseline="floor")
    frame = slices_frame(the_rows(records))
    assert frame["row"].tolist() == ["floor"] * 3 + ["good"] * 3
    assert frame["group"].tolist() == ["all", "head", "tail"] * 2
    assert frame["users"].tolist() == [40, 20, 20] * 2
    assert frame["value"].tolist() == [0.25, 0.0, 0.5, 0.75, 1.0, 0.5]
    assert frame["best"].tolist() == [False, False, True, True, True, True]
    assert frame["low"].isna().tolist() == [False, True, False] * 2  # of the head, all users have the same value
    assert frame["p"].isna().tolist() == [True] * 3 + [False] * 3
    assert frame["p"][4] == 2.0**-19
    assert slices_frame(the_rows(records), "gap")["group"].tolist() == ["all", "x"] * 2
    with pytest.raises(RunError, match="slice 'nothing'"):
        slices_frame(the_rows(records), "nothing")


def test_rows_of_a_grid_that_were_not_chosen_have_curves_but_no_test_scores(tmp_path: Path) -> None:
    stages = {"stages": [{"training": {"validate_every": 1, "select": "hit_rate@10"}}]}
    records = []
    for method, validation, hits in (("g[x=1]", 0.2, HIT), ("g[x=2]", 0.4, HALF)):
        records += measured(
            tmp_path,
            method,
            [*hits, *MISS],
            identity={"training": {"encoder": {"name": method}, **stages}, "ranking": {}, "metrics": []},
            grid={"name": "g", "points": 2, "ablation": False},
            curve=[{"epoch": 1, "loss": 1.0, "hit_rate@10": validation}],
            counts={"best_epoch": 1},
        )
    compared = the_rows(records)
    assert pareto_frame(compared)["row"].tolist() == ["g[x=2]"]
    curves = curves_frame(compared)
    assert curves[curves["validation"]].set_index("row")["value"].to_dict() == {"g[x=1]": 0.2, "g[x=2]": 0.4}
    assert default_value(compared) == "hit_rate@10"


def trained(**values: Any) -> Record:
    """4 epochs of 25 steps; of 100 steps, 10 are warm-up. The clock of rates runs 90 s of 100 s of training."""
    train = {"seconds": 100.0, "steps_per_second": 1.0, "warm_up_steps": 10}
    rates = [2.0, 2.5, 2.4, 2.5]
    made: dict[str, Any] = {
        "curve": [
            {"epoch": epoch, "loss": 5.0 - epoch, "users_per_second": rate, "events_per_second": 9.0}
            for epoch, rate in enumerate(rates, 1)
        ],
        "counts": {"steps_run": 100, "best_epoch": 3},
        "cost": {"phases": {"train": train}},
    }
    return a_record("m", hit_rate=0.5, **(made | values))


def test_curves_have_epochs_steps_and_seconds() -> None:
    frame = curves_frame(the_rows([trained()]))
    assert frame["name"].tolist() == ["loss"] * 4
    assert frame["value"].tolist() == [4.0, 3.0, 2.0, 1.0]
    assert frame["step"].tolist() == [25, 50, 75, 100]
    assert frame["kept"].tolist() == [False, False, True, False]
    # After epoch 1, 15 of 90 steps at a rate of 2 where the last one is 2.5: 10 s + 90 s * 15 / 90 * 2.5 / 2.
    assert frame["seconds"].tolist() == pytest.approx([28.75, 50.0, 10 + 65 * 2.5 / 2.4, 100.0])
    assert default_value(the_rows([trained()])) == "loss"


@pytest.mark.parametrize(
    "values",
    [
        {"counts": {}},
        {"counts": {"steps_run": 99}},
        {"curve": [{"stage": "a", "epoch": 1, "loss": 2.0}, {"stage": "b", "epoch": 2, "loss": 1.0}]},
    ],
)
def test_steps_are_not_known_where_epochs_may_differ_in_length(values: dict[str, Any]) -> None:
    frame = curves_frame(the_rows([trained(**values)]))
    assert frame["step"].isna().all()
    assert frame["seconds"].isna().all()
    assert frame["epoch"].notna().all()


def test_a_failed_cell_has_the_curve_of_the_epochs_that_were_done() -> None:
    failed = a_record("m", seed=1, curve=[{"epoch": 1, "loss": 3.0}])
    frame = curves_frame(the_rows([trained(), failed]))
    assert frame[frame["seed"] == 1][["status", "value"]].to_numpy().tolist() == [["error", 3.0]]


def test_rows_are_chosen_ordered_and_renamed() -> None:
    frame = pd.DataFrame({"row": ["a", "a", "b", "c[x=1,y=2]"], "value": [1, 2, 3, 4]})
    found = selected(frame, picks(["c[x=1,y=2]=C,a"], "--rows"))
    assert found["label"].tolist() == ["C", "a", "a"]
    assert found["value"].tolist() == [4, 1, 2]
    assert selected(frame, ())["label"].tolist() == frame["row"].tolist()
    with pytest.raises(RunError, match="there is no 'z'; there are: m"):
        check_rows(the_rows([trained()]), picks(["z"], "--rows"))
