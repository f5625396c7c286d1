"""Options that name files: plug-ins get a path, and identities get what lies there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

import grbench
from grbench import DataFile, DataFolder
from grbench.errors import SuiteError
from grbench.registry.content_hash import folder_hash
from grbench.registry.discovery import Registry
from grbench.registry.option_types import OptionGroup
from grbench.registry.options import bind, bound_contents, bound_values, describe, json_schema


@dataclass(frozen=True, kw_only=True)
class Sources(OptionGroup):
    """Files of a group.

    Args:
        several: many files.
        by_name: files by name.
    """

    several: list[DataFile] = ()  # type: ignore[assignment]
    by_name: dict[str, DataFile] | None = None


def factory(
    *, file: DataFile, other: DataFile | Literal["none"] = "none", folder: DataFolder | None = None, sources: Sources
) -> None: ...


def content(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for name in ("a", "b", "folder/c"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_file_counts_by_its_content_wherever_it_stands_in_an_option(files: Path) -> None:
    a, b = str(files / "a"), str(files / "b")
    options = {"file": a, "folder": str(files / "folder"), "several": [b, a], "by_name": {"one": b}}
    assert bound_contents(factory, options, "x") == {
        "file": content("a"),
        "other": "none",
        "folder": f"sha256:{folder_hash(files / 'folder')}",
        "several": [content("b"), content("a")],
        "by_name": {"one": content("b")},
    }
    assert bound_contents(factory, {"file": a, "other": b}, "x")["other"] == content("b")


def test_everywhere_else_it_is_a_path(files: Path) -> None:
    options = {"file": "a", "several": ["b"]}
    assert bind(factory, options, "x")["file"] == "a"
    values = bound_values(factory, options, "x")
    assert (values["file"], values["sources"].several) == (Path("a"), [Path("b")])
    assert json_schema(factory)["properties"]["file"]["type"] == "string"
    assert {option.name: option.type for option in describe(factory)}["folder"] == "Path | null"


@pytest.mark.parametrize("key", ["file", "other", "several", "by_name"])
def test_a_file_that_cannot_be_read_is_named_with_its_option(files: Path, key: str) -> None:
    wrapped = {"several": ["absent"], "by_name": {"one": "absent"}}.get(key, "absent")
    with pytest.raises(SuiteError, match=rf"^x\.{key}: absent: cannot be read \(No such file or directory\)$"):
        bound_contents(factory, {"file": str(files / "a"), key: wrapped}, "x")


def test_the_package_has_them_by_name_and_no_others() -> None:
    assert {"DataFile", "DataFolder"} <= {*grbench.__all__}
    with pytest.raises(AttributeError, match="no attribute 'DataLake'"):
        _ = grbench.DataLake  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-1, "should be greater than or equal to 0, got -1"),
        (2**63, "should be less than or equal to 9223372036854775807, got 9223372036854775808"),
        (True, "should be a valid integer, got true"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "name", "option"),
    [
        ("protocols", "last_positive", "seed"),
        ("tokenizers", "rq_kmeans", "seed"),
        ("datasets", "tencentgr_synthetic", "seed"),
        ("datasets", "interactions", "ties_seed"),
    ],
)
def test_every_seed_has_the_same_limits(kind: str, name: str, option: str, seed: int, message: str) -> None:
    factory = Registry.load().get(kind, name).factory
    given = {"path": "log.csv"} if name == "interactions" else {}
    with pytest.raises(SuiteError) as raised:
        bind(factory, {**given, option: seed}, "x")
    assert str(raised.value) == f"x.{option}: {message}"
    assert bind(factory, {**given, option: 2**63 - 1}, "x")[option] == 2**63 - 1
