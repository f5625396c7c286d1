"""What files hold, and not where they lie."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from grbench.registry.content_hash import file_hash, folder_hash


def test_a_files_hash_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one")
    assert file_hash(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"other")
    assert file_hash(path) == hashlib.sha256(b"other").hexdigest()
    os.utime(path, (1, 1))  # touched, not changed
    assert file_hash(path) == hashlib.sha256(b"other").hexdigest()


def test_a_file_is_read_once_as_long_as_it_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = tmp_path / "a.txt", []
    path.write_bytes(b"one")
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: reads.append(1) or digest(*args))  # type: ignore[func-returns-value]
    assert file_hash(path) == file_hash(path)
    assert len(reads) == 1
    path.write_bytes(b"other")
    file_hash(path)
    assert len(reads) == 2


def test_a_folders_hash_is_that_of_names_and_contents(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "a.txt").write_text("one")
        (tmp_path / name / "b.txt").write_text("two")
    first, second = tmp_path / "first", tmp_path / "second"
    before = folder_hash(first)
    assert folder_hash(second) == before
    (second / "b.txt").rename(second / "c.txt")
    assert folder_hash(second) != before
    (first / "inner" / "a.txt").write_text("three")
    assert folder_hash(first) != before


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_hash(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        folder_hash(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        file_hash(tmp_path)
    (tmp_path / "a").write_text("")
    with pytest.raises(NotADirectoryError):
        folder_hash(tmp_path / "a")
