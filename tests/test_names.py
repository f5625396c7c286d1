"""One name stands for one thing: no class or type alias of either package shares its name with another."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import grbench
import grbench_reference

PACKAGES = [Path(package.__file__).parent for package in (grbench, grbench_reference) if package.__file__]


def names_of(source: str) -> list[str]:
    """Classes at any depth, private ones by their name without the underscore, and aliases: what is assigned to a name
    in CamelCase at the top of a module."""
    tree = ast.parse(source)
    classes = [node.name.lstrip("_") for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    aliases = []
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            aliases += [target.id for target in targets if isinstance(target, ast.Name)]
    return classes + [name for name in aliases if name[:1].isupper() and not name.isupper()]


def test_what_counts_as_a_name() -> None:
    source = (
        "class GNN:\n  class Cell: ...\nShare = float\nLimit: type = int\nNAMES = ()\nvalue = 1\nT = 2\nclass _Own: ..."
    )
    assert sorted(names_of(source)) == ["Cell", "GNN", "Limit", "Own", "Share"]


def test_no_class_or_alias_name_stands_for_two_things() -> None:
    places = defaultdict(list)
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            for name in names_of(file.read_text()):
                places[name].append(str(file.relative_to(package.parent)))
    assert len(places) > 200
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
