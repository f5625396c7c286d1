"""How messages name the commands of this installation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from grbench.invocation import pip, program


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment in the working folder, whose Python runs this."""
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "grbench"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_program_on_the_path_goes_by_its_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert program() == "grbench"
    assert pip("install 'grbench[dev]'") == "python -m pip install 'grbench[dev]'"


def test_another_one_goes_by_its_path(environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "'my env/bin/grbench'"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert program() == f"'{environment}/grbench'"
    (environment / "grbench").unlink()
    assert program() == f"'{environment}/python' -m grbench"
