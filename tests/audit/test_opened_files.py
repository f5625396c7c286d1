"""Which files a piece of code reads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from grbench.audit.opened_files import OpenedFiles


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("1 2\n")
    np.save(tmp_path / "b.npy", np.arange(3))
    return tmp_path


def test_reading_in_any_way_is_seen(place: Path) -> None:
    with OpenedFiles({}) as files:
        files.current = "here"
        (place / "a.txt").read_text()
        thread = threading.Thread(target=lambda: np.load(place / "b.npy", mmap_mode="r"))
        thread.start()
        thread.join()
        os.close(os.open(place / "a.txt", os.O_RDONLY))
    (place / "b.npy").read_bytes()
    assert files.read() == {place / "a.txt": "here", place / "b.npy": "here"}


def test_what_is_not_there_or_was_written_here_or_is_code_is_left_out(place: Path) -> None:
    (place / "code.py").write_text("")
    with OpenedFiles({}) as files:
        (place / "out.txt").write_text("x")
        (place / "out.txt").read_text()
        (place / "new").mkdir()
        (place / "new" / "c").write_text("x")
        (place / "new").joinpath("c").rename(place / "moved")
        (place / "moved").read_text()
        (place / "code.py").read_text()
        Path("/proc/self/status").read_text()
        with pytest.raises(FileNotFoundError):
            (place / "absent").read_text()
        (place / "a.txt").read_text()
    assert set(files.read()) == {place / "a.txt"}
    assert files.read([place]) == {}


def test_a_part_that_calls_others_is_told_from_them_by_the_stack(place: Path) -> None:
    with OpenedFiles({__file__: "this test"}) as files:
        files.current = "trainer"
        (place / "a.txt").read_text()
        files.calls = True
        (place / "b.npy").read_bytes()
    assert files.read() == {place / "a.txt": "trainer", place / "b.npy": "this test"}
    assert (place / "a.txt").read_text() == "1 2\n"  # nobody is listening any more
