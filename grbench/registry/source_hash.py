"""Hashes of source code: of a plug-in with the modules that it imports, and of packages of the core."""

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
IGNORED_LIBRARIES = frozenset({"pydantic", "pydantic_core", "typing_extensions", "pluggy", "click", "rich", "tqdm"})
"""Libraries for validation, printing and registration, whose versions cannot change a number."""
_INSTALL_FOLDERS = frozenset({"site-packages", "dist-packages"})
_PYTHON_SUFFIXES = frozenset({".py", ".pyc", ".pyi"})


@dataclass(frozen=True)
class Module:
    """digest: of the module's source; data: a line with name and hash for each data file in its packages; imports: the
    names of the modules that it imports."""

    digest: str
    data: tuple[str, ...]
    imports: tuple[str, ...]


@cache
def source_hash(factory: Callable[..., Any]) -> str:
    """sha256 of the factory's module and, transitively, of the modules that it imports from its own package, from other
    plug-ins' packages, or from outside any installed distribution, and of the data files in these packages.

    The core is not included; identities contain `room_hash` for it. Raises PluginError where the source is not found.
    """
    return _combined_hash(_modules(_module_name(factory)))


@cache
def library_versions(factory: Callable[..., Any]) -> dict[str, str]:
    """{name: version} of the other libraries that the modules of `source_hash` import, except IGNORED_LIBRARIES.

    Libraries that are not installed are not included, nor is the part of a version after +, which names the device that
    the library was built for.
    """
    own = _module_name(factory)
    imported = {_top_level(name) for module in _modules(own).values() for name in [own, *module.imports]}
    libraries = imported - {CORE} - IGNORED_LIBRARIES - sys.stdlib_module_names
    versions = {name: library_version(name) for name in sorted(libraries) if not _is_hashed(name)}
    return {name: version for name, version in versions.items() if version is not None}


@cache
def room_hash(*rooms: str) -> str:
    """sha256 of all modules in some rooms of the core. A room is a package, `training`, or a module, `types`."""
    return _combined_hash({name: module for name in room_modules(*rooms) if (module := _read(name))})


def room_modules(*rooms: str) -> list[str]:
    """The names of all modules in some rooms of the core, sorted."""
    names: list[str] = []
    for room in rooms:
        spec = _spec(f"{CORE}.{room}")
        assert spec is not None, room
        folders = spec.submodule_search_locations or ()
        files = [file.relative_to(folder) for folder in folders for file in Path(folder).rglob("*.py")]
        inner = (".".join(file.with_suffix("").parts).removesuffix("__init__").rstrip(".") for file in files)
        names += [".".join(filter(None, (CORE, room, name))) for name in inner] or [f"{CORE}.{room}"]
    return sorted(names)


@cache
def library_version(name: str) -> str | None:
    """The version of the distribution that provides a top-level module; None where there is none."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        spec = _spec(name)
    # The distribution may have another name than the module: faiss comes from faiss-cpu or faiss-gpu.
    for parent in {Path(path).parent for path in _locations(spec)} if spec else ():
        for folder in parent.glob("*.dist-info"):
            found = metadata.Distribution.at(folder)
            if re.search(rf"^{re.escape(name)}(/|\.py,)", found.read_text("RECORD") or "", re.MULTILINE):
                return found.version.partition("+")[0]
    return None


@cache
def plugin_packages() -> frozenset[str]:
    """Top-level modules of all distributions with plug-ins, except the core."""
    distributions = {entry.dist.name: entry.dist for entry in _entry_points() if entry.dist is not None}
    shipped = {
        file.parts[0].removesuffix(".py")
        for distribution in distributions.values()
        for file in distribution.files or ()
        if file.suffix in (".py", ".so", ".pyd")
    }
    return frozenset((shipped | {_top_level(entry.module) for entry in _entry_points()}) - {CORE})


def clear_caches() -> None:
    """Forgets all hashes and versions, so that sources and packages changed since then are read again."""
    results = (source_hash, library_versions, room_hash, library_version, plugin_packages)
    for cached in (*results, _entry_points, _modules, _is_hashed, _read, _data_lines, _spec):
        cached.cache_clear()


@cache
def _entry_points() -> metadata.EntryPoints:
    return metadata.entry_points(group=GROUP)


def _module_name(factory: Callable[..., Any]) -> str:
    """The module in which a factory is defined; raises PluginError where its source is not found."""
    inner: Any = factory
    while isinstance(inner, partial):
        inner = inner.func
    name = str(inspect.unwrap(inner).__module__)
    if _read(name) is None:
        raise PluginError(f"{name}: its source cannot be found, but it must be part of the identity of a result")
    return name


@cache
def _modules(start: str) -> dict[str, Module]:
    """{name: module} of the module `start` and, transitively, of the hashed modules that it imports."""
    waiting, seen = [start], set[str]()
    found: dict[str, Module] = {}
    while waiting:
        name = waiting.pop()
        if name in seen or not (name == start or _is_hashed(name)):
            continue
        seen.add(name)
        module = _read(name)
        if module is not None:
            found[name] = module
            waiting += [*module.imports, *_parents(name)] if _is_hashed(name) else []
    return found


def _combined_hash(modules: dict[str, Module]) -> str:
    lines = {f"{name} {module.digest}" for name, module in modules.items()}
    lines |= {line for module in modules.values() for line in module.data}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@cache
def _is_hashed(name: str) -> bool:
    """Whether the source of an imported module is hashed: not if it belongs to the core, to Python or to an installed
    library without plug-ins."""
    top = _top_level(name)
    if top == CORE or top in sys.stdlib_module_names:
        return False
    if top in plugin_packages():
        return True
    spec = _spec(top)
    return spec is not None and not any(_is_installed(Path(path)) for path in _locations(spec))


def _is_installed(path: Path) -> bool:
    """Whether a module or package belongs to an installed distribution: in site-packages, or next to a `.dist-info`."""
    return bool(_INSTALL_FOLDERS & {*path.parts}) or any(path.parent.glob("*.dist-info"))


def _locations(spec: ModuleSpec) -> list[str]:
    """A module's file, or a package's folders."""
    if spec.submodule_search_locations is not None:
        return [*spec.submodule_search_locations]
    return [spec.origin] if spec.has_location and spec.origin else []


def _parents(name: str) -> Iterator[str]:
    """The packages that contain a module, which Python imports before it. The module that registers plug-ins is not
    included: it is imported whichever of them are used, and registering one more must not change the others' hashes."""
    registering = {entry.module for entry in _entry_points()}
    while name := name.rpartition(".")[0]:
        if name not in registering:
            yield name


@cache
def _read(name: str) -> Module | None:
    """Reads and hashes a module; None where it has no file."""
    spec = _spec(name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    path = Path(spec.origin)
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    data: list[str] = []
    for depth, folder in enumerate(path.parents[: len(package.split("."))] if package else ()):
        data += _data_lines(package.rsplit(".", depth)[0], folder)
    if path.suffix != ".py":
        return Module(file_hash(path), tuple(data), ())
    status = path.stat()
    syntax = _syntax(path, status.st_size, status.st_mtime_ns)
    if syntax is None:
        return Module(file_hash(path), tuple(data), ())
    imports = (module for node in syntax.imports for module in _imported(node, package))
    return Module(syntax.digest, tuple(data), tuple(dict.fromkeys(imports)))


@cache
def _syntax(path: Path, size: int, modified: int) -> Syntax | None:  # noqa: ARG001 - part of the cache's key
    """None where the file is not Python; importing it will raise the error."""
    try:
        return read_syntax(path.read_bytes())
    except SyntaxError:
        return None


@cache
def _data_lines(package: str, folder: Path) -> tuple[str, ...]:
    """A line with name and hash for each file of a package that is not Python, also in its folders without Python
    files."""
    lines: list[str] = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_file() and path.suffix not in _PYTHON_SUFFIXES:
            lines.append(f"{package}/{path.name} {file_hash(path)}")
        elif path.is_dir() and not any(path.rglob("*.py")):
            lines += _data_lines(f"{package}/{path.name}", path)
    return tuple(lines)


def _imported(node: ast.Import | ast.ImportFrom | ast.Call, package: str) -> Iterable[str]:
    """The modules that an import statement or call imports: `from a import b` imports a.b where that is a module, else
    a. A call whose argument is not a literal gives none."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _absolute("." * node.level + (node.module or ""), package)
        inner = [f"{base}.{alias.name}" for alias in node.names]
        return [name if _is_hashed(base) and _spec(name) else base for name in inner]
    first = node.args[0] if node.args else None
    if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        return []
    return [_absolute(first.value, package)]


def _absolute(name: str, package: str) -> str:
    """A module's absolute name; a relative name that leads out of its package is returned unchanged, and not found."""
    try:
        return resolve_name(name, package)
    except ImportError:
        return name


def _top_level(module: str) -> str:
    return module.partition(".")[0]


@cache
def _spec(module: str) -> ModuleSpec | None:
    """The module's spec, found without importing its packages, which may be broken or slow to import."""
    package = module.rpartition(".")[0]
    if package:
        parent = _spec(package)
        folders = parent.submodule_search_locations if parent else None
        return PathFinder.find_spec(module, folders) if folders is not None else None
    try:
        return find_spec(module)
    except ValueError:  # a module without a spec, such as __main__
        return None
