"""`grbench reproduce`: what it runs, what it says, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grbench.cli import main

SUITE = """
suite: tiny
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  floor: {encoder: most_popular}
  other: {encoder: most_popular, filters: [history]}
"""
FIGURE = "published: {floor: [{metric: hit_rate@2, value: %s, source: a paper, same_protocol: true}]}\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four users whose last item, d, is the least popular of four in training: nobody's list of two has it."""
    (tmp_path / "users.json").write_text(json.dumps({f"u{user}": ["a", "b", "c", "d"] for user in range(4)}))
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_suite_is_run_and_judged_and_judged_again_without_its_data(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = world / "suite.yaml"
    suite.write_text(SUITE + FIGURE % 0)
    assert main(["reproduce", "suite.yaml", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "2 methods x 1 seed = 2 cells: 0 done, 2 to do" in said
    assert "1 met, 1 no figure" in said
    assert "[1] a paper (same protocol)" in said
    (world / "users.json").unlink()
    assert main(["reproduce", "suite.yaml", "--device", "cpu"]) == 2
    assert "users.json" in capsys.readouterr().err
    assert main(["reproduce", "suite.yaml", "--from-records"]) == 0
    assert said.endswith(capsys.readouterr().out)
    # the figures are the suite's of now, not those of the records
    suite.write_text(SUITE + FIGURE % 0.5)
    assert main(["reproduce", "suite.yaml", "--from-records"]) == 1
    assert "1 below" in capsys.readouterr().out
    # and tables have those that the records were made with
    assert main(["table", "results/tiny", "--format", "md"]) == 0
    assert ".0000 (+.0000, inside) [1]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (SUITE, [], "published: has no figure of any method"),
        (SUITE + FIGURE % 0, ["--only", "other"], "published: has no figure of these methods"),
        (SUITE + FIGURE % 0, ["--from-records"], "there are no records of this suite"),
        (SUITE + FIGURE % "high", [], "published.floor.0.value"),
        (SUITE + FIGURE % 0, ["--seeds", "9"], "seeds"),
    ],
)
def test_a_wrong_request_is_one_message_and_nothing_is_run(
    world: Path, capsys: pytest.CaptureFixture[str], text: str, arguments: list[str], said: str
) -> None:
    (world / "suite.yaml").write_text(text)
    assert main(["reproduce", "suite.yaml", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert not (world / "results").exists()


def test_the_help_has_the_options_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--help"]) == 0
    said = capsys.readouterr().out
    assert "  grbench reproduce amazon_beauty" in said
    for option in ("--results", "--only", "--seeds", "--set", "--device", "--from-records"):
        assert option in said
    assert "--dry-run" not in said
