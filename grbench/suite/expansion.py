"""The methods of a suite file: checked, with `defaults` and `extends` merged, grids expanded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from grbench.errors import Problems, SuiteError, cut
from grbench.hookspecs import DEFAULT_PARTS
from grbench.output import printable
from grbench.registry.options import suggestion
from grbench.suite.grid import combinations, expand, inherit, merge
from grbench.suite.method import METHOD_KEYS

MAX_CELLS = 10_000


def expanded_methods(
    content: dict[str, Any], seeds: int, where: str, problems: Problems
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[str]]:
    """{method: {name: keys} that its grid expands to}, with `extends` and `defaults` merged; and the methods whose grid
    is an ablation. What is wrong with a method is added to `problems`, and it is left out. Raises SuiteError where no
    method can be expanded."""
    methods, defaults = content["methods"], {} if content.get("defaults") is None else content["defaults"]
    if not isinstance(methods, dict) or not methods:
        raise SuiteError(f"{where}: methods: should be a mapping of names to methods")
    for name, keys in methods.items():
        with problems:
            if not name or re.search(r"[][.,=/\s]", name) or printable(name) != name:
                raise SuiteError(
                    f"{where}: methods: {cut(name)!r} is not a valid name; it must not contain spaces, characters that "
                    "cannot be seen or . , = / [ ]"
                )
        with problems:
            if not isinstance(keys, dict):
                raise SuiteError(f"{where}: methods.{name}: should be a mapping of keys such as encoder and loss")
            check_keys(keys, METHOD_KEYS, f"{where}: methods.{name}", problems)
    if not isinstance(defaults, dict):
        raise SuiteError(f"{where}: defaults: should be a mapping of keys such as training")
    shared = [key for key in METHOD_KEYS if key not in ("extends", "grid", "ablation", "stages")]
    check_keys(defaults, shared, f"{where}: defaults", problems)
    merged = inherit(methods, merge(DEFAULT_PARTS, defaults), where, problems)
    _check_number(merged, seeds, where, problems)
    expanded, ablations = {}, []
    for name, keys in merged.items():
        with problems:
            ablation = keys.get("ablation")
            if type(ablation) not in (bool, type(None)):
                raise SuiteError(
                    f"{where}: methods.{name}.ablation: should be true or false, got {cut(json.dumps(ablation))}"
                )
            if methods[name].get("ablation") and keys.get("grid") is None:
                raise SuiteError(
                    f"{where}: methods.{name}.ablation: says that all rows of the method's grid are tested, and there "
                    "is no grid"
                )
            ablations += [name] if ablation else []
            expanded[name] = expand(name, keys, where)
            for variant, its_keys in expanded[name].items():
                check_keys(its_keys, METHOD_KEYS, f"{where}: methods.{variant}", problems)
    return expanded, ablations


def _check_number(merged: dict[str, dict[str, Any]], seeds: int, where: str, problems: Problems) -> None:
    """Raises SuiteError for more than MAX_CELLS cells, before grids are expanded. Methods whose grids are wrong are
    removed."""
    methods = 0
    for name in list(merged):
        keys = merged.pop(name)
        with problems:
            methods += combinations(name, keys, where)
            merged[name] = keys
    if methods * seeds > MAX_CELLS:
        raise SuiteError(
            f"{where}: has {methods * seeds:,} cells: {methods:,} methods, with grids expanded, x seeds ({seeds:,}); a "
            f"suite has at most {MAX_CELLS:,}"
        )


def check_keys(mapping: dict[str, Any], valid: Sequence[str], where: str, problems: Problems) -> None:
    """Removes unknown keys, and adds each to `problems`."""
    for key in [key for key in mapping if key not in valid]:
        del mapping[key]
        with problems:
            raise SuiteError(f"{where}: unknown key {cut(key)!r}; {suggestion(key, valid)}")
