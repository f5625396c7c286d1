"""How to cite the project: the version is the package's, and a citation's required keys are there."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

from grbench import __version__

ROOT = Path(__file__).parents[2]


def test_the_citation_is_of_this_version() -> None:
    citation: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] == __version__
    assert citation["license"] == project["license"]
    assert citation["keywords"] == project["keywords"]
    assert citation["authors"] == [{"name": "The grbench authors"}]
    assert {"cff-version", "message", "title"} <= set(citation)
