"""The suites that are shipped, with the plug-ins that are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from grbench.registry.discovery import Registry
from grbench.suite.suite import load_suite

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))


@pytest.fixture(scope="session")
def installed() -> Registry:
    return Registry.load()


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_the_shipped_suites_are_right(path, installed):
    suite = load_suite(path)
    found = suite.cells(installed)
    assert suite.name == path.stem
    assert [cell.error for cell in found] == [None] * len(found)
    assert suite.baseline in suite.methods
    assert "most_popular" in {cell.method.encoder.name for cell in found}, "every suite carries the floor"


@pytest.mark.parametrize("name", ["preliminary_round", "final_round"])
def test_rows_of_papers_come_with_a_twin_that_is_smaller_and_trains_in_full_precision(name, installed):
    suite = load_suite(SUITES[0].parent / f"{name}.yaml")
    cells = {cell.method.name: cell.method for cell in suite.cells(installed, None, 1)}
    twins = {name.removesuffix("_small") for name in cells if name.endswith("_small")}
    paired = {"attention", "prism", "preference_memory", "one_ranker", "diffu_reason"}
    paired |= {"decoder", "lazy_decoder", "promise", "grpo", "grpo_siblings", "v_star", "rq_vae", "uni_sid"}
    assert paired | {"uni_sid_joint", "first_place", "onepiece_sid"} <= twins
    for row in twins:
        large, small = cells[row], cells[f"{row}_small"]
        assert small.encoder.name == large.encoder.name
        assert small.encoder.options["width"] < large.encoder.options["width"]
        assert [stage.trainer.name for stage in small.stages] == [stage.trainer.name for stage in large.stages]
        assert {stage.training["precision"] for stage in small.stages} == {"fp32"}
