"""The programs in docs/performance.md do what it says of them, here at a size that takes no time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grbench.testing import tiny_store

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()


def program(opening: str) -> str:
    """The first Python program behind a line of the page."""
    found = re.search(rf"{re.escape(opening)}.*?(?:```python|python - <<'PY')\n(.*?)\n(?:```|PY)\n", PAGE, re.DOTALL)
    assert found is not None, opening
    return found.group(1)


def smaller(code: str, **sizes: str) -> str:
    """The program with other numbers, each in place of one that it must have."""
    for large, small in sizes.items():
        number = f"{int(large.removeprefix('n')):_}"
        assert number in code, number
        code = re.sub(rf"\b{number}\b", small, code)
    return code


def test_the_loaders_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tiny_store(tmp_path, [[(1, 1, 1), (2, 1, 2), (3, 1, 3)]] * 20, candidates=[1, 2, 3])
    exec(program("The loader alone").replace("STORE", str(store.path)), {})
    assert len(re.findall(r"[02] threads ahead: [\d,]+ users/s", capsys.readouterr().out)) == 2


def test_the_search_program(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"n660000": "900", "n660001": "901", "n3000": "5", "n79000": "30", "n16384": "30", "n1024": "30"}
    code = smaller(program("## Search without an encoder"), **sizes)
    exec(code.replace("IVF2048", "IVF4"), {})
    assert len(re.findall(r"[\d,.]+ q/s", capsys.readouterr().out)) == 5


def test_the_profile_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = smaller(program("## Profile of one step"), n20000="60", n100000="100", n512="8")
    exec(code.replace("data/cache", str(tmp_path)), {})
    assert "Self CPU time total" in capsys.readouterr().out
