"""What `grbench new plugin` writes, built as a wheel and installed into a fresh environment: its tests pass there, and
its suite gives a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from grbench.hookspecs import KINDS
from grbench.scaffold.package import package_files, write_package
from grbench.scaffold.package_name import PackageName

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder, with one plug-in of each kind."""
    folder = tmp_path_factory.mktemp("new") / "my-parts"
    write_package(folder, package_files(PackageName("my-parts"), KINDS, {}))
    return folder


@pytest.fixture(scope="module")
def python(package: Path) -> Path:
    """Of a new environment that sees what this one has installed, and has the package's wheel."""
    place = package.parent
    pip = [sys.executable, "-m", "pip", "--quiet"]
    # No network: the build backend is the hatchling of the extra dev.
    built = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(place), str(package)]
    subprocess.run(built, check=True, timeout=600)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=False)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    libraries = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "libraries.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in libraries))
    python = place / "venv" / "bin" / "python"
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=600)
    return python


def called(python: Path, folder: Path, *arguments: str) -> str:
    """What a module of the environment prints; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTEST_ADDOPTS")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),  # this checkout's grbench
        "OMP_NUM_THREADS": "1",
        "GRBENCH_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(
        [str(python), "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_suite_gives_a_table(python: Path, tmp_path: Path) -> None:
    shown = called(python, tmp_path, "grbench", "run", "my-parts", "--device", "cpu", "--only", "my_parts")
    table = [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("|")]
    assert table[2:] == ["my_parts"]
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results" / "my-parts").glob("*.json"))
    assert record["status"] == "ok"
    assert record["identity"]["training"]["encoder"]["plugin"]["distribution"] == "my-parts"
    assert set(record["scores"]) == {"hit_rate@10", "ndcg@10", "my_parts@10"}
    (values,) = (tmp_path / "results" / "my-parts").glob("*.d/my_parts/values.csv")
    assert values.read_text().startswith("step,name,value\n")


def test_its_tests_pass(python: Path, package: Path) -> None:
    # Those of each kind are run by test_new_plugin.
    said = called(python, package, "pytest", "-q", "-p", "no:cacheprovider", "-k", "metric or suite")
    assert "failed" not in said
    assert " passed" in said
