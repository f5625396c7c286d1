"""Suites whose data lie elsewhere: the same cells with the same numbers, wherever the data are."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from s3_server import KEYS, client, s3_server

from grbench.cli import main
from grbench.registry.discovery import Registry
from grbench.run.backends.child_process import ChildMessages
from grbench.run.cell_job import cell_job
from grbench.run.check_node import check_node
from grbench.run.data_source import build_dataset
from grbench.run.plan import Plan, make_plan
from grbench.run.prepare import prepare
from grbench.run.run_request import RunRequest
from grbench.suite.suite import load_suite

SUITE = """
suite: elsewhere
dataset: {name: interactions, path: log.csv, timestamp: null}
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  most_popular: {encoder: most_popular}
"""
LOG = "user,item\n" + "".join(f"u{user},i{(user * user + event) % 5}\n" for user in range(9) for event in range(4))


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a log and its suite."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as address:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        client(address).create_dir("bucket")
        yield "s3://bucket"


def pushed(place: object, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Pushes the suite's store; returns the path that is printed."""
    assert main(["data", "push", "suite.yaml", str(place), *options]) == 0
    said = capsys.readouterr().out
    (path,) = re.findall(r"^  dataset.path=(.*)$", said, re.MULTILINE)
    return str(path)


def plan_of(*overrides: str) -> Plan:
    suite, registry = load_suite("suite.yaml", overrides), Registry.load()
    return make_plan(suite, suite.cells(registry), registry, Path("results"))


def digest_of(path: object) -> str:
    return plan_of(f"dataset.path={path}").cells[0].blank.digest


def refusal(capsys: pytest.CaptureFixture[str], path: object, *options: str) -> str:
    assert main(["run", "suite.yaml", "--dry-run", "--set", f"dataset.path={path}", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


def test_a_run_on_a_bucket_is_that_on_the_disk(
    world: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = pushed(f"{bucket}/stores", capsys)
    monkeypatch.setenv("GRBENCH_CACHE", str(world / "node"))
    for results, options in (("here", []), ("there", ["--set", f"dataset.path={store}"])):
        assert main(["run", "suite.yaml", "--results", results, "--device", "cpu", *options]) == 0
    here, there = (json.loads(next((world / each).rglob("*.json")).read_text()) for each in ("here", "there"))
    assert (here["digest"], here["scores"], here["identity"]) == (there["digest"], there["scores"], there["identity"])
    assert there["dataset"]["options"]["path"] == store
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in json.dumps(there)
    lists = [pq.read_table(next((world / each).rglob("*.parquet"))) for each in ("here", "there")]
    assert lists[0].to_pydict() == lists[1].to_pydict()
    (copy,) = (path for path in (world / "node" / "copies").iterdir() if path.is_dir())
    capsys.readouterr()
    assert main(["run", "suite.yaml", "--dry-run", "--set", f"dataset.path={store}", "--force"]) == 0
    assert re.search(rf"the data is prepared, .* in {copy}\n", capsys.readouterr().out)


@pytest.mark.parametrize("url", ["file://", ""])
def test_a_node_finds_or_copies_the_store(world: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    path = f"{url}{pushed(world / 'stores', capsys)}"
    plan, said, quiet = plan_of(f"dataset.path={path}"), io.StringIO(), ChildMessages(io.StringIO())
    (planned,) = plan.cells
    asked = {"cell": planned.cell.to_json(), "cache": None, "device": "cpu", "filters": [], "validates": False}
    ready = prepare({**asked, "suite": "suite.yaml", "methods": []}, quiet).to_json()
    request = RunRequest(suite="suite.yaml", cache=world / "node")
    job = cell_job(plan, planned, {**ready, "peaks": {}, "models": {}}, request, started="now")
    assert job["store"] == (f"copies/{Path(ready['store']).name}" if url else path)
    check_node(job, ChildMessages(said))
    assert (world / "node" / job["store"] / "store.json").is_file()
    assert (f"copying {path}" in said.getvalue()) == bool(url)
    check_node(job, quiet)  # now it is there


def test_the_identity_is_of_the_content(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = digest_of("log.csv")
    store = pushed(world / "stores", capsys)
    assert digest_of(store) == digest_of(f"file://{store}") == expected
    assert main(["data", "push", "log.csv", f"file://{world}/data", "--source"]) == 0
    assert digest_of(f"file://{world}/data/log.csv") == digest_of(f"file://{world}/log.csv") == expected
    (world / "log.csv").write_text(LOG + "u1,i4\n")
    assert digest_of(f"file://{world}/log.csv") != expected


def test_a_store_of_something_else_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Path(pushed(world / "stores", capsys))
    said = refusal(capsys, store, "--set", "dataset.min_events=2")
    assert f"{store}: the store was prepared with min_events: 1, and not with min_events: 2; change dataset" in said
    other = refusal(capsys, store, "--set", "dataset={name: tencentgr, path: X}".replace("X", str(store)))
    assert other.endswith(f"{store}: is a store of the dataset interactions, and not of tencentgr")
    origin = json.loads((store / "origin.json").read_text())
    (store / "SHA256SUMS").unlink()
    (store / "origin.json").write_text(json.dumps({**origin, "source": "0"}))
    assert "was prepared by another version of the dataset's code or of grbench" in refusal(capsys, store)
    (store / "origin.json").write_text("{}")
    assert refusal(capsys, store).endswith("origin.json: is damaged; prepare and push the store again")
    (store / "origin.json").unlink()
    assert "has no origin.json, so it is not known what it was made of" in refusal(capsys, store)


def test_places_that_are_none(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are no places of the kind s4:" in refusal(capsys, "s4://bucket/x")
    assert "there is no such file or folder" in refusal(capsys, f"file://{world}/nothing")
    (world / "nothing").mkdir()
    assert "nothing: the folder is empty" in refusal(capsys, f"file://{world}/nothing")


def test_commands_for_data_read_places(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"file://{pushed(world / 'stores', capsys)}"
    assert main(["data", "prepare", store, "--cache", "node"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"node/copies/interactions-\w+-\w+: 9 users, 36 events", said)
    assert main(["data", "stats", store]) == 0
    assert "events" in capsys.readouterr().out
    assert main(["data", "validate", f"file://{world}/log.csv", "--set", "timestamp=null"]) == 0
    assert f"file://{world}/log.csv (interactions)" in capsys.readouterr().out
    assert main(["data", "validate", store]) == 2
    assert "is a prepared store" in capsys.readouterr().err
    assert main(["data", "push", "quickstart", "stores"]) == 2
    assert "reads no files, so each machine can make it" in capsys.readouterr().err
    assert main(["data", "push", "nothing.csv", "stores", "--source"]) == 2
    assert "nothing.csv: --source pushes a dataset's folder or file that is on this machine" in capsys.readouterr().err


def test_a_prepared_store_answers_for_its_source(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry.load()
    component = plan_of(f"dataset.path={pushed(world / 'stores', capsys)}").cells[0].cell.dataset
    source = build_dataset(registry, component)
    assert "its source had none" in str(source.no_candidates())
    assert source.store_bytes() == sum(file.stat().st_size for file in (world / "stores").rglob("*.*"))
