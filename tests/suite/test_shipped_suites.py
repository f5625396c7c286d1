"""The suites that are shipped, with the plug-ins that are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from grbench.registry.discovery import Registry
from grbench.suite.suite import load_suite

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))


@pytest.fixture(scope="session")
def installed() -> Registry:
    return Registry.load()


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_the_shipped_suites_are_right(path, installed):
    suite = load_suite(path)
    found = suite.cells(installed)
    assert suite.name == path.stem
    assert [cell.error for cell in found] == [None] * len(found)
    assert suite.baseline in suite.methods
    assert "most_popular" in {cell.method.encoder.name for cell in found}, "every suite carries the floor"
