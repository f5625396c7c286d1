"""Each file that the page on logs shows is read, as it says, to the one log that all of them hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from logs import histories, store_of

PAGE = (Path(__file__).parents[2] / "docs" / "your_own_data.md").read_text()
BLOCK = re.compile(r"^```(text (?P<file>\S+)|yaml)\n(?P<content>.*?)^```", re.DOTALL | re.MULTILINE)


def examples() -> list[Any]:
    """(files {name: content}, dataset) of each example."""
    found: list[Any] = []
    files: dict[str, str] = {}
    for block in BLOCK.finditer(PAGE):
        if block["file"]:
            files[block["file"]] = block["content"]
        else:
            found.append(pytest.param(files, yaml.safe_load(block["content"])["dataset"], id="+".join(files)))
            files = {}
    return found


def test_the_page_has_examples() -> None:
    assert len(examples()) == len(re.findall("^dataset:", PAGE, re.MULTILINE)) == 11


@pytest.mark.parametrize(("files", "dataset"), examples())
def test_an_example_is_read_as_the_page_says(
    files: dict[str, str], dataset: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    assert dataset.pop("name") == "interactions"
    store = store_of(dataset.pop("path"), tmp_path / "cache", **dataset)
    assert histories(store) == {"ann": ["tea", "cup", "pot"], "bob": ["cup", "tea"]}
