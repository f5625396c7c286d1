"""The wheel, installed alone into a fresh environment: its commands and suites work in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def grbench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment with the wheel, which sees the libraries of this one but not the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    # No network: the build backend is the hatchling of the extra dev.
    built = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(built, check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # Appended without its .pth files, so that the repository's editable install stays out.
    libraries = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "libraries.pth").write_text("".join(f"{path}\n" for path in libraries))
    return folder / "venv" / "bin" / "grbench"


@pytest.mark.slow
def test_a_wheel_made_from_the_sdist_is_the_same(grbench: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(tmp_path)]
    subprocess.run([*build, "--target", "sdist"], check=True, cwd=ROOT, timeout=120)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (sources,) = folder.iterdir()
    for needed in ("Makefile", "constraints.txt", "CITATION.cff", "suites/quickstart.yaml", "docs/quickstart.svg"):
        assert (sources / needed).is_file(), needed
    subprocess.run([*build, "--target", "wheel"], check=True, cwd=sources, timeout=120)
    (again,), (wheel,) = tmp_path.glob("*.whl"), grbench.parents[2].glob("*.whl")
    contents = [{entry.filename: entry.CRC for entry in zipfile.ZipFile(path).infolist()} for path in (again, wheel)]
    assert contents[0] == contents[1]


def called(grbench: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OMP_NUM_THREADS": "1", "GRBENCH_CACHE": str(folder / "cache")}
    return subprocess.run(
        [str(grbench), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=240,
    )


def test_it_lists_and_shows_the_suites_of_the_repository(grbench: Path, tmp_path: Path) -> None:
    listed = called(grbench, tmp_path, "suite", "list")
    assert listed.returncode == 0, listed.stderr
    files = sorted((ROOT / "suites").glob("*.yaml"))
    assert [line.split()[0] for line in listed.stdout.splitlines()[2:]] == [file.stem for file in files]
    assert "site-packages" in listed.stdout
    shown = called(grbench, tmp_path, "suite", "show", "quickstart")
    assert shown.stdout == (ROOT / "suites" / "quickstart.yaml").read_text()


def test_a_suite_runs_by_name_and_a_folder_of_that_name_does_not_hide_it(grbench: Path, tmp_path: Path) -> None:
    (tmp_path / "quickstart").mkdir()
    small = ["--set", "dataset.users=300", "--set", "dataset.items=500"]
    done = called(grbench, tmp_path, "run", "quickstart", "--only", "most_popular", "--seeds", "1", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "most_popular" in done.stdout
    assert len(list((tmp_path / "results" / "quickstart").glob("*.json"))) == 1


def test_the_first_example_of_help_is_such_a_run(grbench: Path, tmp_path: Path) -> None:
    text = called(grbench, tmp_path, "--help").stdout
    examples = [line.split("  ")[1].strip() for line in text.splitlines() if line.startswith("  grbench ")]
    assert examples[0] == "grbench run quickstart"


def test_an_unknown_name_is_refused_with_the_names_there_are(grbench: Path, tmp_path: Path) -> None:
    refused = called(grbench, tmp_path, "run", "quickstrat")
    assert refused.returncode == 2
    assert refused.stderr.startswith("grbench: quickstrat: no such suite")
    assert "quickstart" in refused.stderr
    assert "Traceback" not in refused.stderr
