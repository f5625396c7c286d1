"""`grbench inspect codes`: what is typed, what is seen, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from stores import stores_in

from grbench import hookimpl
from grbench.errors import GRBenchError, PluginError, SuiteError
from grbench.registry.discovery import Registry
from grbench_reference.commands.codes import add_inspect_command

SUITE = """
suite: tiny
dataset: {name: interactions, path: users.json}
protocol: leave_last_out
metrics: [hit_rate@2]
methods:
  by_id: {encoder: most_popular}
  also_by_id: {encoder: most_popular}
  given: {encoder: most_popular, tokenizer: {name: given_codes, path: codes.json}}
"""


class Strangers:
    """Tokenizers under names of this test's own."""

    @hookimpl
    def register_tokenizers(self, register: Callable[[str, str], None]) -> None:
        register("given_codes", "grbench_reference.tokenizers.codes_file:CodesFile")
        register("clustered", "grbench_reference.tokenizers.rq_kmeans:RQKMeans")
        register("absent", "grbench_reference.tokenizers.absent:Absent")


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Types a command in a folder with a suite, its dataset and a codes file; errors come out as they are raised."""
    load = Registry.load

    def loaded() -> Registry:
        registry = load()
        registry.add("strangers", "strangers", "1", Strangers)
        return registry

    monkeypatch.setattr(Registry, "load", loaded)
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("users.json").write_text(json.dumps({f"u{user}": ["a", "b", "c", "d", "a"] for user in range(4)}))
    Path("codes.json").write_text(json.dumps({"a": [0, 1], "b": [0, 2], "c": [0, 1], "d": [1, 0]}))
    Path("suite.yaml").write_text(SUITE)

    def type_(*words: str) -> Result:
        cli = click.Group()
        add_inspect_command(cli)
        result = CliRunner().invoke(cli, ["inspect", "codes", *words])
        if isinstance(result.exception, GRBenchError):
            raise result.exception
        return result

    return type_


def test_a_suites_tokenizers_are_compared_once_each(typed: Callable[..., Result]) -> None:
    result = typed("suite.yaml")
    assert result.exit_code == 0, result.output
    assert re.search(r"items that share their code\W+0 \(0\.0%\)\W+2 \(50\.0%\)", result.output)


def test_one_method_as_json(typed: Callable[..., Result]) -> None:
    result = typed("suite.yaml", "--method", "given", "--json")
    report = json.loads(result.stdout)["given_codes (given)"]
    assert report["distinct_codes"] == 3
    assert report["sizes"] == [2, 3]
    assert report["cooccurrence_agreement"]["same_prefix"] == [1.0, 0.0]  # a b c are left: a b and b c share 0


def test_a_dataset_and_a_tokenizer(typed: Callable[..., Result]) -> None:
    options = ["source=cooccurrence", "width=1", "window=1", "sizes=[2,2]", "dataset.min_events=2"]
    words = ["--tokenizer", "clustered", "--json", *(word for option in options for word in ("--set", option))]
    report = json.loads(typed("users.json", *words).stdout)["clustered"]
    assert report["source"] == "co-occurrence, 1 wide, window 1"
    assert report["items_without_vector"] == 1
    (store,) = stores_in(Path("cache"))
    assert json.loads(typed(str(store), *words[:-2]).stdout)["clustered"]["distinct_codes"] == 4


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["suite.yaml", "--tokenizer", "ids"], SuiteError, "is a suite; choose tokenizers with --method"),
        (["users.json"], SuiteError, "is not a suite; name a tokenizer with --tokenizer"),
        (["suite.yaml", "--method", "givn"], SuiteError, "did you mean given"),
        (["users.json", "--tokenizer", "clusterd"], PluginError, "did you mean clustered"),
        (["users.json", "--tokenizer", "absent"], PluginError, "absent.* is broken"),
        (["users.json", "--tokenizer", "clustered", "--set", "size=[4]"], SuiteError, "did you mean sizes"),
    ],
)
def test_what_cannot_be_is_said(
    typed: Callable[..., Result], words: list[str], kind: type[GRBenchError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        typed(*words)


def test_the_group_that_is_there_already_is_kept(typed: Callable[..., Result]) -> None:
    cli, group = click.Group(), click.Group("inspect")
    cli.add_command(group)
    add_inspect_command(cli)
    assert cli.commands["inspect"] is group
    assert [*group.commands] == ["codes"]
