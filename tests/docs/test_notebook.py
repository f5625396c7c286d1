"""What the page on tables shows for notebooks runs, and gives what a table shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import grbench
from grbench.report.table import tables
from grbench.results.record_files import read_records

ROOT = Path(__file__).parents[2]
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "reading_a_table.md").read_text(), re.DOTALL | re.M)


def test_the_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(EXAMPLE.replace("results/quickstart", "results/sample/quickstart"), {})
    assert "hit_rate@10" in capsys.readouterr().out


def test_its_means_are_those_of_the_table() -> None:
    frame = grbench.load_results(ROOT / "results" / "sample" / "quickstart")
    means = frame.groupby(["method", "metric"]).value.mean()
    (table,) = tables(read_records([ROOT / "results" / "sample" / "quickstart"]))
    for row in table.values:
        method = row["method"].removesuffix(" (older identity)")
        assert means[method, "ndcg@10"] == pytest.approx(row["ndcg@10"], rel=1e-12)
