"""What a meter says of phases whose cost is known; no test asserts how fast anything is."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest
import torch
from torch import nn

from grbench.cost import meter as measure
from grbench.cost.environment import environment
from grbench.cost.meter import Meter, count_parameters
from grbench.distributed.ranks import Ranks
from grbench.errors import RunError

MIB = 1 << 20


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still until told how many seconds pass; a tenth of them is spent computing."""
    now = [100.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(measure.time, "process_time", lambda: now[0] / 10)

    def passing(seconds: float) -> None:
        now[0] += seconds

    return passing


def touch(size: int) -> mmap.mmap:
    """Memory that is in use and goes back to the system when closed."""
    block = mmap.mmap(-1, size)
    for start in range(0, size, mmap.PAGESIZE):
        block[start] = 1
    return block


def test_a_phase_entered_again_adds_up(passing: Callable[[float], None]) -> None:
    meter = Meter()
    for seconds in (2.0, 3.0):
        with meter.phase("train"):
            passing(seconds)
        passing(50.0)  # between phases: nobody's
    costs = meter.costs()["train"]
    assert (costs["runs"], costs["seconds"], costs["cpu_seconds"]) == (2, 5.0, pytest.approx(0.5))


def test_processor_time_is_that_of_threads_and_of_child_processes() -> None:
    busy = "import time\nwhile time.process_time() < {}: pass"
    meter = Meter()
    with meter.phase("child"):
        subprocess.run([sys.executable, "-S", "-c", busy.format(0.2)], check=True)
    with meter.phase("thread"):
        until = time.process_time() + 0.1

        def work() -> None:
            while time.process_time() < until:
                pass

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    costs = meter.costs()
    assert costs["child"]["cpu_seconds"] >= 0.2
    assert costs["thread"]["cpu_seconds"] >= 0.1


def test_nested_phases_add_up_to_the_whole(passing: Callable[[float], None]) -> None:
    meter = Meter()
    with meter.phase("train"):
        passing(1.0)
        with meter.phase("validate"):
            passing(10.0)
            with meter.phase("search"):
                passing(100.0)
            passing(20.0)
        passing(2.0)
    seconds = {name: costs["seconds"] for name, costs in meter.costs().items()}
    assert seconds == {"train": 3.0, "validate": 30.0, "search": 100.0}


def test_a_phase_inside_itself_is_refused() -> None:
    meter = Meter()
    with meter.phase("train"), pytest.raises(RunError, match="'train' is already open"), meter.phase("train"):
        pass
    with meter.phase("train"):  # and the meter is whole
        pass


def test_a_phase_that_fails_is_still_measured(passing: Callable[[float], None]) -> None:
    meter = Meter()

    def fail() -> None:
        with meter.phase("train"), meter.phase("step"):
            passing(4.0)
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert meter.costs()["step"]["seconds"] == 4.0
    with meter.phase("train"):
        passing(1.0)
    assert meter.costs()["train"]["seconds"] == 1.0


@pytest.mark.parametrize("sampled", [False, True])
def test_each_phase_has_its_own_peak_of_memory(sampled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if sampled:
        monkeypatch.setattr(measure._KernelPeak, "works", classmethod(lambda cls: False))
    elif not measure._KernelPeak.works():
        pytest.skip("this kernel does not let a process set its peak memory back")
    meter = Meter()
    before = psutil.Process().memory_info().rss
    with meter.phase("outer"):
        with meter.phase("large"):
            block = touch(256 * MIB)
            time.sleep(10 * measure.SAMPLING_SECONDS)
            block.close()
        with meter.phase("small"):
            touch(16 * MIB).close()
    peaks = {name: (costs["peak_process_bytes"] - before) / MIB for name, costs in meter.costs().items()}
    assert 200 < peaks["large"] < 320
    assert 200 < peaks["outer"] < 320
    assert peaks["small"] < 100


def test_notes_are_kept_beside_the_figures() -> None:
    meter = Meter()
    with meter.phase("search") as phase:
        phase.note(queries_per_second=3.0)
        phase.note(queries_per_second=4.0, batch_size=2)
    costs = meter.costs()["search"]
    assert (costs["queries_per_second"], costs["batch_size"]) == (4.0, 2)
    assert costs["peak_gpu_allocated_bytes"] is costs["energy_joules"] is None
    json.dumps(meter.costs(), allow_nan=False)


def test_costs_keep_the_order_of_the_phases() -> None:
    meter = Meter()
    for name in ("prepare", "train", "index", "search"):
        with meter.phase(name):
            pass
    assert list(meter.costs()) == ["prepare", "train", "index", "search"]


def test_shared_parameters_count_once() -> None:
    first, second = nn.Linear(3, 4, bias=False), nn.Linear(3, 4)
    second.weight = first.weight
    first.weight.requires_grad_(False)
    assert count_parameters(nn.ModuleList([first, second])) == 12 + 4


def test_the_environment_is_json_and_names_the_machine() -> None:
    found = environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["ram_bytes"] > 0
    assert found["cpu_threads"] >= 1
    assert found["gpu"] is None


def test_a_phase_on_a_gpu_begins_with_an_empty_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's pool keeps what was freed: a phase would be charged with it, and libraries beside torch would lack it."""
    reserved, done = [0, 0], []  # now, peak

    def empty_cache() -> None:
        done.append("emptied")
        reserved[0] = 0

    def reset_peak_memory_stats(device: torch.device) -> None:
        reserved[1] = reserved[0]

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset_peak_memory_stats)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: reserved[1])
    monkeypatch.setattr(measure, "nvml_handle", lambda device: (None, None))
    meter = Meter("cuda")
    for name, taken in (("large", 64), ("small", 1)):
        with meter.phase(name):
            reserved[0] += taken
            reserved[1] = max(reserved)
    assert [costs["peak_gpu_reserved_bytes"] for costs in meter.costs().values()] == [64, 1]
    assert done == ["emptied", "emptied"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_memory_of_a_phase() -> None:
    meter = Meter("cuda")
    with meter.phase("large"):
        block = torch.zeros(64 * MIB, dtype=torch.uint8, device="cuda")
        del block
    with meter.phase("small"):
        torch.zeros(MIB, dtype=torch.uint8, device="cuda")
    costs = meter.costs()
    assert costs["large"]["peak_gpu_allocated_bytes"] - costs["small"]["peak_gpu_allocated_bytes"] >= 60 * MIB
    assert costs["large"]["peak_gpu_reserved_bytes"] >= costs["large"]["peak_gpu_allocated_bytes"]
    assert costs["large"]["peak_gpu_reserved_bytes"] - costs["small"]["peak_gpu_reserved_bytes"] >= 60 * MIB
    assert environment("cuda")["gpu"]


def test_costs_of_another_process_are_gone_on_from(passing: Callable[[float], None]) -> None:
    first = Meter()
    with first.phase("train") as phase:
        passing(2.0)
        phase.note(users_per_second=3.0)
    second = Meter()
    second.go_on_from(json.loads(json.dumps(first.costs())))
    assert second.costs() == first.costs()
    with second.phase("train") as phase:
        passing(1.0)
        phase.note(users_per_second=4.0)
    costs = second.costs()["train"]
    assert (costs["runs"], costs["seconds"], costs["cpu_seconds"]) == (2, 3.0, pytest.approx(0.3))
    assert costs["users_per_second"] == 4.0
    assert costs["peak_process_bytes"] >= first.costs()["train"]["peak_process_bytes"]


def test_costs_of_several_devices_are_gone_on_from(
    passing: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Meter()
    with first.phase("train"):
        passing(2.0)
    before = first.costs()
    four = Ranks(1, 4)
    monkeypatch.setattr("grbench.cost.meter.current", lambda: four)
    meter = Meter()
    meter.go_on_from(before, devices=2)  # two spent as much; now there are four, and each counts a quarter of it
    assert meter.costs()["train"]["seconds"] == 2.0
    assert 4 * meter.costs()["train"]["cpu_seconds"] == pytest.approx(2 * before["train"]["cpu_seconds"])
    assert meter.costs()["train"]["peak_process_bytes"] == before["train"]["peak_process_bytes"] // 2
    assert meter.device_seconds == 2 * 2.0
    with meter.phase("search"):
        passing(1.0)
    assert meter.device_seconds == 2 * 2.0 + 4 * 1.0
    again = Meter()
    again.go_on_from(meter.costs(), devices=4, device_seconds=meter.device_seconds)
    assert again.device_seconds == meter.device_seconds
