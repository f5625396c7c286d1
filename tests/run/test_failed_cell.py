"""What a cell that failed says in its record."""

from __future__ import annotations

import pytest
import torch

from grbench.errors import PluginError, RunError
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.run.failed_cell import failed, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (RuntimeError("std::bad_alloc"), "oom"),
        (RuntimeError("shapes do not match"), "error"),
        (ValueError("out of memory of what?"), "error"),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error: Exception, status: str) -> None:
    assert status_of(error) == status
    with pytest.raises(RunError) as wrapped:
        raise RunError("the index could not be built") from error
    assert status_of(wrapped.value) == status


def test_a_failure_keeps_its_traceback() -> None:
    with pytest.raises(PluginError) as caught:
        Registry().get("encoders", "nothing")
    record = failed(Record(digest="d", suite="tiny", method="m", seed=0, status="error"), caught.value, "cpu")
    assert record.status == "error"
    assert record.error is not None
    assert record.error["type"] == "PluginError"
    assert "unknown encoder 'nothing'" in record.error["message"]
    assert "test_a_failure_keeps_its_traceback" in record.error["traceback"]
