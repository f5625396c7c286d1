"""`grbench data`: what each verb prints, leaves behind and exits with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pytest
import tencentgr_release as world
from click.testing import CliRunner, Result
from real_data import SAMPLE, needs_sample
from stores import stores_in

from grbench.cli import main
from grbench.errors import DataError, GRBenchError, PluginError, RunError, SuiteError
from grbench.results.record_files import read_records
from grbench.testing import tiny_store
from grbench_reference.commands.data import add_commands
from grbench_reference.commands.sources import parse_overrides
from grbench_reference.commands.store_statistics import statistics
from grbench_reference.datasets.download import release as download
from grbench_reference.datasets.download.hub import Listing, RemoteFile, Request
from grbench_reference.datasets.synthetic.generator import generate


@click.group()
def cli() -> None:
    """What plug-ins add their commands to."""


add_commands(cli)


def run(*arguments: object) -> Result:
    """Runs `grbench data ...`; an error of grbench is left in `result.exception`, as the command line gets it."""
    result = CliRunner().invoke(cli, ["data", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, GRBenchError | SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "release"
    generate(folder, users=80, items=120, seed=3)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_help_shows_every_verb_with_examples_and_imports_nothing_heavy() -> None:
    assert "validate" in run("--help").output
    for verb in ("validate", "stats", "synth", "download", "prepare"):
        assert f"grbench data {verb} " in run(verb, "--help").output
    script = (
        "import sys, click; from grbench_reference.commands.data import add_commands; add_commands(click.Group());"
        "heavy = {'torch', 'pyarrow', 'numpy', 'rich', 'huggingface_hub', 'pydantic'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_synth_writes_a_release_that_validates(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    made = run("synth", "--users", 30, "--items", 60, "--actions", 3, "--out", folder, "--seed", 2)
    assert made.exit_code == 0
    assert f"grbench run final_round --set dataset.path={folder}" in made.output
    assert "users: 30" in made.output
    checked = run("validate", folder)
    assert checked.exit_code == 0
    assert "5 absent" in checked.output  # the five larger embeddings
    assert "problem" not in checked.output


def test_synth_passes_on_what_it_cannot_make(tmp_path: Path) -> None:
    refused = run("synth", "--users", 3, "--items", 60, "--out", tmp_path / "made")
    assert isinstance(refused.exception, DataError)
    assert run("synth", "--users", 30, "--items", 60, "--actions", 4, "--out", tmp_path / "made").exit_code == 2
    assert not (tmp_path / "made").exists()


@needs_sample
def test_validate_reads_the_real_sample_and_says_what_is_absent() -> None:
    checked = run("validate", SAMPLE)
    assert checked.exit_code == 0
    assert "candidate" in checked.output
    assert "9 absent" in checked.output


def test_validate_exits_2_on_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    generate(folder, users=30, items=60)
    part = folder / "user_feat" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    checked = run("validate", folder)
    assert checked.exit_code == 2
    assert "1 problem" in checked.output
    assert "user_feat" in checked.output


def test_validate_asks_the_plug_ins_unless_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("no dataset")
    unknown = run("validate", tmp_path)
    assert isinstance(unknown.exception, DataError)
    assert "none of the dataset plug-ins (interactions, tencentgr, tencentgr_synthetic) recognises it" in str(
        unknown.exception
    )
    named = run("validate", tmp_path, "--dataset", "tencentgr")
    assert "is not a TencentGR release" in str(named.exception)
    misspelt = run("validate", tmp_path, "--dataset", "tencent")
    assert isinstance(misspelt.exception, PluginError)
    absent = run("validate", tmp_path / "TencentGR-10M")
    assert "grbench data download 10M --embeddings 81" in str(absent.exception)


def test_prepare_makes_the_store_once(release: Path, cache: Path) -> None:
    first = run("prepare", release)
    assert first.exit_code == 0
    (store,) = stores_in(cache)
    assert f"{store}: 80 users" in first.output
    assert "seq: 80" in first.output
    again = run("prepare", release)
    assert f"{store}: 80 users" in again.output
    assert "seq: 80" not in again.output


def test_prepare_takes_options_of_the_dataset(release: Path, tmp_path: Path) -> None:
    made = run("prepare", release, "--set", "embeddings=[]", "--cache", tmp_path / "elsewhere")
    assert made.exit_code == 0
    (store,) = stores_in(tmp_path / "elsewhere")
    assert not list(store.glob("embedding_*"))
    assert isinstance(run("prepare", release, "--set", "embedding=[]").exception, GRBenchError)
    assert run("prepare", release, "--set", "embeddings").exit_code == 2


def test_prepare_takes_a_suite(release: Path, tmp_path: Path, cache: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "suite: tiny\ndataset: {name: tencentgr, path: elsewhere}\nprotocol: last_positive\nmetrics: [hit_rate@10]\n"
        "seeds: [0]\nmethods:\n  most_popular: {encoder: most_popular}\n"
    )
    made = run("prepare", suite, "--set", f"dataset.path={release}")
    assert made.exit_code == 0, made.exception
    assert len(stores_in(cache)) == 1


SUITE = """
suite: tiny
dataset: {name: tencentgr, path: elsewhere}
protocol: {name: last_positive, evaluation_share: 0.5}
metrics: [hit_rate@1]
methods: {floor: {encoder: most_popular}}
"""


def test_validate_takes_options_and_a_suite(release: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("who,what\n1,a\n")
    options = ("--set", "user=who", "--set", "item=what", "--set", "timestamp=null")
    assert run("validate", tmp_path / "log.csv").exit_code == 2
    assert run("validate", tmp_path / "log.csv", *options).exit_code == 0
    misspelt = run("validate", tmp_path / "log.csv", "--set", "usr=who")
    assert "did you mean user" in str(misspelt.exception)

    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    checked = run("validate", suite, "--set", f"dataset.path={release}")
    assert checked.exit_code == 0
    assert f"{suite} (tencentgr)" in checked.output
    lacking = run("validate", suite, "--set", f"dataset.path={release}", "--set", "dataset.embeddings=[82]")
    assert lacking.exit_code == 2
    assert "has no folder emb_82_<width>_parquet" in " ".join(lacking.output.split())
    assert isinstance(run("validate", suite, "--dataset", "tencentgr").exception, SuiteError)


def test_validate_prepare_and_run_say_the_same_of_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = world.write_release(tmp_path / "release")
    world.write_vectors(folder, "emb_81_3_parquet", {world.A: [1.0, float("nan"), 3.0], world.B: [1.0, 2.0, 3.0]})
    world.add_column(folder / "item_feat", "123", pa.array([1, 2, 3, 4]))
    missing = "1 with NaN or infinite float16 values count as missing"
    column = "item_feat: columns that are not known and not read: 123"
    checked = run("validate", folder)
    assert checked.exit_code == 0
    assert missing in " ".join(checked.output.split())
    for verb in ("prepare", "stats"):
        said = run(verb, folder).output
        assert f"note: {column}" in said
        assert f"note: embedding 81: {missing}" in said

    (tmp_path / "suite.yaml").write_text(SUITE)
    assert main(["run", "suite.yaml", "--set", "dataset.path=release", "--set", "protocol.pool=catalogue"]) == 0
    said = capsys.readouterr().out
    assert f"note: {column}" in said
    assert f"- Data: {column}; embedding 81: {missing}" in said
    (record,) = read_records([tmp_path / "results"])
    assert [remark.partition(":")[0] for remark in record.counts["remarks"]] == ["item_feat", "embedding 81"]


def test_a_pool_that_is_not_there_is_refused_before_the_store_is_built(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(world.write_release(tmp_path / "release") / "candidate")
    (tmp_path / "suite.yaml").write_text(SUITE)
    given = ("suite.yaml", "--set", "dataset.path=release")
    said = (
        "release/candidate: is missing, and the candidates that it holds are to be ranked; download it, or rank all "
        "items with --set protocol.pool=catalogue"
    )
    for verb in ("validate", "stats", "prepare"):
        assert str(run(verb, *given).exception) == said
    for flags in ([], ["--dry-run"]):
        assert main(["run", *given, *flags]) == 2
        assert capsys.readouterr().err == f"grbench: {said}\n"
    assert not list(cache.glob("tencentgr*"))
    assert run("validate", *given, "--set", "protocol.pool=catalogue").exit_code == 0
    assert run("prepare", *given, "--set", "protocol.pool=catalogue").exit_code == 0


def test_stats_of_a_release_or_a_store_are_the_same(release: Path, cache: Path) -> None:
    counted = run("stats", release)
    assert counted.exit_code == 0
    (store,) = stores_in(cache)
    tables = run("stats", store).output
    assert tables in counted.output
    for title in ("Overview", "Actions", "Popularity", "Candidates", "Item features", "User features", "Embeddings"):
        assert title in tables


def test_statistics_by_hand(tmp_path: Path) -> None:
    store = tiny_store(
        tmp_path,
        [[(1, 0, 0), (2, 1, 86_400), (1, None, 172_800)], [(3, 0, 86_400)]],
        num_items=5,
        item_features={"colour": [7, 8, 7, None, None], "sizes": [[1, 2], [1], None, None, [2]]},
        embeddings={"81": np.array([[1.0, 2.0]] * 4 + [[np.nan, np.nan]])},
        candidates=[1, 2, 4, 5],
    )
    tables = {table.title: [list(row) for row in table.rows] for table in statistics(store)}
    assert tables["Overview"] == [
        ["users", "2"],
        ["items", "5"],
        ["items with an event", "3 (60.00 %)"],
        ["events", "4"],
        ["events a user", "mean 2.00, median 2, most 3"],
        ["users without events", "0 (0.00 %)"],
        ["time", "1970-01-01 00:00 to 1970-01-03 00:00 (UTC), 2.0 days"],
        ["events that share their time", "0 (0.00 %)"],
        ["users with such events", "0 (0.00 %)"],
        ["users whose last event is one", "0 (0.00 %)"],
    ]
    tied = tiny_store(tmp_path / "tied", [[(1, 0, 0), (2, 0, 5), (1, 0, 5)], [(1, 0, 0)]])
    assert [list(row) for row in statistics(tied)[0].rows[-3:]] == [
        ["events that share their time", "2 (50.00 %), in file order"],
        ["users with such events", "1 (50.00 %)"],
        ["users whose last event is one", "1 (50.00 %)"],
    ]
    assert tables["Actions"] == [
        ["exposure", "2", "66.67 %"],
        ["click", "1", "33.33 %"],
        ["(no action)", "1", "25.00 % of all events"],
    ]
    assert tables["Popularity"] == [
        ["events of the top 10 items", "100.00 %"],
        ["events of the top 1 % of items", "50.00 %"],
        ["items with no event", "2 (40.00 %)"],
        ["items with at most 5 events", "5 (100.00 %)"],
        ["items with over 100", "0 (0.00 %)"],
    ]
    assert tables["Candidates"] == [
        ["candidates", "4"],
        ["without an event (cold)", "2 (50.00 %)"],
        ["not in the indexer", "0 (0.00 %)"],
        ["share of all events on candidates", "75.00 %"],
    ]
    assert tables["Item features"] == [
        ["colour", "60.00 %", "2", "0", "1"],
        ["sizes", "60.00 %", "2", "0", "1.33 of at most 2"],
    ]
    assert tables["Embeddings"] == [["81", "2", "80.00 %", "75.00 %"]]


LISTING = Listing(
    Request(download.REPOSITORIES["1M"], "main", "https://hub", Path("out"), ()),
    "c" * 40,
    (RemoteFile("indexer.pkl", 4_000_000, "a" * 64), RemoteFile("mm_emb/emb_81_32_parquet/p", 900_000_000, "b" * 64)),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked of the hub."""
    seen: dict[str, Any] = {}

    def list_files(release: str, folder: Path, **options: Any) -> Listing:
        seen.update(options, release=release, folder=folder)
        return LISTING

    monkeypatch.setattr(download, "list_files", list_files)
    monkeypatch.setattr(download, "fetch", lambda listing, **options: seen.update(fetched=listing, **options))
    return seen


def test_a_dry_run_lists_parts_and_sizes_only(asked: dict[str, Any]) -> None:
    listed = run("download", "1M", "--dry-run")
    assert listed.exit_code == 0
    for text in (
        "TAAC2025/TencentGR-1M at cccccccccccc",
        "core",
        "4.0 MB",
        "emb_81_32",
        "0.9 GB",
        "0.9 GB to be downl",
    ):
        assert text in listed.output
    assert "fetched" not in asked
    assert (asked["folder"], asked["embeddings"]) == (Path("data/TencentGR-1M"), ["81"])


def test_download_fetches_what_was_listed(asked: dict[str, Any]) -> None:
    done = run("download", "10M", "--embeddings", "81,84", "--embeddings", "86", "--out", "there", "--revision", "v1")
    assert done.exit_code == 0
    assert asked["fetched"] is LISTING
    assert (asked["release"], asked["embeddings"], asked["revision"]) == ("10M", ["81", "84", "86"], "v1")
    assert "grbench data validate there" in done.output


def test_download_without_embeddings(asked: dict[str, Any]) -> None:
    assert run("download", "1M", "--embeddings", "none", "--dry-run").exit_code == 0
    assert asked["embeddings"] == []
    assert run("download", "1M", "--embeddings", "none,81").exit_code == 2


def test_download_without_a_network_is_one_message(tmp_path: Path) -> None:
    failed = run("download", "1M", "--out", tmp_path / "out", "--endpoint", "http://127.0.0.1:9")
    assert isinstance(failed.exception, RunError)
    assert "cannot be reached" in str(failed.exception)
    assert not (tmp_path / "out").exists()


def test_options_are_yaml() -> None:
    assert parse_overrides(["embeddings=[81, '84_32']", "actions=3", "path=a=b"]) == {
        "embeddings": [81, "84_32"],
        "actions": 3,
        "path": "a=b",
    }
    with pytest.raises(click.BadParameter, match="should be KEY=VALUE"):
        parse_overrides(["embeddings"])
    assert parse_overrides(["lr=1e-3"]) == {"lr": 0.001}  # as in a suite
    with pytest.raises(SuiteError, match="--set embeddings=\\[81"):
        parse_overrides(["embeddings=[81"])
