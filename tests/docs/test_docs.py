"""The suites and methods that the pages show are right, and every plug-in that ships is on the page that lists them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from grbench.registry.discovery import KINDS, Registry
from grbench.suite.suite import load_suite

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks() -> list[Any]:
    """(a page's first suite; one of its blocks: that suite, methods to put into it, or other keys of it)."""
    found = []
    for page in ("running_a_suite.md", "methods.md", "more_than_one_machine.md"):
        shown = [textwrap.dedent(block) for block in FENCE.findall((DOCS / page).read_text())]
        suite = next(block for block in shown if "suite" in yaml.safe_load(block))
        found += [pytest.param(suite, block, id=f"{page}-{place}") for place, block in enumerate(shown)]
    return found


@pytest.fixture(scope="module")
def installed() -> Registry:
    return Registry.load()


@pytest.mark.parametrize(("suite", "block"), blocks())
def test_what_a_page_shows_is_right(suite: str, block: str, installed: Registry, tmp_path: Path) -> None:
    shown = yaml.safe_load(block)
    if shown.keys() & {"tuning", "defaults", "dataset"}:
        shown = yaml.safe_load(suite) | shown
    elif "suite" not in shown:
        shown = yaml.safe_load(suite) | {"methods": yaml.safe_load(suite)["methods"] | shown}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(shown))
    cells = load_suite(path).cells(installed)
    assert [cell.error for cell in cells] == [None] * len(cells)
    assert {cell.method.name.partition("[")[0] for cell in cells} == set(shown["methods"])


def test_every_plug_in_that_ships_is_listed(installed: Registry) -> None:
    page = (DOCS / "methods.md").read_text()
    shipped = {name for kind in KINDS for name in installed.names(kind) if installed.origin(kind, name)[0] == "grbench"}
    assert {name for name in shipped if f"`{name}`" not in page} == set()
