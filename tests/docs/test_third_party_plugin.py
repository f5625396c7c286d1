"""The guide's package, pip-installed into a fresh environment, takes part without any change to the project."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training import train_once
from worlds import everything

from grbench.data.split import Split
from grbench.registry.options import bind, bound_values
from grbench.testing import tiny_store
from grbench.training.options import TrainingOptions

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "writing_a_plugin.md").read_text()


def block(title: str, language: str) -> str:
    """The first code block of a language behind a line of the guide: what its readers copy is what is tested."""
    fence = re.compile(rf"{re.escape(title)}.*?```{language}\n(.*?)```", re.DOTALL)
    found = fence.search(GUIDE)
    assert found is not None, title
    return found.group(1)


PYPROJECT = block("`pyproject.toml`:", "toml")
HOOKS = block("`mean_of_history.py`:", "python")
PARTS = block("`mean_of_history_parts.py`:", "python")
SUITE = block("pip install ./mean-of-history", "yaml")
GROUP = block("## Options shared by plug-ins", "python")
TRAINER = block("## A trainer", "python")


@pytest.fixture(scope="module")
def fresh_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment that sees what this one has installed, and the package installed into it by pip."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    here = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there = Path(command(python, "-c", code).stdout.strip())
    lines = [f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(here)]
    (there / "what_this_one_has.pth").write_text("\n".join(lines) + "\n")

    package = folder / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(PYPROJECT)
    (package / "mean_of_history.py").write_text(HOOKS)
    (package / "mean_of_history_parts.py").write_text(PARTS)
    # No network: the build backend is the setuptools of the extra dev.
    command(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", str(package))
    assert (there / "mean_of_history.py").is_file()
    return python


def command(
    python: Path, *arguments: str, status: int = 0, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])  # this checkout's grbench
    environment["OMP_NUM_THREADS"] = "1"  # threads only get into each other's way in so small a world
    done = subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=120
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_the_package_is_short() -> None:
    assert len([line for line in (HOOKS + PARTS).splitlines() if line.strip()]) < 40


def test_the_guide_s_group_is_bound_from_flat_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guide_of_groups.py").write_text(GROUP)
    monkeypatch.syspath_prepend(tmp_path)
    encoder = importlib.import_module("guide_of_groups").SmallEncoder
    assert bind(encoder, {"depth": 2, "table_dropout": 0.1}, "x") == {"depth": 2, "width": 8, "table_dropout": 0.1}
    data = everything(tiny_store(tmp_path, [[(1, 1, 10), (2, 1, 20)]]))
    table = encoder(data, None, **bound_values(encoder, {"table_dropout": 0.1}, "x")).table
    assert table.vectors.weight.shape == (3, 8)
    assert table.dropout == 0.1


def test_it_is_listed_with_its_distribution(fresh_environment: Path) -> None:
    lines = command(fresh_environment, "-m", "grbench", "plugins").stdout.splitlines()
    encoder = next(line for line in lines if line.startswith("encoders") and "mean_of_history" in line)
    assert "mean-of-history" in encoder
    assert "3.1.4" in encoder
    assert "width" in encoder
    assert any(line.startswith("metrics") and "first_place" in line for line in lines)
    assert any("most_popular" in line for line in lines)
    shown = command(fresh_environment, "-m", "grbench", "plugins", "show", "encoders", "mean_of_history").stdout
    assert "numbers in a vector" in shown
    core = command(fresh_environment, "-c", "import grbench; print(grbench.__file__)", folder=Path("/")).stdout
    assert Path(core.strip()).is_relative_to(ROOT)


def test_it_stands_in_a_suites_table(fresh_environment: Path, tmp_path: Path) -> None:
    users = {f"u{user}": [f"i{(user + step) % 9}" for step in range(6)] for user in range(40)}
    (tmp_path / "my_log.json").write_text(json.dumps(users))
    (tmp_path / "suite.yaml").write_text(SUITE)
    done = command(
        fresh_environment,
        *("-m", "grbench", "run", "suite.yaml", "--device", "cpu", "--cache", str(tmp_path / "cache")),
        folder=tmp_path,
    )
    heading, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert "first_place" in heading.lower() or "FP" in heading
    assert [row.split("|")[1].strip() for row in rows[1:]] == ["most_popular", "mean_of_history"]
    records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "strangers").glob("*.json")]
    assert {record["status"] for record in records} == {"ok"}
    assert all(set(record["scores"]) == {"hit_rate@3", "first_place"} for record in records)
    encoders = {record["identity"]["training"]["encoder"]["plugin"]["distribution"] for record in records}
    assert encoders == {"mean-of-history", "grbench"}
    assert sys.executable != str(fresh_environment)


def test_the_guides_trainer_changes_what_a_step_sees(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    exec(TRAINER, made)
    seen: list[list[int]] = []

    class Watching(nn.Module):
        def forward(self, encoder: Any, batch: Any) -> dict[str, torch.Tensor]:
            seen.extend(batch.actions.tolist())
            return {"one": encoder.weight.sum()}

    encoder = nn.Linear(1, 1)
    encoder.history_length = 3  # type: ignore[assignment]
    data = everything(tiny_store(tmp_path, [[(1, 0, 1), (2, 1, 2), (3, 0, 3)]]))
    options = TrainingOptions(epochs=1, batch_size=1, workers=0)
    for share in (0.0, 1.0):
        trainer = made["HiddenActions"](**bound_values(made["HiddenActions"], {"share": share}, "trainer"))
        optimizers = [torch.optim.SGD(encoder.parameters(), lr=0.1)]
        train_once(encoder, [(Watching(), 1.0)], optimizers, Split(data, None, None, None), options, trainer=trainer)
    assert seen == [[0, 2, 3], [0, 1, 1]]
