"""Runs of MLflow in its local database, and through a server of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec

import pytest
from tracked import a_cell, a_record, beside, needs

from grbench.errors import PluginError
from grbench_reference.trackers.mlflow import MLflow

mlflow = needs("mlflow", "mlflow")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A database, whose tables take seconds to create."""
    place = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)  # where artifacts go by default
        yield f"sqlite:///{place / 'mlflow.db'}"


def runs(client, name):
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def history(client, run, name):
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]


def test_two_seeds_one_of_which_was_killed(tmp_path, store):
    killed = MLflow(tracking_uri=store)
    killed.check()
    killed.start(beside(tmp_path, "mlflow"), a_cell())
    for step in (1, 2, 3):
        killed.log(step, {"loss": 1 / step})
    killed._send()  # those of the last moments are lost in a kill
    again = MLflow(tracking_uri=store, lists="upload")
    again.resume(beside(tmp_path, "mlflow"), a_cell(), 2)
    again.log(3, {"loss": 1 / 3})
    again.log(4, {"ndcg@10": 0.5})
    again.finish(a_record())
    other = MLflow(tracking_uri=store)
    other.start(beside(tmp_path / "other", "mlflow"), a_cell(seed=1))
    other.finish(a_record(status="error", scores={}, error={"type": "X", "message": "it broke", "traceback": ""}))
    client = mlflow.MlflowClient(store)
    run, failed = runs(client, "small")
    assert [each.info.run_name for each in (run, failed)] == ["dense, seed 0", "dense, seed 1"]
    assert (run.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert dict(history(client, run, "loss")) == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert history(client, run, "ndcg_at_10") == [(4, 0.5)]
    assert history(client, run, "test/ndcg_at_10") == [(4, 0.25)]
    assert run.data.params["encoder.width"] == "8"
    assert run.data.params["training.patience"] == "None"
    assert run.data.tags["grbench.lists"] == str(tmp_path / "0123456789abcdef.parquet")
    assert run.data.tags["grbench.method"] == failed.data.tags["grbench.method"] == "dense"
    assert failed.data.tags["grbench.outcome"] == "error: it broke"
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["0123456789abcdef.parquet"]


def test_an_attempt_that_begins_anew_ends_the_run_of_the_one_before(tmp_path, store):
    folder = beside(tmp_path, "mlflow")
    for _ in range(2):
        MLflow(tracking_uri=store, experiment="anew").start(folder, a_cell())
    first, second = runs(mlflow.MlflowClient(store), "anew")
    assert (first.info.status, second.info.status) == ("KILLED", "RUNNING")


def test_more_options_and_values_than_a_request_may_have(tmp_path, store):
    cell = a_cell()
    cell["method"]["encoder"]["options"] = {f"option_{number}": number for number in range(250)}
    tracker = MLflow(tracking_uri=store, experiment="many")
    tracker.start(beside(tmp_path, "mlflow"), cell)
    tracker.log(1, {f"value {number}, with [signs]": float(number) for number in range(2500)})
    tracker.finish(a_record())
    (run,) = runs(mlflow.MlflowClient(store), "many")
    assert run.data.params["encoder.option_249"] == "249"
    assert run.data.metrics["value 2499_ with _signs_"] == 2499.0


@pytest.mark.skipif(find_spec("flask_cors") is None, reason="mlflow-skinny has no server: pip install 'mlflow>=3'")
def test_a_server(tmp_path, store, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(tmp_path / "artifacts")]
    log = tmp_path / "server.log"
    lean = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # without the processes of its job queues
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said, env=lean) as server:
        try:
            wait_for(f"{uri}/health", server, log)
            tracker = MLflow(tracking_uri=uri, experiment="served", lists="upload")
            tracker.check()
            tracker.start(beside(tmp_path, "mlflow"), a_cell())
            tracker.log(1, {"loss": 0.5})
            tracker.finish(a_record())
            client = mlflow.MlflowClient(uri)
            (run,) = runs(client, "served")
            assert run.info.status == "FINISHED"
            assert history(client, run, "loss") == [(1, 0.5)]
            assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["0123456789abcdef.parquet"]
            gone = MLflow(tracking_uri=uri, experiment="served")
            gone.start(beside(tmp_path / "gone", "mlflow"), a_cell(seed=1))
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        finally:
            server.terminate()
    with pytest.raises(Exception, match="Max retries exceeded"):
        gone.log(1, {"loss": 0.5})


def test_a_store_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PluginError, match=r"tracker mlflow: the store does not answer: .*127\.0\.0\.1"):
        MLflow(tracking_uri="http://127.0.0.1:1").check()


def wait_for(address, server, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                assert answer.status == 200
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(f"the server does not answer: {log.read_text()}")
