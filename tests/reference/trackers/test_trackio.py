"""Runs in Trackio's local database, read back with its own reader."""

from pathlib import Path

import pytest
from tracked import a_cell, a_record, beside, needs

from grbench_reference.trackers.trackio import Trackio


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))  # read when the package is imported
        needs("trackio", "trackio")
        yield


def runs(project):
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    return {
        run.name: (run.config, SQLiteStorage.get_logs(project, run.name, run_id=run.id)) for run in Api().runs(project)
    }


def logged(logs, name):
    return [(each["step"], each[name]) for each in logs if name in each]


def test_two_seeds_one_of_which_was_killed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the artifact is downloaded there
    killed = Trackio(project="two_seeds")
    killed.check()
    killed.start(beside(tmp_path, "trackio"), a_cell())
    for step in (1, 2, 3):
        killed.log(step, {"loss": 1 / step})
    killed._run.finish()  # as much as a kill leaves: all that was logged
    again = Trackio(project="two_seeds", lists="upload")
    again.resume(beside(tmp_path, "trackio"), a_cell(), 2)
    for step in (3, 4):
        again.log(step, {"loss": 1 / step})
    again.log(4, {"ndcg@10": 0.5})
    again.finish(a_record())
    other = Trackio(project="two_seeds")
    other.start(beside(tmp_path / "other", "trackio"), a_cell(seed=1))
    other.log(1, {"loss": 2.0})
    other.finish(a_record(status="error", scores={}))
    found = runs("two_seeds")
    assert set(found) == {"dense, seed 0 (01234567)", "dense, seed 1 (01234567)"}
    config, logs = found["dense, seed 0 (01234567)"]
    assert dict(logged(logs, "loss")) == {1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.25}
    assert logged(logs, "ndcg@10") == [(4, 0.5)]
    assert logged(logs, "test/ndcg@10") == [(4, 0.25)]
    assert logged(logs, "outcome") == [(4, "ok")]
    assert config["encoder.width"] == 8
    assert config["lists"] == str(tmp_path / "0123456789abcdef.parquet")
    assert {config["_Group"] for config, _ in found.values()} == {"dense"}
    import trackio

    artifact = trackio.init(project="two_seeds", auto_log_cpu=False, auto_log_gpu=False).use_artifact(
        "lists-0123456789abcdef"
    )
    trackio.finish()
    assert (Path(artifact.download()) / "0123456789abcdef.parquet").read_bytes() == b"lists"
