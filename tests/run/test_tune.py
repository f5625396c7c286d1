"""Tuned methods in whole runs: equal budgets, the known best value, and test queries that no trial ranks."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import run

from grbench.cli import main
from grbench.errors import SuiteError
from grbench.registry.discovery import Registry
from grbench.report.table import tables
from grbench.results.checksums import AlteredError
from grbench.results.claims import Claim, claim, claims_in, find_claim
from grbench.results.record import Record
from grbench.results.record_files import read_records
from grbench.run.backends.backend import Machine
from grbench.run.backends.child_process import ForkServer
from grbench.run.backends.local import LocalBackend
from grbench.run.plan import Plan, PlannedCell, make_plan
from grbench.run.progress import PlainProgress
from grbench.run.tune import tune
from grbench.run.tuned_methods import _example, tuned_methods, with_choices
from grbench.run.worker_pool import WorkerPool
from grbench.suite.suite import load_suite
from grbench.suite.tuning import Choices

PLANTED = (Path(__file__).parents[1] / "support" / "planted_encoders.py").read_text()

SUITE = """
suite: tiny
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [hit_rate@1]
seeds: [0, 1]
defaults: {training: {epochs: 2, validate_every: 1, select: hit_rate@1}}
methods:
  plain: {encoder: {name: planted, right: 5}, loss: full_softmax}
  tuned: {encoder: planted, loss: full_softmax}
  fails: {encoder: {name: planted, fails: 2}, loss: full_softmax}
  hopeless: {extends: fails}
tuning:
  budget: {trials: 6}
  startup_trials: 2
  space:
    tuned: {encoder.right: {low: 0, high: 6}, optimizer.lr: {low: 0.001, high: 0.1, log: true}}
    fails: {encoder.right: [1, 2, 3]}
    hopeless: {encoder.right: [2]}
baseline: plain
"""


SPACE_WITH_CLASHES = [
    "tuning.space.tuned={training.warmup_steps: [100, 0], training.warmup_share: [0.1, 0]}",
]


@pytest.fixture(scope="module")
def planted(place: Path) -> Iterator[Path]:
    """The place of tiny suites, with the package of the planted encoder."""
    packages = place / "packages"
    metadata = packages / "planted-0.0.1.dist-info"
    metadata.mkdir()
    (packages / "planted.py").write_text(PLANTED)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 0.0.1\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nplanted = planted\n")
    (place / "suite.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("PLANTED_LOG", str(place / "searched.txt"))
        yield place


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the suite, in a folder that is not to be changed."""

    folder: Path
    records: list[Record]
    said: str
    searched: str

    @property
    def trials(self) -> dict[str, list[Record]]:
        """Each method's trials, by number."""
        found = read_records([self.folder], trials=True)
        methods = dict.fromkeys(record.method for record in found)
        return {name: sorted((r for r in found if r.method == name), key=number_of) for name in methods}


def one_at_a_time() -> WorkerPool[Record]:
    return WorkerPool(LocalBackend(1, ForkServer(), Machine()), 1)


def number_of(record: Record) -> int:
    return (record.trial or {})["number"]


def facts(record: Record) -> tuple[Any, ...]:
    """What of a trial does not depend on the clock."""
    trial = record.trial or {}
    return record.method, record.digest, record.status, trial["values"], trial["state"], trial["value"]


@pytest.fixture(scope="module")
def tuned(planted: Path) -> Run:
    outcome, said = run(planted / "suite.yaml", results=planted / "results", only=["tuned", "fails", "hopeless"])
    return Run(planted / "results" / "tiny", outcome.records, said, (planted / "searched.txt").read_text())


def test_every_method_has_the_same_budget_and_the_best_value_is_found(tuned: Run) -> None:
    assert {name: len(trials) for name, trials in tuned.trials.items()} == {"tuned": 6, "fails": 6, "hopeless": 6}
    for record in tuned.trials["tuned"]:
        trial = record.trial or {}
        assert trial["value"] == pytest.approx(min(trial["values"]["encoder.right"], 6) / 6)
    best = max(tuned.trials["tuned"], key=lambda record: ((record.trial or {})["value"], -number_of(record)))
    for record in (record for record in tuned.records if record.method == "tuned"):
        found = record.tuning or {}
        assert found["values"] == (best.trial or {})["values"]
        assert found["number"] == number_of(best)
        assert found["validation"] == (best.trial or {})["value"]
        assert record.scores["hit_rate@1"] == found["validation"]  # as planted
        assert (found["trials"], found["budget"]) == (6, {"trials": 6})
        assert found["not_repeatable"] == []


def test_no_test_query_of_a_trial_is_ranked(tuned: Run) -> None:
    for record in (record for trials in tuned.trials.values() for record in trials):
        assert record.scores == {}
        assert record.lists == {}
        assert not list((tuned.folder / "trials").glob("*.parquet"))
    # Histories of validation have two events, those of the test three: six users, two methods, two seeds.
    assert tuned.searched.split().count("3") == 24
    assert tuned.searched.split().count("2") > 24


def test_a_trial_that_is_worse_than_the_median_ends_early(tuned: Run) -> None:
    pruned = [record for record in tuned.trials["tuned"] if (record.trial or {})["state"] == "pruned"]
    assert pruned
    for record in pruned:
        assert record.status == "ok"
        assert [row["epoch"] for row in record.curve] == [1]
        before = [each for each in tuned.trials["tuned"] if number_of(each) < number_of(record)]
        complete = sorted((r.trial or {})["value"] for r in before if (r.trial or {})["state"] == "complete")
        assert (record.trial or {})["value"] < (complete[len(complete) // 2] + complete[(len(complete) - 1) // 2]) / 2


def test_failed_trials_are_kept_with_their_reason_and_count(tuned: Run) -> None:
    failed = [record for record in tuned.trials["fails"] if (record.trial or {})["values"]["encoder.right"] == 2]
    assert failed
    for record in failed:
        assert ((record.trial or {})["state"], record.status) == ("failed", "error")
        assert (record.error or {})["message"] == "ValueError: deliberate"
    chosen = next(record.tuning or {} for record in tuned.records if record.method == "fails")
    assert chosen["values"] == {"encoder.right": 3}
    assert chosen["failed"] == len(failed)


def test_values_that_were_trained_before_are_not_trained_again(tuned: Run) -> None:
    """Six trials of a list of three values."""
    by_value: dict[int, list[Record]] = {}
    for record in tuned.trials["fails"]:
        if (record.trial or {})["state"] == "complete":
            by_value.setdefault((record.trial or {})["values"]["encoder.right"], []).append(record)
    for first, *others in by_value.values():
        assert "same_as" not in (first.trial or {})
        for other in others:
            assert (other.trial or {})["same_as"] == first.digest
            assert (other.trial or {})["value"] == (first.trial or {})["value"]
            assert other.training_digest == first.training_digest
    assert any(len(records) > 1 for records in by_value.values())


def test_a_tuned_method_is_the_method_with_these_values(tuned: Run, planted: Path) -> None:
    """Nothing is run where a method is written with the values that were chosen, nor where the search is done."""
    found = next(record.tuning or {} for record in tuned.records if record.method == "tuned")["values"]
    written = f"encoder: {{name: planted, right: {found['encoder.right']}}}, optimizer: {{lr: {found['optimizer.lr']}}}"
    suite = planted / "written.yaml"
    text = SUITE.partition("tuning:")[0].replace("tuned: {encoder: planted", f"tuned: {{{written}")
    suite.write_text(text)
    _, said = run(suite, results=planted / "results", only=["tuned"], dry_run=True)
    assert "2 done, 0 to do" in said
    outcome, said = run(planted / "suite.yaml", results=planted / "results", only=["tuned"])
    assert "2 done, 0 to do" in said
    assert f"tuning tuned, 6 trials: trial {number_of_chosen(outcome.records) + 1} is chosen, validation HR@1" in said
    assert outcome.records == [record for record in tuned.records if record.method == "tuned"]


def number_of_chosen(records: list[Record]) -> int:
    return (records[0].tuning or {})["number"]


def test_the_table_says_trials_budget_values_and_validation(tuned: Run) -> None:
    (table,) = tables(read_records([tuned.folder]))
    assert [column.title for column in table.columns][:4] == ["method", "HR@1 ↑", "val HR@1 ↑", "trials"]
    assert [row[3].text for row in table.rows] == ["6", "6", "6"]
    footer = "\n".join(table.footer)
    values = next(record.tuning or {} for record in tuned.records if record.method == "tuned")["values"]
    assert f"encoder.right={values['encoder.right']}, optimizer.lr={values['optimizer.lr']}" in footer
    assert "Budget of each tuned method: 6 trials; chosen on validation only, with the first seed" in footer
    assert "Validation: 6 users, each by an event before the one of the test" in footer


@pytest.mark.parametrize(("sampler", "pruner", "batch"), [("tpe", "median", 2), ("random", "none", 1)])
def test_trials_that_run_at_once_are_those_of_one_after_another(
    planted: Path, tmp_path: Path, sampler: str, pruner: str, batch: int
) -> None:
    found = []
    for jobs in (1, 2):
        options = [
            f"tuning.{key}={value}" for key, value in {"sampler": sampler, "pruner": pruner, "batch": batch}.items()
        ]
        outcome, said = run(
            planted / "suite.yaml",
            results=tmp_path / str(jobs),
            only=["tuned"],
            jobs=jobs,
            seeds=1,
            overrides=[*options, "tuning.budget={trials: 4}"],
        )
        trials = sorted(read_records([tmp_path / str(jobs)], trials=True), key=number_of)
        (record,) = outcome.records
        found.append(
            ([facts(trial) for trial in trials], record.digest, record.scores, record.tuning["not_repeatable"])
        )
    assert "trial 2" in said
    assert {*re.findall(r"\((job \d)\): ", said)} == {"job 1", "job 2"}
    assert found[0] == found[1]
    assert found[0][-1] == []


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_trials(
    how: signal.Signals, tuned: Run, planted: Path, tmp_path: Path
) -> None:
    """Killed, or ended by Ctrl-C, in the middle of the search, then run again: what the run that nothing happened to
    has."""
    # A shell's background job ignores Ctrl-C; this process must not, whoever started the tests.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from grbench.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "run", str(planted / "suite.yaml"), "--device", "cpu"]
    command += ["--only", "tuned", "--seeds", "1", "--results", str(tmp_path)]
    slowed = {**os.environ, "PLANTED_SLEEP": "0.05"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=slowed, text=True) as process:
        deadline = time.monotonic() + 300
        while len(list(tmp_path.rglob("trials/*.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == (130 if how == signal.SIGINT else -how), said
    if how == signal.SIGINT:
        assert "Interrupted: 0 of 1 cells are finished" in said
        assert claims_in(tmp_path / "tiny" / "trials") == {}
    assert 2 <= len(read_records([tmp_path / "tiny"], trials=True)) < 6
    outcome, _ = run(planted / "suite.yaml", results=tmp_path, only=["tuned"], seeds=1)
    resumed = sorted(read_records([tmp_path / "tiny"], trials=True), key=number_of)
    assert list(map(facts, resumed)) == list(map(facts, tuned.trials["tuned"]))
    whole = next(record for record in tuned.records if record.method == "tuned")
    assert {key: value for key, value in (outcome.records[0].tuning or {}).items() if key != "seconds"} == {
        key: value for key, value in (whole.tuning or {}).items() if key != "seconds"
    }
    assert outcome.records[0].digest == whole.digest


def test_a_search_needs_one_valid_combination_and_not_the_first(planted: Path, tmp_path: Path) -> None:
    """A warm-up is given as steps or as a share."""
    registry, suite = Registry.load(), load_suite(planted / "suite.yaml", SPACE_WITH_CLASHES)
    plan = make_plan(suite, suite.cells(registry, only=["tuned"]), registry, tmp_path)
    (method,) = tuned_methods(plan, registry)
    assert method.search.trials == []
    assert list(tmp_path.iterdir()) == []
    only = load_suite(planted / "suite.yaml", [SPACE_WITH_CLASHES[0].replace("[100, 0]", "[100, 200]")])
    clashing = make_plan(only, only.cells(registry, only=["tuned"]), registry, tmp_path)
    none = {"training.warmup_steps": Choices((100, 200)), "training.warmup_share": Choices((0.1, 0.2))}
    with pytest.raises(SuiteError, match="warmup_steps is set as well"):
        _example(clashing, clashing.cells[0].cell, none, registry)


@pytest.mark.slow
def test_two_runs_share_a_search_with_a_budget_in_seconds(planted: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grbench", "run", str(planted / "suite.yaml"), "--device", "cpu", "--seeds", "1"]
    command += ["--only", "tuned", "--results", str(tmp_path), "--set", "tuning.budget={training_seconds: 1.5}"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    options["env"] = {**os.environ, "PLANTED_SLEEP": "0.1"}
    runs = [subprocess.Popen(command, **options) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], "\n".join(said)
    trials = sorted(read_records([tmp_path / "tiny"], trials=True), key=number_of)
    assert list(map(number_of, trials)) == list(range(len(trials)))
    assert len(trials) >= 2
    assert {(record.trial or {})["state"] for record in trials} <= {"complete", "pruned"}
    seconds = [(record.trial or {})["seconds"] for record in trials]
    assert sum(seconds) >= 1.5
    (record,) = read_records([tmp_path / "tiny"])
    assert (record.tuning or {})["budget"] == {"training_seconds": 1.5}
    assert "its budget is in seconds" in (record.tuning or {})["not_repeatable"]
    assert (record.tuning or {})["trials"] <= len(trials)  # two may begin before the budget is used
    assert record.scores == {"hit_rate@1": (record.tuning or {})["validation"]}
    assert sum("tuned, seed 0: ok" in text for text in said) == 1


def test_a_trial_is_claimed_while_it_runs(planted: Path, tmp_path: Path) -> None:
    registry, suite = Registry.load(), load_suite(planted / "suite.yaml")
    plan = make_plan(suite, suite.cells(registry, only=["tuned"]), registry, tmp_path)
    found = []

    def interrupted(trials: Plan, planned: PlannedCell, **options: object) -> Record:
        found.append(find_claim(trials.folder, planned.blank.digest))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), one_at_a_time() as pool:
        tune(
            plan, tuned_methods(plan, registry), registry, interrupted, progress=PlainProgress(io.StringIO()), pool=pool
        )
    assert [got is not None and got.lives for got in found] == [True]
    assert claims_in(tmp_path / "tiny" / "trials") == {}


def test_a_lost_study_is_rebuilt_from_the_records(tuned: Run, planted: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned.folder, tmp_path / "tiny")
    (tmp_path / "tiny" / "trials" / "optuna.log").unlink()
    registry, suite, out = Registry.load(), load_suite(planted / "suite.yaml"), io.StringIO()
    plan = make_plan(suite, suite.cells(registry, only=["tuned"]), registry, tmp_path)
    methods = tuned_methods(plan, registry)

    def never(*arguments: object, **options: object) -> Record:
        raise AssertionError("nothing is trained again")

    with one_at_a_time() as pool:
        tune(plan, methods, registry, never, progress=PlainProgress(out), pool=pool)
    kept = sorted((r for r in read_records([tmp_path], trials=True) if r.method == "tuned"), key=number_of)
    assert list(map(facts, kept)) == list(map(facts, tuned.trials["tuned"]))
    assert out.getvalue().count(", known") + out.getvalue().count(": pruned after epoch 1") == 6
    chosen = with_choices(plan, methods, registry, tmp_path, force=False)
    assert [planned.state for planned in chosen.cells] == ["done", "done"]


def test_commands_that_look_after_a_folder_know_trials(
    tuned: Run, planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, suite = str(tmp_path / "results"), planted / "suite.yaml"
    folder = shutil.copytree(tuned.folder, tmp_path / "results" / "tiny")
    trials = len(read_records([folder], trials=True))
    assert main(["verify", results, "--suite", str(suite)]) == 0
    assert f"{trials + len(tuned.records)} records checked: all are right" in capsys.readouterr().out
    assert main(["status", str(suite), "--results", results]) == 0
    said = capsys.readouterr().out
    assert "tuning tuned, 6 trials: trial " in said
    assert "2 to do" in said  # plain, with two seeds
    assert main(["prune", str(suite), "--results", results, "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    other = planted / "other.yaml"
    other.write_text(SUITE.replace("low: 0, high: 6", "low: 0, high: 5"))
    got = claim(folder / "trials", tuned.trials["tuned"][0].digest)
    assert isinstance(got, Claim)
    with got:
        assert main(["status", str(other), "--results", results]) == 0
        assert f"a trial is running (process {os.getpid()} on" in capsys.readouterr().out
        assert main(["prune", str(other), "--results", results, "--yes"]) == 0
    kept = read_records([folder], trials=True)
    assert sorted(record.method for record in kept) == ["fails"] * 6 + ["hopeless"] * 6 + ["tuned"]
    assert read_records([folder]) == read_records([tuned.folder])  # its search may choose the same values again


def test_an_altered_trial_is_found_and_hides_no_table(
    tuned: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tuned.folder, tmp_path / "tiny")
    path = folder / "trials" / f"{tuned.trials['tuned'][0].digest}.json"
    path.write_text(path.read_text().replace('"value": ', '"value": 1'))
    assert main(["verify", str(folder)]) == 1
    assert f"{path}: the record was altered" in capsys.readouterr().out
    assert len(tables(read_records([folder]))) == 1
    with pytest.raises(AlteredError):
        read_records([folder], trials=True)


def test_a_method_without_a_complete_trial_is_a_row_with_the_reason(tuned: Run) -> None:
    records = [record for record in tuned.records if record.method == "hopeless"]
    assert {record.status for record in records} == {"error"}
    assert (records[0].error or {})["message"].startswith("none of its 6 trials was completed (6 failed)")
    assert "tuning hopeless, 6 trials: none was completed" in tuned.said
