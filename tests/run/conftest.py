"""A working folder of a tiny suite."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Its metadata lies beside it, as if pip had installed it.
FAULTY = (Path(__file__).parents[1] / "support" / "faulty_encoders.py").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six users over four items, the faulty package on the path of this process and its children, a store cache."""
    place = tmp_path_factory.mktemp("place")
    users = {f"u{user}": [f"i{(user + step) % 4}" for step in range(4)] for user in range(6)}
    (place / "users.json").write_text(json.dumps(users))
    packages = place / "packages"
    metadata = packages / "faulty-0.0.1.dist-info"
    metadata.mkdir(parents=True)
    (packages / "faulty.py").write_text(FAULTY)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 0.0.1\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nfaulty = faulty\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(packages))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("GRBENCH_CACHE", str(place / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")  # threads only get into each other's way in so small a world
        yield place


@pytest.fixture
def world(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with that dataset."""
    shutil.copy(place / "users.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
