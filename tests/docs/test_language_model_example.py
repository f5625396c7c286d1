"""The example of a language model: a package of strangers' plug-ins, through the whole harness."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import everything

from grbench.errors import SuiteError
from grbench.testing import tiny_store

EXAMPLE = Path(__file__).parents[2] / "examples" / "language_model"


@pytest.fixture
def title_words(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tokenizer, which needs nothing but grbench."""
    monkeypatch.syspath_prepend(EXAMPLE)
    yield importlib.import_module("language_model.title_words").TitleWords
    for name in [name for name in sys.modules if name.split(".")[0] == "language_model"]:
        del sys.modules[name]


def test_the_codes_of_a_title_are_its_words(title_words: Any, tmp_path: Path) -> None:
    titles = ["Blue wool", None, "wool  blue scarf long", "blue wool", ""]
    data = everything(tiny_store(tmp_path, [[(item, 1, item) for item in range(1, 6)]], item_texts={"title": titles}))
    codes = title_words(words=3).fit(data)
    # Words by the alphabet from 1: blue, scarf, wool; 0 ends a title. The last level numbers items of the same words.
    assert codes.table.tolist() == [
        [0, 0, 0, 0],
        [1, 3, 0, 0],
        [0, 0, 0, 0],
        [3, 1, 2, 0],
        [1, 3, 0, 1],
        [0, 0, 0, 1],
    ]
    assert codes.sizes == (4, 4, 4, 2)
    assert codes.report == {"vocabulary": 3, "items_of_the_same_words": 2}
    assert torch.equal(title_words(text="title", words=3).stand_in(data).table, codes.table)
    with pytest.raises(SuiteError, match=r"tokenizer\.text: no text name in this dataset; it has title"):
        title_words(text="name").fit(data)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed: pip install transformers"
)
def test_it_runs_through_the_whole_harness(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    shutil.copytree(EXAMPLE / "language_model", packages / "language_model")
    metadata = packages / "language_model-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: language-model\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nlanguage_model = language_model\n")
    (metadata / "RECORD").write_text("language_model/__init__.py,,\n")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")]),
        "GRBENCH_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }

    def grbench(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "grbench", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert " 0 failed" in grbench("check", "language-model")
    shutil.copy(EXAMPLE / "suite.yaml", tmp_path)
    smaller = ["--set", "dataset.users=60", "--set", "defaults.training.epochs=1"]
    grbench("run", "suite.yaml", "--only", "language_model", *smaller)
    (path,) = (tmp_path / "results").glob("*/????????????????.json")
    record = json.loads(path.read_text())
    assert record["status"] == "ok"
    assert record["tokenizer"]["vocabulary"] == 24
    losses = record["curve"][0]
    assert all(losses[f"next_code_{level}"] > 0 for level in (1, 2, 3))
    assert "language_model" in grbench("table", str(path.parent))
