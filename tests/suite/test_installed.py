"""Suites by name: which packages ship them, and what hides what."""

from __future__ import annotations

from pathlib import Path

import pytest

from grbench.errors import SuiteError
from grbench.suite.installed import installed_suites, is_suite, suite_file


@pytest.fixture(autouse=True)
def a_strangers_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution `their-benchmark` whose package `their_suites` has a suite of its own and one of a name
    that exists already."""
    distribution, package = tmp_path / "their_benchmark-1.0.dist-info", tmp_path / "their_suites"
    distribution.mkdir()
    package.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: their-benchmark\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[grbench.suites]\nthem = their_suites\n")
    for name in ("their_suite.yaml", "quickstart.yaml", "notes.txt"):
        (package / name).write_text("suite: theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return package


def test_strangers_suites_stand_beside_those_of_the_project(a_strangers_suites: Path) -> None:
    suites = installed_suites()
    assert suites["their_suite"] == a_strangers_suites / "their_suite.yaml"
    assert {"quickstart", "preliminary_round", "final_round"} <= set(suites)
    assert "notes" not in suites


def test_of_two_suites_of_one_name_the_first_entry_point_is_taken(a_strangers_suites: Path) -> None:
    assert suite_file("quickstart").parent != a_strangers_suites  # `reference` comes before `them`


def test_a_file_is_a_suite_whatever_its_name_and_a_folder_hides_none(tmp_path: Path) -> None:
    (tmp_path / "final_round").mkdir()
    assert suite_file("final_round").name == "final_round.yaml"
    assert not is_suite(Path("final_round"))  # where data may be meant, the folder is data
    Path("their_suite").write_text("suite: mine\n")
    assert suite_file("their_suite") == Path("their_suite")
    assert suite_file("absent.yaml") == Path("absent.yaml")  # reading it says that it is missing
    assert is_suite(Path("absent.yaml"))
    assert is_suite(Path("ablations"))


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(SuiteError, match=r"^their_siute: no such suite; did you mean their_suite\?"):
        suite_file("their_siute")
