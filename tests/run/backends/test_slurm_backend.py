"""A real Slurm of this machine alone: the results of the local back-end, also where a job is taken away."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm
from cluster_facts import LONG, facts_of
from tiny_suite import run, suite_of

from grbench.errors import RunError
from grbench.results.claims import claims_in

pytest.importorskip("submitit", reason="needs the extra slurm")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "there is one")]


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[None]:
    try:
        with slurm.running_slurm() as configuration, pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(configuration))
            patch.setenv("PATH", slurm.PATH)
            yield
    except RuntimeError as error:  # in some containers
        pytest.skip(str(error))


def test_a_run_goes_on_when_a_job_is_taken_away(world: Path, cluster: None) -> None:
    suite = suite_of(world, f"trained: {LONG}", "popular: {encoder: most_popular}", "fine: {encoder: fine}")
    folder, cancelled = world / "far", list[str]()

    def cancel() -> None:
        """As Slurm does for another job, or at the end of the time: once the trained cell has a checkpoint."""
        while not list(folder.glob("tiny/*.checkpoint/training.safetensors")):
            time.sleep(0.1)
        queue = subprocess.run(
            ["squeue", "--array", "--noheader", "--states=RUNNING", "--format=%i"],
            capture_output=True,
            text=True,
            check=True,
        )
        cancelled.extend(queue.stdout.split())
        subprocess.run(["scancel", *cancelled], check=True)

    threading.Thread(target=cancel, daemon=True).start()
    far, said = run(suite, results=folder, backend="slurm", cpus=1)
    near, _ = run(suite, results=world / "near")
    assert cancelled
    assert far.code == near.code == 0, said
    assert [facts_of(folder, each) for each in far.records] == [facts_of(world / "near", each) for each in near.records]
    assert re.search(r"^Slurm job \d+: an array of 2 cells$", said, re.MULTILINE)
    assert re.search(r"^trained, seed 0: Slurm stopped it on .*; it is started again elsewhere", said, re.MULTILINE)
    assert far.records[0].cost["resumptions"] == 1
    assert claims_in(folder / "tiny") == {}
    assert not list(folder.rglob("*.events")) + list(folder.rglob(".shared*")) + list(folder.rglob("slurm*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cpus": 64},
            r"Slurm job \d+ would wait for ever, .* \(PartitionConfig: see sinfo\); --cpus ",
        ),
        ({"cpus": 1, "scheduler": ["time=120"]}, r"Slurm job \d+ would wait for ever, .* \(PartitionTimeLimit: see "),
        ({"cpus": 1, "scheduler": ["mem=64G"]}, "Slurm does not take the job: .*node configuration is not available"),
        ({"scheduler": ["partition=fast"]}, "Slurm does not take the job: .*partition"),
        ({"scheduler": ["fast"]}, "--scheduler fast: is not KEY=VALUE"),
    ],
)
def test_what_slurm_does_not_take_is_said(world: Path, cluster: None, options: dict[str, object], message: str) -> None:
    with pytest.raises(RunError, match=message) as raised:
        run(suite_of(world, "popular: {encoder: most_popular}"), backend="slurm", **options)
    assert "\n" not in str(raised.value)
    queue = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
    assert queue.stdout == ""


def test_a_controller_that_does_not_answer_is_said(world: Path, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = world / "slurm.conf"
    lines = Path(os.environ["SLURM_CONF"]).read_text()
    nowhere.write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1\nMessageTimeout=2\nSlurmctldTimeout=2", lines))
    monkeypatch.setenv("SLURM_CONF", str(nowhere))
    with pytest.raises(RunError, match="Slurm's controller "):
        run(suite_of(world, "popular: {encoder: most_popular}"), backend="slurm")
