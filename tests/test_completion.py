"""What a shell offers on TAB, by click's own completion."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from grbench.cli import cli, main


def offered(*words: str) -> list[str]:
    """For a command line whose last word is incomplete."""
    *before, incomplete = words
    found = BashComplete(cli, {}, "grbench", "_GRBENCH_COMPLETE").get_completions(before, incomplete)
    return [item.value for item in found if item.type == "plain"]


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["comp"], ["compare", "completion"]),
        (["run", "quick"], ["quickstart"]),
        (["run", "quickstart", "--only", "transformer_b"], ["transformer_bce"]),
        (["audit", "quickstart", "--only", "most"], ["most_popular"]),
        (["suite", "show", "amazon"], ["amazon_beauty"]),
        (["suite", "validate", "final"], ["final_round"]),
        (["score", "x.run", "--suite", "quick"], ["quickstart"]),
        (["plugins", "show", "enc"], ["encoders"]),
        (["plugins", "show", "encoders", "causal"], ["causal_transformer"]),
        (["plugins", "show", "loss", "full"], ["full_softmax"]),
        (["plugins", "list", "met"], ["metrics"]),
        (["rescore", "results", "--metric", "hit"], ["hit_rate", "hit_rate@10"]),
        (["rescore", "results", "--slice", "pop"], ["popularity"]),
        (["compare", "a", "b", "--slice", "history"], ["history_length"]),
        (["table", "results", "--format", "la"], ["latex"]),
        (["completion", "z"], ["zsh"]),
        (["data", "sy"], ["synth"]),
    ],
    ids=" ".join,
)
def test_names_are_completed(words: list[str], some: list[str]) -> None:
    assert offered(*words) == some


def test_files_are_offered_beside_suites(tmp_path: Path) -> None:
    found = BashComplete(cli, {}, "grbench", "_GRBENCH_COMPLETE").get_completions(["run"], "my_")
    assert [(item.type, item.value) for item in found] == [("file", "my_")]


def test_a_suite_that_cannot_be_read_offers_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("methods: [\n")
    assert offered("run", str(tmp_path / "broken.yaml"), "--only", "x") == []
    assert offered("run", "nowhere.yaml", "--only", "x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_GRBENCH_COMPLETE={shell}_complete" in script
    assert "grbench" in script


@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        # -f: a user without a .zshrc, whose completion nobody has switched on
        (["zsh", "-f", "-c"], "source {script} && print $_comps[grbench]"),
        (["fish", "--no-config", "-c"], "source {script}; complete --command grbench"),
        (["bash", "--norc", "-c"], "source {script} && complete -p grbench"),
    ],
    ids=["zsh", "fish", "bash"],
)
def test_a_real_shell_takes_the_script(
    shell: list[str], asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]}")
    assert main(["completion", shell[0]]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    command = [*shell, asked.format(script=tmp_path / "script")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"HOME": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_grbench_completion" in done.stdout
