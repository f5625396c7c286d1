"""`grbench audit` as a user calls it: table, file, exit status, and children that end badly."""

from __future__ import annotations

from pathlib import Path

import leaks
import pytest

from grbench.cli import main
from grbench.results.audit_file import read_audit

SUITE = """
suite: tiny
title: Tiny
dataset: {name: interactions, path: nowhere.json}
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  floor: {encoder: most_popular}
  leaky: {tokenizer: CountingTokenizer, encoder: most_popular}
  ends: {encoder: EndsItsProcess}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the suite, and the package of leaks on the path of children."""
    packages = tmp_path / "packages"
    metadata = packages / "leaks-0.0.1.dist-info"
    metadata.mkdir(parents=True)
    (packages / "leaks.py").write_text(Path(leaks.__file__).read_text())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: leaks\nVersion: 0.0.1\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nleaks = leaks\n")
    (tmp_path / "suite.yaml").write_text(SUITE)
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=":")
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "store_cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_leaks_are_told_and_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "suite.yaml", "--audit", "evaluated_futures", "--audit", "files"]) == 1
    out = capsys.readouterr().out
    assert "[1/3] floor: all pass" in out
    assert "- leaky: other values of the items, actions and times" in out
    assert "change the codes of tokenizer CountingTokenizer" in out
    assert "- ends: its process ended with exit status 3" in out
    made = read_audit(place / "results" / "tiny")
    assert made is not None
    verdicts = {method.method: [result.verdict for result in method.results] for method in made.methods}
    assert verdicts == {"floor": ["pass", "pass"], "leaky": ["leak", "pass"], "ends": ["unknown", "unknown"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "flor"], "there is no method 'flor'; did you mean floor?"),
        (["--audit", "caus"], "--audit caus: there is no such audit; "),
        (["--set", "protocol=leave_last"], "unknown protocol 'leave_last'; did you mean leave_last_out?"),
        (["--own-data"], "nowhere.json"),
    ],
)
def test_a_wrong_request_is_one_message(
    place: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "suite.yaml", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not (place / "results").exists()
