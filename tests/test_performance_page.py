"""The programs in docs/performance.md do what it says of them, here at a size that takes no time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grbench.testing import tiny_store

PAGE = (Path(__file__).parents[1] / "docs" / "performance.md").read_text()


def program(opening: str) -> str:
    """The first Python block behind a line of the page."""
    found = re.search(rf"{re.escape(opening)}.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, opening
    return found.group(1)


def test_the_loaders_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tiny_store(tmp_path, [[(1, 1, 1), (2, 1, 2), (3, 1, 3)]] * 20, candidates=[1, 2, 3])
    exec(program("The loader alone").replace("STORE", str(store.path)), {})
    assert len(re.findall(r"[02] threads ahead: [\d,]+ users/s", capsys.readouterr().out)) == 2


def test_the_search_program(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "= 660_000, 79_000, 3_000, 2_048, 32"
    code = program("Search alone")
    assert sizes in code
    exec(code.replace(sizes, "= 900, 30, 5, 4, 8"), {})
    said = capsys.readouterr().out
    assert len(re.findall(r"index [\d.]+ s, [\d,]+ q/s in batches of", said)) == 4
    assert "'recall': " in said


def test_the_profile_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"python - <<'PY'\n(.*?)\nPY\n", PAGE, re.DOTALL)
    assert found is not None
    code = found.group(1)
    for large, small in (('{"users": 20_000, "items": 100_000}', '{"users": 60, "items": 100}'), ("=512", "=8")):
        assert large in code
        code = code.replace(large, small)
    exec(code.replace("data/cache", str(tmp_path)), {})
    assert "Self CPU time total" in capsys.readouterr().out
