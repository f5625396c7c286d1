"""Cells share this machine by what they need: which of them may run at once, on which GPU, with how many threads."""

from __future__ import annotations

import pytest

from grbench.run.backends import local
from grbench.run.backends.backend import Machine, Needs
from grbench.run.backends.child_process import ForkServer
from grbench.run.backends.local import LocalBackend

MACHINE = Machine(ram=100, gpus=(24, 24))


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "processor_limit", lambda: 8.0)
    for name in (local.THREADS, local.GPUS):
        monkeypatch.delenv(name, raising=False)


def test_what_does_not_fit_beside_the_others_waits() -> None:
    backend = LocalBackend(3, ForkServer(), Machine(ram=100))
    first = backend.take(Needs(ram=60))
    assert not backend.is_room(Needs(ram=41))  # 101 of 100
    second = backend.take(Needs(ram=40))  # just fits
    assert not backend.is_room(Needs(ram=1))
    assert backend.is_room(Needs())  # what is not known is not counted
    backend.give_back(first)
    assert backend.is_room(Needs(ram=60))
    assert not backend.is_room(Needs(ram=61))
    backend.give_back(second)
    assert backend.is_room(Needs(ram=1_000))  # alone, as --oversize lets it
    backend.take(Needs(ram=1_000))
    assert not backend.is_room(Needs())


def test_there_are_as_many_workers_as_jobs() -> None:
    backend = LocalBackend(2, ForkServer(), Machine())
    workers = [backend.take(Needs(ram=1 << 60)) for _ in range(2)]  # no limit is known
    assert not backend.is_room(Needs())
    with pytest.raises(ValueError, match="no room"):
        backend.take(Needs())
    backend.give_back(workers[0])
    assert backend.take(Needs()) is workers[0]


def test_gpus_are_handed_out_one_a_cell_and_shared_only_where_memory_is_left() -> None:
    backend = LocalBackend(4, ForkServer(), MACHINE)
    workers = [backend.take(Needs(gpu=size)) for size in (20, 10)]
    assert [worker.gpu for worker in workers] == [0, 1]
    assert not backend.is_room(Needs(gpu=15))  # beside 20 or 10 of 24 each
    third = backend.take(Needs(gpu=14))  # beside the 10
    assert third.gpu == 1
    assert third is not workers[1]
    assert backend.take(Needs(gpu=4)).gpu == 0
    assert not backend.is_room(Needs())


def test_the_environment_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(jobs: int) -> list[tuple[str, int | None, dict[str, str]]]:
        backend = LocalBackend(jobs, ForkServer(), MACHINE)
        workers = [backend.take(Needs()) for _ in range(jobs)]
        return [(worker.name, worker.threads, worker._server._settings) for worker in workers]

    assert told(1) == [("", None, {})]  # as it would be without a back-end
    assert told(3) == [
        ("job 1, GPU 0", 2, {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0"}),
        ("job 2, GPU 1", 2, {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1"}),
        ("job 3, GPU 0", 2, {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0"}),
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8a")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [settings for _, _, settings in told(2)] == [
        {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "5"},
        {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "GPU-8a"},
    ]


def test_more_jobs_than_cores_are_noted() -> None:
    said: list[str] = []
    LocalBackend(8, ForkServer(), Machine(), note=said.append)
    assert said == []
    backend = LocalBackend(9, ForkServer(), Machine(), note=said.append)
    assert said == ["note: --jobs 9: more than the 8 cores that there are; cells wait for each other"]
    assert backend.take(Needs()).threads == 1
