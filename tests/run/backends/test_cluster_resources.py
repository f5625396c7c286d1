"""What a cell on several devices asks of a scheduler: of a real Ray with made-up GPUs, and of commands of Slurm that
keep what they are given."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grbench.errors import OutputClosed
from grbench.run.backends.backend import Needs, SiteRequest
from grbench.run.backends.on_node import NodeTask

SBATCH = """#!/bin/sh
for script in "$@"; do :; done
cp "$script" "{folder}/$$.sh"
echo "Submitted batch job $$"
"""


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what sbatch is given."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    commands, folder = tmp_path / "commands", tmp_path / "submitted"
    for place in (commands, folder):
        place.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (commands / name).write_text(SBATCH.format(folder=folder) if name == "sbatch" else "#!/bin/sh\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return folder


def submit(
    folder: Path, needs: list[Needs], *, note: Callable[[str], None] = lambda _: None, **options: object
) -> list[str]:
    """Submits cells with these needs at once; the options of each job, sorted."""
    from grbench.run.backends.slurm_cluster import SlurmScheduler

    request = SiteRequest("slurm", folder.parent / "results", **options)  # type: ignore[arg-type]
    scheduler = SlurmScheduler(request, note)
    path = folder / "never_written"
    task = NodeTask("module", {}, None, (), path, path, {}, folder, None, 1, None)
    pool = ThreadPoolExecutor(len(needs))
    raised = [each.exception(timeout=30) for each in [pool.submit(scheduler.submit, task, each) for each in needs]]
    assert len(set(raised)) == 1  # they are submitted together
    if raised[0] is not None:
        raise raised[0]
    wanted = ("--array", "--cpus-per-task", "--gpus-per-node", "--gres", "--mem")
    return sorted(
        " ".join(sorted(word for word in script.read_text().split() if word.startswith(wanted) and "=" in word))
        for script in folder.glob("*.sh")
    )


def test_a_slurm_job_has_a_gpu_for_each_device(submitted: Path) -> None:
    needs = [Needs(ram=1 << 30, devices=2), Needs(ram=1 << 30)]
    one, two = submit(submitted, needs, device="cuda", cpus=3)
    assert one == "--cpus-per-task=3 --cpus-per-task=3 --gpus-per-node=1 --mem=2G"
    assert two == "--cpus-per-task=3 --cpus-per-task=3 --gpus-per-node=2 --mem=2G"


def test_options_of_sbatch_come_before_what_is_asked_for(submitted: Path) -> None:
    (job,) = submit(submitted, [Needs(1 << 30, devices=2)], device="cuda", cpus=3, options=("gres=gpu:a:4", "mem=9G"))
    assert job.endswith("--cpus-per-task=3 --gres=gpu:a:4 --mem=9G")


def test_what_one_cell_hears_of_a_submission_all_hear(submitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("submitit has changed")

    monkeypatch.setattr("submitit.SlurmExecutor.update_parameters", broken)
    with pytest.raises(ValueError, match="submitit has changed"):
        submit(submitted, [Needs(), Needs()], cpus=1)


def test_jobs_are_followed_where_nobody_reads_the_output(submitted: Path) -> None:
    def closed(_: str) -> None:
        raise OutputClosed

    (job,) = submit(submitted, [Needs(), Needs()], note=closed, cpus=1)
    assert "--array=0-1" in job


def test_cells_that_need_about_the_same_are_one_array(submitted: Path) -> None:
    (job,) = submit(submitted, [Needs(ram=600 << 20), Needs(ram=700 << 20), Needs(ram=800 << 20)], cpus=1)
    assert "--array=0-2" in job
    assert job.endswith("--mem=2G")
