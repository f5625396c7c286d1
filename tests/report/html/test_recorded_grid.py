"""The suite that a report puts together has the grids of the one that was run, with what is chosen of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from report_world import identity_of, write_method

from grbench.report.html.recorded_grid import recorded_grid
from grbench.report.html.recorded_suite import RecordedSuite, recorded_suite
from grbench.suite.grid import expand

METHOD = {
    "encoder": {"name": "toy", "width": 32, "sizes": [8, 8]},
    "loss": [{"name": "toy_loss", "temperature": 1.0}],
    "grid": {"loss.0.temperature": [0.1, 1.0], "encoder.width": [32, 64]},
}


def test_a_grid_is_found_again_from_its_rows() -> None:
    rows = expand("wider", METHOD, "suite.yaml")
    assert recorded_grid("wider", rows, points=4, ablation=False) == METHOD | {
        "loss": [{"name": "toy_loss", "temperature": 0.1}]
    }
    assert (recorded_grid("wider", rows, points=4, ablation=True) or {})["ablation"] is True


def test_what_no_grid_expands_to_is_none() -> None:
    rows = expand("wider", METHOD, "suite.yaml")
    fewer = dict(list(rows.items())[:3])
    assert recorded_grid("wider", fewer, points=4, ablation=False) is None  # some of them were not run
    assert recorded_grid("wider", fewer, points=3, ablation=False) is None
    other = {f"{name}!": row for name, row in rows.items()}
    assert recorded_grid("wider", other, points=4, ablation=False) is None
    assert recorded_grid("a.b", rows, points=4, ablation=False) is None  # no name of a method


def suite_of(folder: Path, *, points: int = 2, ablation: bool = False, baseline: str | None = None) -> RecordedSuite:
    """A method apart, and two rows of a grid."""
    grid = {"name": "wider", "points": points, "ablation": ablation}
    records = write_method(folder, "popular", 9)
    for order, width in enumerate((32, 64), 4):
        identity: dict[str, Any] = identity_of("toy", 0)
        identity["training"]["encoder"]["options"]["width"] = width
        records += write_method(folder, f"wider[width={width}]", order, grid=grid, identity=identity)
    suite = recorded_suite("tiny", [dataclasses.replace(record, baseline=baseline) for record in records])
    assert suite is not None
    return suite


def test_the_suite_has_the_grid_and_names_its_rows(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, baseline="wider[width=32]")
    content = yaml.safe_load(suite.text)
    assert set(content["methods"]) == {"popular", "wider"}
    assert content["methods"]["wider"]["grid"] == {"encoder.width": [32, 64]}
    assert "ablation" not in content["methods"]["wider"]
    assert content["baseline"] == "wider[width=32]"
    assert "are methods here" not in suite.text
    assert suite.seeds == {(0, 1): ("popular", "wider[width=32]", "wider[width=64]")}


def test_an_ablation_stays_one(tmp_path: Path) -> None:
    assert yaml.safe_load(suite_of(tmp_path, ablation=True).text)["methods"]["wider"]["ablation"] is True


def test_rows_of_a_grid_that_is_not_whole_are_methods_and_it_is_said(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, points=3)
    assert set(yaml.safe_load(suite.text)["methods"]) == {"popular", "wider_width_32", "wider_width_64"}
    assert "# The rows of the grid wider are methods here: all of them show test scores." in suite.text
