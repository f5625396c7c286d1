"""A new package of plug-ins: its files, and writing them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from grbench import __version__
from grbench.errors import PluginError, cut
from grbench.hookspecs import KINDS, singular
from grbench.scaffold.package_name import PackageName
from grbench.temporary import beside

TEMPLATES = Path(__file__).with_name("templates")

SAMPLE = "sample.csv"
"""The events that a new dataset reads where no file is named."""

ALL_KINDS = "all"


def chosen_kinds(text: str) -> tuple[str, ...]:
    """Kinds by their plural names, in the order of `KINDS`. text: singular or plural names with commas between, or
    `all`. Raises PluginError, naming all kinds, for another name and where there is none."""
    words = [word for each in text.split(",") if (word := each.strip())]
    if words == [ALL_KINDS]:
        return tuple(KINDS)
    plural = {name: kind for kind in KINDS for name in (kind, singular(kind))}
    there_are = f"there are {', '.join(map(singular, KINDS))}, and {ALL_KINDS} for one of each"
    for word in words:
        if word not in plural:
            raise PluginError(f"--kinds: {cut(repr(word))} is no kind of plug-in; {there_are}")
    if not words:
        raise PluginError(f"--kinds: should be one or more of them, such as encoder,loss; {there_are}")
    wanted = {plural[word] for word in words}
    return tuple(kind for kind in KINDS if kind in wanted)


def read_author(text: str | None) -> dict[str, str]:
    """{"name", and "email" where it is given} of `Jane Doe <jane@example.org>`; {} for None. Raises PluginError for
    anything else."""
    if text is None:
        return {}
    found = re.fullmatch(r"\s*(?P<name>[^<>@]*[^<>@\s])\s*(?:<(?P<email>[^<>@\s]+@[^<>@\s]+)>)?\s*", text)
    if found is None or not text.isprintable():
        raise PluginError(f"--author {cut(text)!r}: should be like Jane Doe, or Jane Doe <jane@example.org>")
    return {key: value for key, value in found.groupdict().items() if value}


def package_files(name: PackageName, kinds: Iterable[str], author: Mapping[str, str]) -> dict[str, str]:
    """{path below the package's folder: content}. kinds: plural names."""
    chosen = [singular(kind) for kind in KINDS if kind in set(kinds)]
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # nothing here is HTML; what a user writes goes through `quoted`, or is a checked name
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(quoted=_quoted, plain=_plain)
    values: dict[str, Any] = {
        "name": name.distribution,
        "module": name.module,
        "suites_module": name.suites_module,
        "prefix": name.class_prefix,
        "kinds": chosen,
        "plural": {singular(kind): kind for kind in KINDS},
        "author": dict(author),
        "grbench_version": __version__,
    }
    own = f"src/{name.module}"
    files = {f"{own}/{kind}.py": templates.get_template(f"kinds/{kind}.py.j2").render(values) for kind in chosen}
    values["purposes"] = {kind: _first_line(files[f"{own}/{kind}.py"]) for kind in chosen}
    for path, template in (
        ("README.md", "README.md.j2"),
        ("pyproject.toml", "pyproject.toml.j2"),
        (".gitignore", "gitignore.j2"),
        (".github/workflows/tests.yml", "tests.yml.j2"),
        (f"{own}/__init__.py", "init.py.j2"),
        (f"{own}/py.typed", None),
        (f"src/{name.suites_module}/__init__.py", "suites_init.py.j2"),
        (f"src/{name.suites_module}/{name.distribution}.yaml", "suite.yaml.j2"),
        ("tests/test_plugins.py", "test_plugins.py.j2"),
    ):
        files[path] = templates.get_template(template).render(values) if template else ""
    if "dataset" in chosen:
        files[f"{own}/{SAMPLE}"] = (TEMPLATES / SAMPLE).read_text(encoding="utf-8")
    return dict(sorted(files.items()))


def write_package(folder: Path, files: Mapping[str, str]) -> None:
    """Writes all files, or none: into a temporary folder that is renamed. Raises PluginError where `folder` exists."""
    if folder.exists() or folder.is_symlink():
        raise PluginError(f"{folder}: exists already; choose another folder by --out, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with beside(folder) as partial:
        for path, content in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_text(content, encoding="utf-8")
        partial.rename(folder)


def _quoted(text: str) -> str:
    """A string of TOML, JSON and YAML."""
    return json.dumps(text, ensure_ascii=False)


def _plain(name: str) -> str:
    """A name as YAML writes it: quoted where it would be read as something else (`no`, `on`)."""
    return name if yaml.safe_load(name) == name else _quoted(name)


def _first_line(source: str) -> str:
    """What a module says of itself."""
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
