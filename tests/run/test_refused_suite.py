"""Suites that are refused before anything is trained, whatever the plug-ins and the data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_suite import run, suite_of

from grbench.errors import DataError, RunError, SuiteError
from grbench.run.run_suite import Outcome


def test_a_batch_that_cannot_fit_is_refused_before_it_runs(world: Path) -> None:
    large = "{encoder: {name: causal_transformer, width: 8, history_length: 50}, loss: bce, training: {batch_size: %d}}"
    suite = suite_of(world, "large: " + large % 10**10)
    with pytest.raises(RunError, match=r"large: needs about .* GiB of RAM.*largest part is .*batch_size .* would fit"):
        run(suite)
    assert list((world / "results" / "tiny").glob("*.json")) == []
    outcome, said = run(suite, dry_run=True, oversize=True)
    assert outcome == Outcome([], 0)
    assert "Disk: the data is prepared" in said
    assert re.search(r"large +[\d,.]+ GiB +.*activations [\d,.]+ GiB", said)


def test_k_larger_than_the_pool_is_refused_before_anything_is_trained(world: Path) -> None:
    suite = suite_of(world, "fine: {encoder: fine}")
    with pytest.raises(SuiteError, match="k=5 is larger than the pool of 4 candidates"):
        run(suite, overrides=["metrics=[hit_rate@5]"])
    assert list((world / "results" / "tiny").glob("*.json")) == []


def test_a_protocol_that_leaves_nobody_is_refused(world: Path) -> None:
    with pytest.raises(DataError, match="leaves no user to evaluate"):
        run(suite_of(world, "fine: {encoder: fine}"), overrides=["protocol.min_events=9"])


def test_a_missing_dataset_is_refused(world: Path) -> None:
    suite = suite_of(world, "fine: {encoder: fine}")
    with pytest.raises(DataError, match="nowhere"):
        run(suite, overrides=["dataset.path=nowhere.json"])
    assert not (world / "results").exists()


def test_a_file_that_is_missing_is_named_with_its_place_in_the_suite(world: Path) -> None:
    suite = suite_of(
        world, "fine: {encoder: fine}", "lost: {encoder: fine, tokenizer: {name: codes_file, path: no.json}}"
    )
    with pytest.raises(SuiteError, match=r"suite\.yaml: methods\.lost\.tokenizer\.path: no\.json: cannot be read"):
        run(suite)
    assert not (world / "results").exists()


def test_results_of_a_newer_schema_are_refused(world: Path) -> None:
    suite = suite_of(world, "fine: {encoder: fine}")
    folder = world / "results" / "tiny"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text('{"schema": 99}')
    with pytest.raises(RunError, match="newer grbench"):
        run(suite)
    assert [path.name for path in folder.iterdir()] == ["x.json"]


def test_results_that_cannot_be_written_are_found_out_first(world: Path) -> None:
    (world / "results").write_text("a file, not a folder")
    with pytest.raises(RunError, match="results cannot be written there"):
        run(suite_of(world, "fine: {encoder: fine}"))


def test_an_unknown_method_is_refused(world: Path) -> None:
    with pytest.raises(SuiteError, match="fine"):
        run(suite_of(world, "fine: {encoder: fine}"), only=["fin"])
