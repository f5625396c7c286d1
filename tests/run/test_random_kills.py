"""A suite of a dense, a generative and a two-stage cell, killed at random moments.

pytest -m kills --kills 60 -s tests/run/test_random_kills.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from random_kills import kill_at_random


@pytest.mark.kills
def test_nothing_is_lost_nothing_is_done_twice_and_nothing_differs(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = request.config.getoption("--kills")
    if not kills:
        pytest.skip("takes minutes; --kills N kills the suite N times")
    figures = kill_at_random(tmp_path, kills)
    with capsys.disabled():
        print(f"\n{figures}")  # noqa: T201 - for who started it
    assert figures.differences == []
    assert sum(figures.kills.values()) == kills
    assert figures.resumptions > 0
