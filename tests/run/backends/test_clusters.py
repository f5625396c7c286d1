"""What is said where a cluster cannot be used, and what a node refuses."""

from __future__ import annotations

import os
import platform
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from grbench.cli import EXIT_INVALID, main
from grbench.errors import RunError
from grbench.run.backends import on_node
from grbench.run.backends.backend import SiteRequest
from grbench.run.backends.by_name import open_site, refuse_options
from grbench.run.backends.child_process import End, ForkServer
from grbench.run.backends.cluster import EventFile
from grbench.run.backends.on_node import NodeTask, run_on_node
from grbench.run.backends.shared_folder import marked, require_shared
from grbench.run.check_node import _differences


def refused(request: SiteRequest) -> str:
    with pytest.raises(RunError) as raised:
        open_site(request, ForkServer(), note=lambda _: None)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (SiteRequest("moon", Path()), "--backend moon: there is none of that name; choose one of local, ray, slurm"),
        (SiteRequest("local", Path(), address="a:1"), "--address a:1: is of a Ray cluster, and --backend is local; "),
        (SiteRequest("slurm", Path(), address="a:1"), "--address a:1: is of a Ray cluster, and --backend is slurm; "),
        (SiteRequest("ray", Path(), options=("time=9",)), "--scheduler time=9: is an option of Slurm's sbatch, and "),
        (SiteRequest("local", Path(), options=("time=9",)), "--scheduler time=9: is an option of Slurm's sbatch, and "),
        (SiteRequest("local", Path(), cpus=8), "--cpus 8: is of cells on a cluster; on this machine OMP_NUM_THREADS "),
    ],
)
def test_options_of_another_backend_are_refused(request_: SiteRequest, said: str) -> None:
    with pytest.raises(RunError) as raised:
        refuse_options(request_)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "moon"], "Invalid value for '--backend': 'moon' is not one of 'local', 'ray', 'slurm'"),
        (["--backend", "ray", "--cpus", "0"], "Invalid value for '--cpus': 0 is not in the range x>=1"),
        (["--jobs", "0"], "Invalid value for '--jobs': 0 is not in the range x>=1"),
        (["--backend", "ray", "--scheduler", "time=9"], "--scheduler time=9: is an option of Slurm's sbatch"),
        (["--backend", "ray", "--address", "ray://head:10001"], "--address ray://head:10001: an address of Ray Client"),
    ],
)
def test_what_is_wrong_is_said_by_the_command_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--address" in options:
        pytest.importorskip("ray", reason="needs the extra ray")
    assert main(["run", "quickstart", "--cache", "cache", *options]) == EXIT_INVALID
    complaint = capfd.readouterr().err
    assert said in complaint
    assert "Traceback" not in complaint
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(SiteRequest(name, tmp_path))
    assert said.startswith(f"--backend {name}: needs {package}, which cannot be imported")
    assert said.endswith(f"pip install 'grbench[{name}]'")


def test_an_address_where_no_ray_is_fails_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    with socket.socket() as nobody:  # bound, but nobody listens
        nobody.bind(("127.0.0.1", 0))
        address, began = f"127.0.0.1:{nobody.getsockname()[1]}", time.monotonic()
        assert f"--address {address}: no Ray cluster can be reached there (" in refused(
            SiteRequest("ray", tmp_path, address=address)
        )
        assert time.monotonic() - began < 60
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(60)
        answer = threading.Thread(target=lambda: other.accept()[0].sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n"))
        answer.start()
        said = refused(SiteRequest("ray", tmp_path, address=f"127.0.0.1:{other.getsockname()[1]}"))
        answer.join()
    assert "no Ray cluster can be reached there (what listens there is something else); `ray start" in said
    assert "an address of Ray Client" in refused(SiteRequest("ray", tmp_path, address="ray://head:10001"))
    assert "is no address of a Ray cluster" in refused(SiteRequest("ray", tmp_path, address="head"))


def test_a_cluster_that_wants_another_token_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")

    def refuse(**_: object) -> None:
        os.write(2, b"W gcs_client.cc:210: RPC error: InvalidAuthToken: Authentication token is missing\n" * 3)
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr("ray.init", refuse)
    said = refused(SiteRequest("ray", tmp_path, address="auto"))
    assert said.startswith("the Ray cluster auto refuses this machine, which has another token or none; `ray get-auth-")
    assert capfd.readouterr().err == ""
    os.write(2, b"after it\n")
    assert capfd.readouterr().err == "after it\n"


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(SiteRequest("slurm", tmp_path)) == (
        "--backend slurm: sbatch is not found; start the run on a login node of the cluster"
    )


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_node, "require_shared", partial(require_shared, patience=0))
    monkeypatch.chdir(tmp_path)
    log, events, mark = tmp_path / "log", tmp_path / "events", {"mark": "there", "host": "head"}
    task = NodeTask("module", {}, None, (), log, events, {**mark, "folder": str(tmp_path)}, tmp_path, None, 1, None)
    end = run_on_node(task, "node3")
    assert end.end is None
    assert end.refused.startswith(f"{tmp_path}: is another folder on {platform.node()} than on head")
    assert not list(tmp_path.iterdir())


def test_events_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "events"
    events = EventFile(path)
    assert list(events.new()) == []
    path.write_text('{"event": "a"}\n{"event": "b"')
    assert list(events.new()) == [{"event": "a"}]
    with path.open("a") as file:
        file.write("}\n")
    assert list(events.new()) == [{"event": "b"}]
    assert list(events.new()) == []


def test_what_a_node_was_writing_when_it_was_lost_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_node, "run_child", lambda *_, **__: End(0, False, ""))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "events"
    path.write_bytes(b'{"event": "curve", "fir')
    with marked(tmp_path) as mark:
        run_on_node(
            NodeTask("module", {}, None, (), tmp_path / "log", path, mark, tmp_path, tmp_path, 1, None), "node3"
        )
    assert [event["event"] for event in EventFile(path).new()] == ["place", "neighbours"]


@pytest.mark.parametrize(
    ("planned", "here", "places"),
    [
        ({"core": {"data": "1", "types": "2"}}, {"core": {"data": "3", "types": "2"}}, ["core.data"]),
        ({"files": {"mine.py": "1"}}, {"files": {}}, ["files.mine.py"]),
        ({"files": {}}, {"files": {"theirs.py": "1"}}, ["files.theirs.py"]),
    ],
)
def test_what_differs_on_a_node_is_named(planned: object, here: object, places: list[str]) -> None:
    assert list(_differences(planned, here)) == places
