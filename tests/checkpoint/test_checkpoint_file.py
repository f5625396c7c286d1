"""A checkpoint's file is whole or is not used: what is cut off, altered, of another kind or hostile is refused."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from grbench.checkpoint import file as files
from grbench.checkpoint.file import DamagedFileError, read_about, read_file, write_file
from grbench.errors import RunError

CONTENT = {"weights": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.bfloat16), "step": (1, 0.1)}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "some.safetensors"
    write_file(path, "checkpoint", {"total_steps": 3}, CONTENT)
    return path


def test_what_was_written_is_read(written: Path) -> None:
    about, content = read_file(written, "checkpoint")
    assert about == read_about(written, "checkpoint") == {"total_steps": 3}
    assert content["step"] == (1, 0.1)
    assert torch.equal(content["weights"], CONTENT["weights"])
    assert torch.equal(content["half"], CONTENT["half"])
    assert [each.name for each in written.parent.iterdir()] == ["some.safetensors"]


def test_other_programs_read_the_tensors(written: Path) -> None:
    assert torch.equal(load_file(written)["weights"], CONTENT["weights"])


def test_what_was_read_does_not_hang_on_the_file(written: Path) -> None:
    _, content = read_file(written, "checkpoint")
    written.write_bytes(b"")
    content["weights"] += 1
    assert torch.equal(content["weights"], CONTENT["weights"] + 1)


def test_a_write_that_breaks_off_leaves_the_file_before(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    before = written.read_bytes()
    monkeypatch.setattr(files, "serialize_file", half)
    with pytest.raises(RunError, match=r"some.safetensors: cannot be written \(.*No space left on device"):
        write_file(written, "checkpoint", {}, CONTENT)
    assert written.read_bytes() == before
    assert len(list(written.parent.iterdir())) == 1


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"some\.safetensors: trainer/seen is a set"):
        write_file(tmp_path / "some.safetensors", "checkpoint", {}, {"trainer": {"seen": {1}}})
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_cut_off_anywhere_is_refused(written: Path) -> None:
    whole = written.read_bytes()
    for length in range(0, len(whole), 11):
        written.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError, match=r"some\.safetensors: ") as raised:
            read_file(written, "checkpoint")
        assert "\n" not in str(raised.value)


def test_a_file_with_one_bit_changed_anywhere_is_refused_or_the_same(written: Path) -> None:
    whole = written.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        written.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            _, content = read_file(written, "checkpoint")
        except DamagedFileError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017 - which of them are refused is counted
        else:
            assert torch.equal(content["weights"], CONTENT["weights"])
            assert content["step"] == (1, 0.1)
    assert refused > 0.9 * len(whole) / 3  # the others are spaces and unused letters of the header


@pytest.mark.parametrize("kind", ["weights", "check"])
def test_a_file_of_another_kind_is_refused(written: Path, kind: str) -> None:
    for read in (read_file, read_about):
        with pytest.raises(DamagedFileError, match=f"it is no {kind}"):
            read(written, kind)


def test_a_file_of_another_version_is_refused(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "VERSION", 2)
    with pytest.raises(DamagedFileError, match="it is of version 1, and this grbench reads 2"):
        read_file(written, "checkpoint")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="absent"):
        read_file(tmp_path / "absent", "checkpoint")


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("touched"),)


def hostile() -> dict[str, bytes]:
    deep = "[" * 100_000 + "]" * 100_000
    said = {"kind": "checkpoint", "version": 1, "about": {}, "content": {}}
    return {
        "pickle": pickle.dumps(Evil()),
        "huge header": struct.pack("<Q", 1 << 60) + b"{}",
        "no metadata": header({}),
        "not JSON": header({"grbench": "{", "crc32": ""}),
        "deep": header({"grbench": json.dumps(said).replace("{}}", deep + "}"), "crc32": ""}),
        "a list": header({"grbench": "[]", "crc32": ""}),
        "no number": header({"grbench": json.dumps(said | {"version": "1" * 10_000}), "crc32": ""}),
    }


def header(metadata: dict[str, str]) -> bytes:
    text = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize("name", list(hostile()))
def test_hostile_files_are_refused_and_run_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(hostile()[name])
    for read in (read_file, read_about):
        with pytest.raises(DamagedFileError) as raised:
            read(path, "checkpoint")
        assert len(str(raised.value)) < 500
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
