"""Whether a folder is the same on another machine: here, two folders stand for two machines' own."""

from __future__ import annotations

from pathlib import Path

import pytest

from grbench.errors import RunError
from grbench.run.backends.shared_folder import marked, require_shared


def test_a_folder_that_both_see_and_one_that_only_one_does(tmp_path: Path) -> None:
    with marked(tmp_path / "results") as mark:
        require_shared(mark, patience=0)
        (tmp_path / "local").mkdir()
        for other in ("local", "nothing"):
            with pytest.raises(RunError, match=f"{other}: is another folder on .* give --results on a file system"):
                require_shared({**mark, "folder": str(tmp_path / other), "host": "head"}, patience=0)
    assert list((tmp_path / "results").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"), marked(tmp_path / "file"):
        pass
