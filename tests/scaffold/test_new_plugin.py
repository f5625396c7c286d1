"""`grbench new plugin`: what it writes for each kind is checked in this process, and what it refuses."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from worlds import featured, training_data

from grbench.cli import main
from grbench.cost.meter import count_parameters
from grbench.errors import PluginError
from grbench.hookspecs import KINDS, singular
from grbench.registry.discovery import Registry
from grbench.scaffold.package import package_files, read_author, write_package
from grbench.scaffold.package_name import LONGEST, PackageName
from grbench.suite.method import read_component
from grbench.suite.suite import checked_cells
from grbench.testing.checks.all_checks import CHECKS
from grbench.testing.checks.chosen import chosen_plugins
from grbench.testing.checks.plain_parts import PlainTokenizer
from grbench.testing.checks.run_checks import run_check


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone_passes_its_checks_and_has_a_valid_suite(
    kind: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, module = f"lone-{singular(kind)}", f"lone_{singular(kind)}"
    assert main(["new", "plugin", name, "--kinds", singular(kind)]) == 0
    monkeypatch.syspath_prepend(here / name / "src")
    registry = Registry.load()
    registry.add(module, name, "0.1.0", lambda: importlib.import_module(module))
    sample = {"path": str(here / name / "src" / module / "sample.csv")} if kind == "datasets" else {}
    (plugin,) = chosen_plugins(registry, [name], sample).plugins
    outcomes = {check.name: run_check(check, plugin) for check in CHECKS[kind]}
    assert {name: each.seen for name, each in outcomes.items() if each.verdict == "failed"} == {}
    assert sum(each.verdict == "passed" for each in outcomes.values()) >= 6

    cells = checked_cells(here / name / "src" / f"{module}_suites" / f"{name}.yaml", (), registry)
    assert [cell.error for cell in cells if cell.error] == []
    assert {"most_popular", "reference"} <= {cell.method.name for cell in cells}
    uses = (here / name / "src" / f"{module}_suites" / f"{name}.yaml").read_text().replace(f"suite: {name}", "")
    assert module in yaml.safe_dump(yaml.safe_load(uses))


@pytest.mark.parametrize("name", ["my-parts", "a" + "-bcdefghi" * 4 + "-jk"])
def test_what_is_written_is_formatted_and_linted(name: str, tmp_path: Path) -> None:
    write_package(tmp_path / name, package_files(PackageName(name), KINDS, {}))
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
        done = subprocess.run(command, cwd=tmp_path / name, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_author_is_in_the_metadata_and_what_comes_next_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    author = 'Zoë "Z" O\\Neill <zoe@example.org>'
    assert main(["new", "plugin", "my-parts", "--kinds", "losses, encoder", "--out", "a/b c", "--author", author]) == 0
    said = capsys.readouterr().out
    assert "encoder, loss my_parts" in said
    commands = ["cd 'a/b c'", "pip install -e '.[dev]'", "grbench check my-parts", "pytest", "grbench run my-parts"]
    assert [line.strip() for line in said.split("Next:\n")[1].splitlines()[: len(commands)]] == commands
    project = tomllib.loads((here / "a" / "b c" / "pyproject.toml").read_text())["project"]
    assert project["authors"] == [{"name": 'Zoë "Z" O\\Neill', "email": "zoe@example.org"}]
    assert "license" not in project


@pytest.mark.parametrize(("author", "found"), [(None, None), ("Jane Doe", [{"name": "Jane Doe"}])])
def test_an_address_and_an_author_need_not_be_given(author: str | None, found: list[dict[str, str]] | None) -> None:
    text = package_files(PackageName("my-parts"), ["losses"], read_author(author))["pyproject.toml"]
    assert tomllib.loads(text)["project"].get("authors") == found


def test_the_reference_reads_the_same_inputs_as_the_encoder_beside_it(tmp_path: Path) -> None:
    suite = yaml.safe_load(
        package_files(PackageName("my-parts"), ["encoders"], {})["src/my_parts_suites/my-parts.yaml"]
    )
    component = read_component(suite["methods"]["reference"]["encoder"], "encoder")
    histories = [[(1, 0, 10), (2, 1, 20)], [(2, 0, 10)], [(3, 1, 5)], [(4, 0, 1)]]
    plain, rich = training_data(tmp_path / "plain", histories, num_items=6), featured(tmp_path / "rich")
    assert rich.catalogue.user_features.fields
    sizes = [
        count_parameters(Registry.load().build("encoders", component, data, PlainTokenizer().fit(data)))
        for data in (plain, rich)
    ]
    assert sizes[0] == sizes[1]


def test_publishing_needs_nothing_but_the_extra_dev() -> None:
    files = package_files(PackageName("my-parts"), ["losses"], {})
    extras = tomllib.loads(files["pyproject.toml"])["project"]["optional-dependencies"]
    assert {"build", "twine"} <= {*extras["dev"]}
    assert "python -m build" in files["README.md"]
    assert "python -m twine upload" in files["README.md"]


def test_a_name_that_yaml_would_read_as_something_else_stays_a_name() -> None:
    suite = yaml.safe_load(package_files(PackageName("no"), KINDS, {})["src/no_suites/no.yaml"])
    assert suite["suite"] == suite["dataset"] == suite["methods"]["no"]["loss"] == "no"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1st", "no name of a package"),
        ("my.parts", "no name of a package"),
        ("../parts", "no name of a package"),
        ("a" * (LONGEST + 1), f"at most {LONGEST} characters"),
        ("class", "a word of Python"),
        ("json", "a module of Python"),
        ("GRBench", "the installed distribution grbench"),
        ("infonce", "the loss infonce of grbench"),
        ("hit-rate", "the metric hit_rate of grbench"),
        ("quickstart", "the installed suite quickstart"),
        ("reference", "another row"),
        ("grbench-reference", "the package grbench_reference"),
    ],
)
def test_names_that_are_refused(name: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "plugin", name, "--kinds", "loss"]) == 2
    assert said in capsys.readouterr().err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("kinds", ["encodr", "loss,encodr", "", ",", "all,loss"])
def test_kinds_that_are_refused_are_told_with_those_there_are(
    kinds: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "plugin", "my-parts", "--kinds", kinds]) == 2
    assert ", ".join(map(singular, KINDS)) in capsys.readouterr().err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("author", ["<jane@example.org>", "jane@example.org", "Jane\nDoe", ""])
def test_authors_that_are_refused(author: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "plugin", "my-parts", "--kinds", "loss", "--author", author]) == 2
    assert "Jane Doe <jane@example.org>" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my-parts").mkdir()
    assert main(["new", "plugin", "my-parts", "--kinds", "loss"]) == 2
    assert "my-parts: exists already" in capsys.readouterr().err
    assert list(here.rglob("*")) == [here / "my-parts"]


def test_nothing_is_half_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="file"):
        write_package(tmp_path / "new", {"file": "", "file/below": ""})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(PluginError, match="exists already"):
        write_package(tmp_path / "link", {"file": ""})
