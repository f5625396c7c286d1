"""Damaged suite files, expanded to cells as `suite validate` and `run` do."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml
from fuzzing import Call, damage_bytes, damage_tree, try_inputs

from grbench.registry.discovery import Registry
from grbench.suite.suite import load_suite

SUITES = [yaml.safe_load(file.read_text()) for file in sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))]
MOST_METHODS = 4  # of a suite that are kept, so that an input takes milliseconds
TAGS = ("!!bool z", "!!int x", "!!python/object:os.system x", "!!binary é", "&a [*a]", "*nothing", "<<: 1", "!!set {a}")


def some_methods(suite: dict[str, Any], random: Random) -> dict[str, Any]:
    """A copy of the suite with a few of its methods and what they extend."""
    methods = suite["methods"]
    names = random.sample(list(methods), min(MOST_METHODS, len(methods)))
    for name in names:
        extended = methods[name].get("extends", [])
        others = [extended] if isinstance(extended, str) else extended
        names += [other for other in others if other not in names]
    chosen = {name: methods[name] for name in names}
    baseline = {"baseline": suite["baseline"]} if suite.get("baseline") in names else {}
    figures = {name: figures for name, figures in suite.get("published", {}).items() if name in names}
    published = {"published": figures} if figures else {}
    rest = {key: value for key, value in suite.items() if key not in ("baseline", "published")}
    return deepcopy(rest | {"methods": chosen} | baseline | published)


def damaged_suite(random: Random, folder: Path, registry: Registry) -> Sequence[Call]:
    content: Any = some_methods(random.choice(SUITES), random)
    path = folder / "suite.yaml"
    kind = random.randrange(10)
    for _ in range(0 if kind == 0 else random.choice((1, 1, 1, 2, 5))):
        damage_tree(content if random.random() < 0.5 else content.get("methods") or content, random)
    text = yaml.safe_dump(content, sort_keys=False, width=1000)
    if kind == 1:
        lines = text.splitlines()
        number = random.randrange(len(lines))
        lines[number] = f"{lines[number].partition(':')[0]}: {random.choice(TAGS)}"
        text = "\n".join(lines)
    path.write_text(text)
    if kind == 2:
        damage_bytes(path, random)
    return [lambda: load_suite(path).cells(registry)]


def test_a_damaged_suite_is_expanded_or_refused(tmp_path: Path) -> None:
    damage = partial(damaged_suite, registry=Registry.load())
    assert try_inputs(damage, tmp_path, 150) >= 150
