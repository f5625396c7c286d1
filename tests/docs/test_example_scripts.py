"""Each example runs, and what it prints is right."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import a_record
from scored_world import run_world
from worlds import everything

import grbench
from grbench.errors import SuiteError
from grbench.results.record_files import write_record
from grbench.testing import tiny_store

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BEAUTY = ROOT / "results" / "sample" / "amazon_beauty"


def printed(
    script: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_results_in_pandas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed("load_results.py", monkeypatch=monkeypatch, capsys=capsys)
    results = grbench.load_results(BEAUTY)
    mean = results[(results.method == "hybrid") & (results.metric == "ndcg@10")].value.mean()
    assert any(line.split()[0] == "hybrid" and f"{mean:.4f}" in line.split() for line in lines if line)
    shares = [line.split()[1:] for line in lines[lines.index("share of a cell's time by phase") + 3 :]]
    assert np.array(shares, float).sum(1) == pytest.approx(np.ones(8), abs=0.004)  # three digits each


def test_one_user_s_lists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = (str(BEAUTY), "hybrid", "lightgcn")
    summary, user, _, *lists = printed("one_user.py", *given, monkeypatch=monkeypatch, capsys=capsys)
    chosen, target = map(int, re.match(r"user (\d+): the next item was (\d+);", user).groups())  # type: ignore[union-attr]
    results = grbench.load_results(BEAUTY).drop_duplicates("digest").set_index("method")
    better, worse = (
        pd.read_parquet(BEAUTY / f"{results.digest[name]}.parquet").set_index("user") for name in ("hybrid", "lightgcn")
    )
    gain = better["metric:ndcg@10"] - worse["metric:ndcg@10"]
    assert gain[chosen] == gain.max()
    assert f"{(gain > 0).sum():,} users" in summary
    marked = [place for place, line in enumerate(lists, 1) if f"{target} <-- target" in line]
    assert marked == sorted({*better.loc[chosen, "ranks"], *worse.loc[chosen, "ranks"]} - {0})
    assert [line.split()[1] for line in lists] == [str(item) for item in better.loc[chosen, "items"]]


def test_one_user_s_lists_are_of_rows_that_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, a_record("good", hit_rate=0.1))
    write_record(tmp_path, a_record("failed"))
    with pytest.raises(SystemExit, match="has no scores of failed to show; of good"):
        printed("one_user.py", str(tmp_path), "failed", "good", monkeypatch=monkeypatch, capsys=capsys)


def test_the_plug_in_forgets(tmp_path: Path) -> None:
    encoder = runpy.run_path(str(EXAMPLES / "fading_popularity" / "fading_popularity.py"))["FadingPopularity"]
    day = 86_400
    data = everything(tiny_store(tmp_path / "timed", [[(1, 0, day), (2, 0, 3 * day)], [(1, 0, 5 * day)]]))
    weights = encoder(data, None, half_life_days=2).weights
    assert weights.flatten().tolist() == [0, 1 + 1 / 4, 1 / 2]
    data.catalogue.__dict__["has_times"] = False
    with pytest.raises(SuiteError, match="has no times"):
        encoder(data, None)


def test_the_plug_in_is_installed_and_its_suite_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLES / "fading_popularity", tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "lib"), str(tmp_path / "source")], check=True)
    suite = (tmp_path / "source" / "suite.yaml").read_text()
    assert "users: 2500" in suite
    (tmp_path / "suite.yaml").write_text(suite.replace("users: 2500", "users: 600"))
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.chdir(tmp_path)
    encoders = {record.method: record.identity["training"]["encoder"]["plugin"] for record in run_world()}
    assert encoders.pop("most_popular")["distribution"] == "grbench"
    assert set(encoders) == {f"fading[half_life_days={days}]" for days in (1, 7, 30)}
    assert {(plugin["distribution"], plugin["version"]) for plugin in encoders.values()} == {
        ("fading-popularity", "1.0")
    }
