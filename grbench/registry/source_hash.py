"""Which source a number was computed with: a plug-in's, with all that it imports, and that of rooms of the core."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from grbench.errors import PluginError
from grbench.hookspecs import GROUP
from grbench.registry.content_hash import file_hash
from grbench.registry.syntax_hash import Syntax, read_syntax

CORE = "grbench"
NO_ARITHMETIC = frozenset({"pydantic", "pydantic_core", "typing_extensions", "pluggy", "click", "rich", "tqdm"})
"""Libraries that check, print and register: no number depends on their version."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_NO_DATA = frozenset({".py", ".pyc", ".pyi"})


@dataclass(frozen=True)
class Module:
    """A module that counts: its digest, that of the data files in its package, and the modules that it imports."""

    digest: str
    data: tuple[str, ...]
    imports: tuple[str, ...]


@cache
def source_hash(factory: Callable[..., Any]) -> str:
    """sha256 over the factory's module and, transitively, what it imports of its own package, of other plug-ins'
    packages, and of what lies outside of any installed distribution; with the data files in these packages.

    The core is left out: a cell's identity names it apart. Raises PluginError where there is no source to read.
    """
    return _joined(_modules(_home(factory)))


@cache
def library_versions(factory: Callable[..., Any]) -> dict[str, str]:
    """{name: version} of the other libraries that the modules of `source_hash` import, those without arithmetic apart.

    A library that is not installed is left out. So is what stands behind the + of a version: the device that it was
    built for.
    """
    home = _home(factory)
    named = {_top(name) for module in _modules(home).values() for name in [home, *module.imports]}
    others = sorted(name for name in named - {CORE} - NO_ARITHMETIC - sys.stdlib_module_names if not _counts(name))
    versions = {name: library_version(name) for name in others}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def room_hash(*rooms: str) -> str:
    """sha256 over rooms of the core: each is a folder of it, all of whose modules count, or a single module."""
    return _joined({name: module for name in room_modules(*rooms) if (module := _read(name))})


def room_modules(*rooms: str) -> list[str]:
    """The names of the modules in rooms of the core, sorted."""
    names: list[str] = []
    for room in rooms:
        spec = _find(f"{CORE}.{room}")
        assert spec is not None, room
        folders = spec.submodule_search_locations or ()
        files = [file.relative_to(folder) for folder in folders for file in Path(folder).rglob("*.py")]
        inner = (".".join(file.with_suffix("").parts).removesuffix("__init__").rstrip(".") for file in files)
        names += [".".join(filter(None, (CORE, room, name))) for name in inner] or [f"{CORE}.{room}"]
    return sorted(names)


@cache
def library_version(name: str) -> str | None:
    """The version of the distribution that an import comes from; None where there is none."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        spec = _find(name)
    # The distribution has another name than what it installs: faiss comes from faiss-cpu or faiss-gpu.
    for place in {Path(path).parent for path in _places(spec)} if spec else ():
        for folder in place.glob("*.dist-info"):
            found = metadata.Distribution.at(folder)
            if re.search(rf"^{re.escape(name)}(/|\.py,)", found.read_text("RECORD") or "", re.MULTILINE):
                return found.version.partition("+")[0]
    return None


@cache
def plugin_packages() -> frozenset[str]:
    """Top-level modules of every distribution that has plug-ins, but not the core's."""
    distributions = {entry.dist.name: entry.dist for entry in _entry_points() if entry.dist is not None}
    shipped = {
        file.parts[0].removesuffix(".py")
        for distribution in distributions.values()
        for file in distribution.files or ()
        if file.suffix in (".py", ".so", ".pyd")
    }
    return frozenset((shipped | {_top(entry.module) for entry in _entry_points()}) - {CORE})


def look_again() -> None:
    """What has been changed, installed or removed since a source was hashed counts from now on."""
    results = (source_hash, library_versions, room_hash, library_version, plugin_packages)
    for found in (*results, _entry_points, _modules, _counts, _read, _data, _find):
        found.cache_clear()


@cache
def _entry_points() -> metadata.EntryPoints:
    return metadata.entry_points(group=GROUP)


def _home(factory: Callable[..., Any]) -> str:
    """The module that a factory stands in."""
    inner: Any = factory
    while isinstance(inner, partial):
        inner = inner.func
    name = str(inspect.unwrap(inner).__module__)
    if _read(name) is None:
        raise PluginError(f"{name}: its source cannot be found, so no result could say what it was computed with")
    return name


@cache
def _modules(home: str) -> dict[str, Module]:
    """{name: module} of all that counts for what stands in the module `home`."""
    waiting, seen = [home], set[str]()
    found: dict[str, Module] = {}
    while waiting:
        name = waiting.pop()
        if name in seen or not (name == home or _counts(name)):
            continue
        seen.add(name)
        module = _read(name)
        if module is not None:
            found[name] = module
            waiting += [*module.imports, *_parents(name)] if _counts(name) else []
    return found


def _joined(modules: dict[str, Module]) -> str:
    lines = {f"{name} {module.digest}" for name, module in modules.items()}
    lines |= {line for module in modules.values() for line in module.data}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@cache
def _counts(name: str) -> bool:
    """Whether a module's source counts where it is imported: not that of the core, of Python, and of libraries."""
    top = _top(name)
    if top == CORE or top in sys.stdlib_module_names:
        return False
    if top in plugin_packages():
        return True
    spec = _find(top)
    return spec is not None and not any(_is_installed(Path(place)) for place in _places(spec))


def _is_installed(place: Path) -> bool:
    """Whether a module or package lies where distributions are installed: site-packages, or beside a `.dist-info`."""
    return bool(_INSTALLED & {*place.parts}) or any(place.parent.glob("*.dist-info"))


def _places(spec: ModuleSpec) -> list[str]:
    """A module's file, or a package's folders."""
    if spec.submodule_search_locations is not None:
        return [*spec.submodule_search_locations]
    return [spec.origin] if spec.has_location and spec.origin else []


def _parents(name: str) -> Iterator[str]:
    """The packages around a module, which are imported before it. Not the one that registers plug-ins: it is imported
    whichever of them are used, and naming one more in it changes none of them."""
    registering = {entry.module for entry in _entry_points()}
    while name := name.rpartition(".")[0]:
        if name not in registering:
            yield name


@cache
def _read(name: str) -> Module | None:
    """None where the module is no file."""
    spec = _find(name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    path = Path(spec.origin)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    data: list[str] = []
    for depth, folder in enumerate(path.parents[: len(package.split("."))] if package else ()):
        data += _data(package.rsplit(".", depth)[0], folder)
    if path.suffix != ".py":
        return Module(file_hash(path), tuple(data), ())
    status = path.stat()
    syntax = _syntax(path, status.st_size, status.st_mtime_ns)
    if syntax is None:
        return Module(file_hash(path), tuple(data), ())
    imports = (module for node in syntax.imports for module in _imported(node, package))
    return Module(syntax.digest, tuple(data), tuple(dict.fromkeys(imports)))


@cache
def _syntax(path: Path, size: int, changed: int) -> Syntax | None:  # noqa: ARG001 - size and time are of the cache's key
    """None where the file is not Python: whoever imports it will hear of it."""
    try:
        return read_syntax(path.read_bytes())
    except SyntaxError:
        return None


@cache
def _data(package: str, folder: Path) -> tuple[str, ...]:
    """A line for each file of a package that is no Python, those in folders that hold no Python included."""
    lines: list[str] = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_file() and path.suffix not in _NO_DATA:
            lines.append(f"{package}/{path.name} {file_hash(path)}")
        elif path.is_dir() and not any(path.rglob("*.py")):
            lines += _data(f"{package}/{path.name}", path)
    return tuple(lines)


def _imported(node: ast.Import | ast.ImportFrom | ast.Call, package: str) -> Iterable[str]:
    """The modules that an import names; `from a import b` is a.b where that is a module, else a. A call with a name
    that is worked out when it runs gives none."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _absolute("." * node.level + (node.module or ""), package)
        inner = [f"{base}.{alias.name}" for alias in node.names]
        return [name if _counts(base) and _find(name) else base for name in inner]
    first = node.args[0] if node.args else None
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return []
    return [_absolute(first.value, package)]


def _absolute(name: str, package: str) -> str:
    """A module's full name; one that leads out of its package is left as it is, and is found nowhere."""
    try:
        return resolve_name(name, package)
    except ImportError:
        return name


def _top(module: str) -> str:
    return module.partition(".")[0]


@cache
def _find(module: str) -> ModuleSpec | None:
    """The module's place, found without importing anything: a parent may be broken, or slow to import."""
    package = module.rpartition(".")[0]
    if package:
        parent = _find(package)
        places = parent.submodule_search_locations if parent else None
        return PathFinder.find_spec(module, places) if places is not None else None
    try:
        return find_spec(module)
    except ValueError:  # a module made by hand, or __main__
        return None
