"""Checks of datasets, on the source that the options name. It should be small: the store is built several times.

Shapes: U users, E events, N items.
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from grbench.data.store import STORE_FILE, Store
from grbench.data.store_writer import build_store, no_progress, store_digest
from grbench.errors import GRBenchError
from grbench.interfaces import Dataset, optional
from grbench.registry.component import Component
from grbench.registry.options import bind, flat_values, options_of
from grbench.temporary import temporary_folder
from grbench.testing.checks.check import KindChecks, require, skip_unless
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.types import Finding

CHECKS = KindChecks("datasets")

MOST_BYTES = 64 << 20
"""A source that is larger is not copied."""
MOST_FILES = 20
"""Of a source, that are altered one by one."""


def _with(plugin: CheckedPlugin, **options: Any) -> CheckedPlugin:
    return CheckedPlugin(plugin.registry, plugin.kind, plugin.name, {**plugin.options, **options})


def _digest(plugin: CheckedPlugin) -> str:
    """Of the source as it is: what a store is built anew for where it changes."""
    dataset = plugin.make()
    return store_digest(type(dataset), dataset.digest(), _contents(plugin))


def _contents(plugin: CheckedPlugin) -> dict[str, Any]:
    return plugin.registry.file_contents(plugin.kind, Component(plugin.name, plugin.options), plugin.id)


def _built(plugin: CheckedPlugin, folder: Path) -> Store:
    skip_unless_there(plugin)
    return build_store(plugin.make(), name="checked", cache=folder, contents=_contents(plugin))


def skip_unless_there(plugin: CheckedPlugin) -> None:
    """Raises CheckSkippedError where the source is not there."""
    try:
        plugin.make().digest()
        _contents(plugin)
    except GRBenchError as error:
        skip_unless(False, f"its source is not there; name one by its options ({error})")


def _paths(plugin: CheckedPlugin) -> dict[str, Path]:
    """{option: the file or folder that it names}."""
    values = flat_values(plugin.plugin.factory, plugin.options, plugin.id)
    named = {name: Path(value) for name, value in values.items() if isinstance(value, Path)}
    return {name: path for name, path in named.items() if path.exists()}


@CHECKS.add(
    base=True,
    means="Everything that reads the store reads nonsense: padding as an item, actions without a name, time that runs "
    "backwards.",
    mend="Write items as rows from 1, action tokens from FIRST_ACTION (1 = missing), each user's events oldest first, "
    "codes of a field below its size, and each id once.",
)
def store_is_whole(plugin: CheckedPlugin) -> None:
    """Its columns fit one another."""
    with temporary_folder() as folder:
        store = _built(plugin, folder)
        catalogue, offsets = store.catalogue, np.asarray(store.offsets)
        items, actions, times = (np.asarray(each) for each in (store.items, store.actions, store.times))
        events = len(items)
        require(
            len(offsets) == catalogue.num_users + 1 and offsets[-1] == events, "there are other events than users have"
        )
        require(len(actions) == len(times) == events, "items, actions and times are not equally many")
        require(((items >= 1) & (items <= catalogue.num_items)).all(), "an event's item is not from 1 to N")
        require(((actions >= 1) & (actions < len(catalogue.actions) + 2)).all(), "an event's action token has no name")
        if catalogue.has_times:
            backwards = np.diff(times) < 0
            backwards[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < events)] - 1] = False
            require(not backwards.any(), "a user's events are not in the order of their times")
        for what, ids in (("item", catalogue.item_ids[1:]), ("user", catalogue.user_ids)):
            require(len(np.unique(ids)) == len(ids), f"two {what}s have one id")
        for table in (catalogue.item_features, catalogue.user_features):
            for field in table.fields:
                codes = np.asarray(table.values[:, field.start : field.start + field.width])
                require(((codes >= 0) & (codes < field.size)).all(), f"a code of {field.name} is not below its size")
        if store.candidates is not None:
            inside = (store.candidates >= 1) & (store.candidates <= catalogue.num_items)
            require(inside.all(), "a candidate is no item of the catalogue")


@CHECKS.add(
    means="The same source gives other numbers on another day, and results of two machines cannot be compared.",
    mend="Iterate in a fixed order (sort file names and ids, no sets), and draw by a seed that is an option.",
)
def writes_the_same_twice(plugin: CheckedPlugin) -> None:
    """Two stores, byte for byte."""
    with temporary_folder() as folder:
        one, other = (_built(plugin, folder / name).path for name in ("one", "other"))
        names = sorted(path.name for path in one.iterdir())
        require(names == sorted(path.name for path in other.iterdir()), "two stores have different columns")
        unequal = [
            name for name in names if name != STORE_FILE and not filecmp.cmp(one / name, other / name, shallow=False)
        ]
        require(not unequal, f"two stores of the same source differ in {', '.join(unequal)}")
        require(_digest(plugin) == _digest(plugin), "two digests of the same source differ")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _altered(path: Path) -> Iterator[Path]:
    """Yields each file of a copied source once it is altered, and restores it afterwards. Text loses its last line,
    anything else its last byte."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files[:MOST_FILES]:
        content = file.read_bytes()
        lines = content.splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:-1]) if len(lines) > 1 and b"\0" not in content else content[:-1])
        yield file
        file.write_bytes(content)


def _same_store(plugin: CheckedPlugin, before: Store, folder: Path) -> bool:
    """Whether the source, as it is now, still gives the store."""
    try:
        after = build_store(plugin.make(), name="checked", cache=folder, contents=_contents(plugin))
    except Exception:  # noqa: BLE001 - whatever is raised, the source is not what it was
        return False
    names = [path.name for path in before.path.iterdir() if path.name != STORE_FILE]
    return all(
        (after.path / name).exists() and filecmp.cmp(before.path / name, after.path / name, shallow=False)
        for name in names
    )


@CHECKS.add(
    means="After the source has changed, results are still computed on the old data, and nobody is told.",
    mend="Let digest() cover the content of every file that is read (or annotate the option grbench.DataFile).",
)
def digest_follows_content(plugin: CheckedPlugin) -> None:
    """A copy of the source, each of whose files is altered in turn."""
    skip_unless_there(plugin)
    paths = _paths(plugin)
    skip_unless(paths, "no option names a file or folder")
    skip_unless(
        sum(map(_size, paths.values())) <= MOST_BYTES,
        f"the source has over {MOST_BYTES >> 20} MiB; name a smaller one",
    )
    with temporary_folder() as folder:
        copies: dict[str, Path] = {}
        for name, path in paths.items():
            copies[name] = folder / name / path.name
            copies[name].parent.mkdir()
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, copies[name])
        copied = _with(plugin, **{name: str(path) for name, path in copies.items()})
        digest, store = _digest(copied), _built(copied, folder / "before")
        for path in copies.values():
            for number, file in enumerate(_altered(path)):
                try:
                    changed = _digest(copied) != digest
                except GRBenchError:  # the source is no longer whole, and says so
                    continue
                if not changed:
                    same = _same_store(copied, store, folder / f"after {path.name} {number}")
                    require(same, f"with another content of {file.name}, the digest is the same and the store is not")


@CHECKS.add(
    means="With another option, results are computed on a store that was built with the old one.",
    mend="Put every option that changes what is written into digest().",
)
def digest_follows_options(plugin: CheckedPlugin) -> None:
    """Each option of few values, or that is a number, is changed in turn."""
    skip_unless_there(plugin)
    factory = plugin.plugin.factory
    values = bind(factory, plugin.options, plugin.id)
    digest, before, tried = _digest(plugin), None, 0
    with temporary_folder() as folder:
        for name, option in options_of(factory).items():
            for other in _others(option.annotation, values[name]):
                changed = _with(plugin, **{name: other})
                try:
                    bind(factory, changed.options, plugin.id)
                    after = _digest(changed)
                except GRBenchError:  # this value does not fit, or not this source
                    continue
                tried += 1
                if after == digest:
                    before = before or _built(plugin, folder / "before")
                    same = _same_store(changed, before, folder / f"{name} {other}")
                    require(same, f"with {name}={other} the digest is the same, and the store is not")
    skip_unless(tried, "it has no option that can be changed here")


def _others(annotation: Any, value: Any) -> list[Any]:
    """Other values of an option, as far as its type says which there are."""
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _others(inner[0], value)
    if get_origin(annotation) in (Union, UnionType):
        return [other for each in inner for other in _others(each, value)]
    if get_origin(annotation) is Literal:
        return [each for each in inner if each != value]
    if annotation is bool:
        return [not value]
    if annotation is int:
        return [value + 1 if isinstance(value, int) else 1]
    return [None] if annotation is NoneType and value is not None else []


@CHECKS.add(
    means="A mistyped path ends in a traceback.",
    mend="Raise grbench.errors.DataError, naming the path, from digest() where the source is missing.",
)
def a_missing_source_is_told(plugin: CheckedPlugin) -> None:
    """Each path of the options, one that is not there."""
    values = flat_values(plugin.plugin.factory, plugin.options, plugin.id)
    names = [name for name, value in values.items() if isinstance(value, Path)]
    skip_unless(names, "no option names a file or folder")
    with temporary_folder() as folder:
        for name in names:
            missing = _with(plugin, **{name: str(folder / "not there")})
            try:
                _digest(missing)
            except GRBenchError:
                continue
            require(False, f"with a missing {name}, digest() raises nothing")


@CHECKS.add(
    means="`grbench data validate` fails, or cannot say what is wrong.",
    mend="Return a list of grbench.types.Finding, or None.",
)
def validates(plugin: CheckedPlugin) -> None:
    """What is found in a source that can be read."""
    skip_unless_there(plugin)
    findings = optional(plugin.make(), Dataset.validate)(no_progress)
    skip_unless(findings is not None, "only write() looks at the source")
    assert findings is not None
    require(all(isinstance(each, Finding) for each in findings), "validate() returns something else than findings")


@CHECKS.add(
    means="Methods are audited for leaks on a world that lacks what they read, or not at all.",
    mend="Let stand_in() name a dataset that needs no source and writes the same fields of items and users.",
)
def stand_in_has_the_same_fields(plugin: CheckedPlugin) -> None:
    """The stand-in's store beside its own."""
    stand_in = optional(plugin.make(), Dataset.stand_in)()
    skip_unless(stand_in is not None, "methods are audited on a made-up store")
    assert stand_in is not None
    options = dict(stand_in)
    name = str(options.pop("name"))
    with temporary_folder() as folder:
        there = build_store(plugin.registry.build("datasets", Component(name, options)), name="stand_in", cache=folder)
        own = _built(plugin, folder)
        for what in ("item_features", "user_features"):
            mine, theirs = ([field.name for field in getattr(each.catalogue, what).fields] for each in (own, there))
            lacking = [field for field in mine if field not in theirs]
            require(not lacking, f"the stand-in lacks {', '.join(lacking)} of {what}")
