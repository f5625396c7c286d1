"""The guides: their commands run on the results that come with the project, their figures are those of these results,
and what they list is complete. They can be read without the site."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from grbench.cli import main
from grbench.hookspecs import KINDS
from grbench.registry.discovery import Registry
from grbench.suite.suite import load_suite

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = ("first_table.md", "trustworthy_numbers.md", "reviewing.md")
FENCE = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
READING = ("table", "compare", "verify")
"""Commands that read results and nothing else, unless they are asked to (`--suite`)."""


def commands() -> list[str]:
    """Each command that reads the quickstart's results, once; the others are only parsed (test_documented_commands)."""
    blocks = [block for page in GUIDES for block in FENCE.findall((DOCS / page).read_text())]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("grbench ")]
    reading = [
        line
        for line in lines
        if line.split()[1] in READING and "--suite" not in line and "transformer_deeper" not in line
    ]
    return list(dict.fromkeys(reading))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which a reader has run the quickstart."""
    (tmp_path / "results").symlink_to(ROOT / "results" / "sample")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", commands())
def test_a_command_of_a_guide_runs(line: str, results: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line, comments=True)[1:]) == 0
    assert "transformer_infonce" in capsys.readouterr().out.replace("\\_", "_")  # in LaTeX


def test_guides_have_commands_of_each_kind() -> None:
    assert {line.split()[1] for line in commands()} == set(READING)


@pytest.mark.parametrize("page", ["index.md", "first_table.md"])
def test_the_figures_shown_are_those_of_the_table(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(ROOT / "results" / "sample" / "quickstart"), "--format", "md"]) == 0
    printed = cells(capsys.readouterr().out)
    shown = cells((DOCS / page).read_text())
    for method in ("most_popular", "transformer_bce", "transformer_infonce"):
        assert len(shown[method]) == 6
        assert set(shown[method]) <= set(printed[method])


def cells(text: str) -> dict[str, list[str]]:
    """{first cell of a table's line: the line's cells}"""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: line for line in lines}


def test_the_method_that_is_added_to_the_quickstart_is_right(tmp_path: Path) -> None:
    (added,) = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "first_table.md").read_text(), re.DOTALL | re.MULTILINE)
    suite = yaml.safe_load((ROOT / "suites" / "quickstart.yaml").read_text())
    suite["methods"] |= yaml.safe_load(added)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    cells = load_suite(tmp_path / "suite.yaml").cells(Registry.load())
    assert [cell.error for cell in cells if cell.method.name == "transformer_deeper"] == [None, None]


def test_the_architecture_lists_every_room_in_the_order_of_its_imports() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer.removeprefix("grbench.") for layer in contracts[0]["layers"]]
    rooms = [layer for layer in layers if (ROOT / "grbench" / layer).is_dir()]
    listed = re.findall(r"^\| `(\w+)/` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert listed == rooms
    assert set(rooms) == {path.parent.name for path in (ROOT / "grbench").glob("*/__init__.py")}


def test_the_picture_has_rooms_that_exist_and_every_kind_that_a_cell_calls() -> None:
    picture = (DOCS / "architecture.svg").read_text()
    rooms = set(re.findall(r"\b(\w+)/(?=[ <])", picture))
    assert len(rooms) > 10
    assert {room for room in rooms if not (ROOT / "grbench" / room).is_dir()} == set()
    assert {kind.singular for kind in KINDS.values() if not re.search(rf"\b{kind.singular}\b", picture)} == set()


def test_every_kind_has_a_check() -> None:
    page = (DOCS / "publishing_a_plugin.md").read_text()
    assert {kind.singular for kind in KINDS.values() if f"\n| {kind.singular} |" not in page} == set()


PAGES = [
    *sorted(DOCS.glob("*.md")),
    *(ROOT / name for name in ("README.md", "examples/README.md", "results/README.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    """So that pages can be read where they are, without the site."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target}
    assert {target for target in targets - {""} if not (page.parent / target).exists()} == set()
