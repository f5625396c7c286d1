"""The command line: what users type, what they see, and the exit status that scripts go by."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from grbench import __version__
from grbench.cli import cli, main
from grbench.results.record import Record
from grbench.results.record_files import write_record
from grbench.results.values import with_values

SUITE = """
suite: tiny
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  floor: {encoder: most_popular}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a suite and its dataset."""
    (tmp_path / "users.json").write_text(json.dumps({f"u{user}": ["a", "b", "c", "d"] for user in range(4)}))
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "tabs.yaml").write_text("suite: tabs\nmethods:\n\tfloor: {encoder: most_popular}\n")
    (tmp_path / "bare.yaml").write_text("suite: bare\n")
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_record(method: str, score: float) -> Record:
    return Record(
        digest=method,
        suite="tiny",
        method=method,
        seed=0,
        status="ok",
        metrics={"ndcg@10": {"higher_is_better": True, "version": "1"}},
        pool={"size": 9, "digest": "p"},
        scores={"ndcg@10": score},
    )


def test_help_is_instant_because_nothing_heavy_is_imported() -> None:
    heavy = "('torch', 'numpy', 'pandas', 'pyarrow', 'scipy', 'faiss', 'rich.table')"
    script = f"""
import sys
from grbench.cli import main
status = main(["--help"])
assert status == 0, status
loaded = [name for name in {heavy} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in (
        "doctor",
        "run",
        "status",
        "table",
        "compare",
        "merge",
        "prune",
        "verify",
        "plugins",
        "suite",
        "schema",
    ):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", [*([name] for name in sorted(cli.commands)), ["plugins", "show"], []])
def test_every_command_shows_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert f"  grbench {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize("group", [[], ["data"], ["suite"], ["plugins"], ["inspect"], ["new"], ["schema"]])
def test_summaries_of_commands_are_whole(
    group: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*group, "--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert commands
    assert "..." not in commands


COMMANDS = [
    pytest.param([sys.executable, "-m", "grbench"], id="module"),
    pytest.param([str(Path(sys.executable).with_name("grbench"))], id="script", marks=pytest.mark.slow),
]


@pytest.mark.skipif(sys.flags.safe_path, reason="this Python never imports from the caller's folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_imported_from_the_folder_of_a_suite(world: Path, command: list[str]) -> None:
    for name in ("csv", "random", "json", "torch", "grbench_reference"):
        (world / f"{name}.py").write_text(f"raise SystemExit('{name}.py beside the suite was imported')\n")
    done = subprocess.run(
        [*command, "run", "suite.yaml", "--device", "cpu"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "floor, seed 0: ok" in done.stdout


def test_version_and_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "grbench", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert __version__ in done


def test_a_run_prints_plan_progress_and_table(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "suite.yaml", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "1 method x 1 seed = 1 cell: 0 done, 1 to do" in said.out
    assert "[1/1] floor, seed 0: ok, HR@2" in said.out
    assert "| floor" in said.out
    assert "Protocol: leave_last_out" in said.out
    assert "\x1b" not in said.out
    assert main(["table", "results/tiny"]) == 0
    # the same table, from the record alone
    assert capsys.readouterr().out in said.out
    assert "Kept in results/tiny" in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.yaml"], "missing.yaml"),
        (["run", "suite.yaml", "--set", "methods.floor.encoder=most_populr"], "most_popular"),
        (["run", "suite.yaml", "--set", "dataset.path=nowhere.json"], "nowhere.json"),
        (["run", "suite.yaml", "--only", "flor"], "floor"),
        (["run", "suite.yaml", "--seeds", "2"], "seeds"),
        (["run", "suite.yaml", "--seeds", "0"], "--seeds"),
        (["run", "suite.yaml", "--device", "tpu"], "--device"),
        (["suite", "validate", "missing.yaml"], "missing.yaml"),
        (["run", "suites/quickstart.yaml"], "no such file; quickstart alone names the installed suite"),
        (["run", "quickstrat"], "did you mean quickstart?"),
        (["run", "tabs.yaml"], "; indent by spaces: YAML takes no tabs"),
        (["run", "bare.yaml"], "bare.yaml: dataset: is missing, such as `dataset: {name: interactions"),
        (["data", "validate", "nowhere.csv"], "nowhere.csv: no such file; give a log"),
        (["table", "nothing"], "nothing: no such file or folder of results; grbench run SUITE writes"),
        (["table", "."], "not a record"),
        (["plugins", "show", "encoders", "transformer"], "causal_transformer"),
        (["plugins", "show", "models", "x"], "encoders"),
        (["rum"], "rum"),
    ],
)
def test_a_wrong_request_is_one_message_and_status_2(
    world: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert not (world / "results").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/job.json"),
            "/tmp/job.json: No space left on device; free some, or choose another folder (--results, --cache, --out)",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "Read-only file system; choose another folder (--results, --cache, --out)",
        ),
        (
            ImportError("no libcudart.so.13"),
            "no libcudart.so.13; grbench doctor --thorough says what is missing and how to add it",
        ),
        (OSError("no address"), "no address"),
        (ConnectionError(), "ConnectionError"),
    ],
)
def test_what_the_system_refuses_is_one_message_and_status_2(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("grbench.run.run_suite.run_suite", refuse)
    assert main(["run", "suite.yaml"]) == 2
    assert capsys.readouterr().err == f"grbench: {said}\n"
    assert main(["--debug", "run", "suite.yaml"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_the_traceback(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "missing.yaml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_tables_go_to_files_in_the_format_of_their_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, hits in (("a", [1, 0, 0, 0, 0] * 8), ("b", [1, 0, 1, 0, 0] * 8)):
        lists = with_values(pa.table({"user": np.arange(40)}), {"ndcg@10": np.array(hits, float)})
        write_record(tmp_path / "results", a_record(name, sum(hits) / 40), lists)
    results = str(tmp_path / "results")
    for name, mark in (("t.tex", r"\textbf{.4000}"), ("t.md", "**.4000**"), ("t.csv", "0.4")):
        assert main(["table", results, "--out", str(tmp_path / name)]) == 0
        assert mark in (tmp_path / name).read_text()
    assert main(["table", results, "--format", "latex"]) == 0
    assert capsys.readouterr().out == (tmp_path / "t.tex").read_text()
    assert main(["table", results, "--format", "terminal"]) == 0
    assert "\x1b[1m.4000" in capsys.readouterr().out
    assert main(["table", results, "--out", str(tmp_path / "t.txt")]) == 0
    lines = (tmp_path / "t.txt").read_text().splitlines()
    assert "\x1b" not in "".join(lines)
    assert [line.split()[:2] for line in lines if line.strip().startswith(("a ", "b "))] == [
        ["a", ".2000"],
        ["b", ".4000"],
    ]
    assert main(["table", results, "--format", "csv", "--out", str(tmp_path / "no_suffix")]) == 0
    assert (tmp_path / "no_suffix").read_text() == (tmp_path / "t.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "t.png"], "t.png: tables are not written as .png; known suffixes are .txt (terminal), .md (md)"),
        (["--out", "t.pdf", "--format", "md"], "t.pdf: tables are not written as .pdf"),
        (["--out", "t.html"], "t.html: tables are not written as .html"),
        (["--out", "t.csv", "--format", "md"], "t.csv: --format md does not go with the suffix, which stands for csv"),
        (["--out", "table"], "table: has no suffix to choose a format by; give --format, or one of .txt"),
    ],
)
def test_a_table_is_not_written_under_a_name_of_another_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    write_record(tmp_path / "results", a_record("a", 0.1))
    monkeypatch.chdir(tmp_path)
    assert main(["table", "results", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_an_empty_results_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(tmp_path)]) == 2
    assert "there are no records" in capsys.readouterr().err


def test_a_table_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path, a_record("a", 0.1))
    (tmp_path / "file").touch()
    assert main(["table", str(tmp_path), "--out", str(tmp_path / "file" / "such.md")]) == 2
    assert f"such.md: cannot be written, because {tmp_path / 'file'} is a file and no folder" in capsys.readouterr().err
    assert main(["table", str(tmp_path), "--out", str(tmp_path / "file" / "deep" / "such.md")]) == 2
    assert f"because {tmp_path / 'file'} is a file" in capsys.readouterr().err


def test_plugins_are_listed_and_shown(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["kind", "name", "distribution", "version", "options"]
    assert any(line.split()[:3] == ["encoders", "most_popular", "grbench"] for line in lines)
    assert main(["plugins", "list", "metrics"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()[2:] if not line.startswith(" ")}
    assert listed == {"metrics"}
    assert main(["plugins", "show", "encoder", "causal_transformer"]) == 0
    shown = capsys.readouterr().out
    for column in ("option", "type", "default", "width"):
        assert column in shown


def test_a_suite_is_validated_without_its_data(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "users.json").unlink()
    assert main(["suite", "validate", "suite.yaml"]) == 0
    assert "suite.yaml: valid, 1 cell (1 method)" in capsys.readouterr().out
    assert main(["suite", "validate", "suite.yaml", "--set", "methods.floor.encoder.actons=[click]"]) == 2
    assert "actions" in capsys.readouterr().err


def test_all_that_is_wrong_with_all_suites_is_listed(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--set", "title=3", "--set", "methods.floor.encoder=nobody", "--set", "protocol=nobody"]
    assert main(["suite", "validate", "suite.yaml", "missing.yaml", *wrong]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.removeprefix("grbench: ").partition(": ")[0] for line in lines] == ["suite.yaml"] * 3 + [
        "missing.yaml"
    ]
    for part, line in zip(("title", "protocol", "methods.floor.encoder", "no such file"), lines, strict=True):
        assert f": {part}" in line


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "methods" in schema["properties"]


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    for number in range(300):
        write_record(tmp_path, a_record(f"method_{number}", number / 1000))
    done = subprocess.run(
        f"'{sys.executable}' -m grbench table '{tmp_path}' | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
