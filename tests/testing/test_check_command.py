"""`grbench check`, and the checks as tests of pytest, as the author of a plug-in meets them."""

from __future__ import annotations

import sys

import pytest

from grbench.cli import main
from grbench.errors import PluginError, SuiteError
from grbench.registry.discovery import Registry
from grbench.testing import parametrize_with_checks
from grbench.testing.checks.chosen import chosen_plugins

pytest_plugins = "pytester"

MINE = '''
from grbench import hookimpl
from grbench.interfaces import Metric, Slice


class Hits(Metric):
    """Hits.

    Args:
        k: length of the list.
    """

    higher_is_better = True

    def __init__(self, *, k: int) -> None:
        self.name, self.k = f"hits@{k}", k

    def __call__(self, ranking):
        return 1.0 * ((ranking.ranks > 0) & (ranking.ranks <= self.k)).any(axis=1)


class UpsideDown(Hits):
    higher_is_better = False


class Length(Slice):
    """By length.

    Args:
        bound: the longest of the short.
    """

    def __init__(self, *, bound: int) -> None:
        self.bound, self.name = bound, f"length@{bound}"

    def __call__(self, ranking):
        return ["short" if length <= self.bound else "long" for length in ranking.history_lengths]


@hookimpl
def register_metrics(register):
    register("hits", Hits)
    register("upside_down", UpsideDown)


@hookimpl
def register_slices(register):
    register("length", Length)
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A stranger's package, with the metadata that pip would have written."""
    (tmp_path / "mine_for_checks.py").write_text(MINE)
    metadata = tmp_path / "Mine_For.Checks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: Mine_For.Checks\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[grbench]\nmine = mine_for_checks\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine_for_checks", None)


def test_a_plugin_that_passes(installed, capsys):
    assert main(["check", "metric:hits"]) == 0
    said = capsys.readouterr().out
    assert "metric:hits" in said
    assert "perfect_case" in said
    assert "FAILED" not in said
    assert "1 plug-in" in said


def test_a_failure_is_told_with_what_it_means_and_how_to_mend_it(installed, capsys):
    assert main(["check", "mine-for-checks", "--set", "slice:length.bound=5"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "worst_case FAILED" in said
    assert "seen: a query whose target is in no list is scored better" in said
    assert "means: A method that finds nothing is not scored as the worst" in said
    assert "mend: Treat rank 0 as not found" in said
    assert "order_names_every_group skipped it leaves the order to the tables" in said
    assert "3 plug-ins" in said


def test_a_plugin_of_a_distribution_that_needs_options_is_named(installed, capsys):
    assert main(["check", "mine-for-checks", "--check", "interface"]) == 0
    assert "slice:length: not checked: slice:length.bound: must be given (int)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encodr:x"], "unknown kind 'encodr'; did you mean encoder?"),
        (["metric:hitz"], "unknown metric 'hitz'; did you mean hits?"),
        (["mine-for-check"], "did you mean Mine_For.Checks?"),
        (["hits"], "did you mean metric:hits?"),
        (["slice:length"], "slice:length.bound: must be given (int)"),
        (["metric:hits", "--set", "kk=1"], "metric:hits.kk: unknown option; did you mean k?"),
        (["metric:hits", "--set", "k"], "--set k: should be KEY=VALUE"),
        (["mine-for-checks", "--set", "k=3"], "options k: say of which plug-in, such as metric:hits"),
        (["metric:hits", "--set", "metric:ndcg.k=3"], "options of metric:ndcg: this plug-in is not checked"),
        (["metric:hits", "--check", "perfect"], "--check perfect: there is no such check; did you mean perfect_case?"),
        (
            ["metric:hits", "--with", "nope=1"],
            "--with nope=1: should be PART=NAME, such as tokenizer=ids; PART is one of",
        ),
        (["metric:hits", "--with", "tokenizer=idz"], "unknown tokenizer 'idz'; did you mean ids?"),
        (
            ["metric:hits", "--with", "tokenizer=1"],
            "partner tokenizer: should be a name or a mapping with a name, got 1",
        ),
        (["metric:hits", "--with", "loss={name: infonce, temprature: 1}"], "loss:infonce.temprature: unknown option"),
    ],
)
def test_a_wrong_request(installed, capsys, arguments, message):
    assert main(["check", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


TESTS = """
from grbench.testing import parametrize_with_checks

@parametrize_with_checks("metric:hits", "metric:upside_down", options={"metric:hits": {"k": 3}}, expected_failures={
    "metric:upside_down-worst_case": "made so", "metric:upside_down-perfect_case": "made so",
    "metric:upside_down-earlier_is_not_worse": "made so", "metric:hits-pure": "I thought so",
})
def test_mine(check):
    check()
"""


def test_expected_failures_are_strict(installed, pytester):
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_inprocess("-v", "-rx")
    outcomes = done.parseoutcomes()
    assert outcomes["xfailed"] == 3
    assert outcomes["failed"] == 1
    assert "skipped" not in outcomes
    done.stdout.fnmatch_lines(["*test_mine?metric:hits-interface? PASSED*", "*XPASS(strict)* I thought so*"])


def test_a_failure_reads_as_a_sentence(installed):
    mark = parametrize_with_checks("metric:upside_down").args[1]
    check = next(each.values[0] for each in mark if each.id.endswith("worst_case"))
    with pytest.raises(AssertionError, match=r"(?s)metric:upside_down-worst_case\nseen: .*\nmeans: .*\nmend: "):
        check()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"expected_failures": {"perfect": "why"}}, SuiteError, "there is no check perfect; did you mean perfect_case"),
        ({"options": {"k": 0.5}}, SuiteError, "metric:hits.k"),
        ({"partners": {"metric": "ndcg"}}, PluginError, "metric: no partner"),
    ],
)
def test_wrong_parameters(installed, arguments, error, message):
    with pytest.raises(error, match=message):
        parametrize_with_checks("metric:hits", **arguments)


def test_a_broken_package_is_told(tmp_path):
    registry = Registry()
    registry.add("broken", "my-broken", "1", lambda: 1 / 0)
    with pytest.raises(
        PluginError, match="distribution my_broken: its plug-ins cannot be registered: ZeroDivisionError"
    ):
        chosen_plugins(registry, ["my_broken"])
