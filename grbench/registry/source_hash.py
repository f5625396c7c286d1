"""What a number was computed with, down to the source: the hash of a module and of the plug-in modules it imports."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Set
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from grbench.errors import PluginError
from grbench.hookspecs import GROUP


def source_hash(factory: Callable[..., Any]) -> str:
    """sha256 over the factory's module and, transitively, what it imports of its own and of other plug-ins' packages.

    The core is left out: a cell's identity names it apart.
    Raises PluginError where there is no source to read.
    """
    module = inspect.unwrap(factory).__module__
    if _read(module) is None:
        raise PluginError(f"{module}: its source cannot be found, so no result could say what it was computed with")
    return modules_hash([module])


def modules_hash(modules: Iterable[str], *, leave_out: Iterable[str] = ()) -> str:
    """sha256 over the modules and, transitively, what they import of their own and of plug-ins' top-level packages.

    Imports are read from the source, those inside functions too; those for type checkers alone are not followed.
    """
    waiting, seen = list(modules), set(leave_out)
    digests: list[str] = []
    while waiting:
        module = waiting.pop()
        source = None if module in seen else _read(module)
        seen.add(module)
        if source is not None:
            digest, imports = source
            digests.append(f"{module} {digest}")
            waiting += imports
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]] | None:
    """(hash of the source, modules it imports that count too); None where the module is no file."""
    spec = _find(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    # A checkout on Windows has other line ends; the source is the same.
    source = Path(spec.origin).read_bytes().replace(b"\r\n", b"\n")
    is_python = spec.origin.endswith(".py")
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    followed = {_top(module), *plugin_packages()}
    imports = _imports(ast.parse(source), package, followed) if is_python else ()
    return hashlib.sha256(source).hexdigest(), tuple(name for name in imports if _top(name) in followed)


@cache
def plugin_packages() -> frozenset[str]:
    """Top-level modules of every distribution that has plug-ins, but not the core's."""
    entries = metadata.entry_points(group=GROUP)
    named = {_top(entry.module) for entry in entries}
    distributions = {entry.dist.name for entry in entries if entry.dist is not None}
    shipped = {top for top, owners in metadata.packages_distributions().items() if distributions & {*owners}}
    return frozenset((named | shipped) - {"grbench"})


def _top(module: str) -> str:
    return module.partition(".")[0]


def _find(module: str) -> ModuleSpec | None:
    """The module's place, found without importing anything: a parent may be broken, or slow to import."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
    except ValueError:  # a module made by hand, or __main__
        return None
    for depth in range(len(inner)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *inner[: depth + 1]]), spec.submodule_search_locations)
    return spec


def _imports(tree: ast.AST, package: str, followed: Set[str]) -> Iterator[str]:
    """Names of the modules imported anywhere below a node; `from a import b` is a.b where that is a module, else a."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _imports(other, package, followed)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if _top(base) in followed and _find(inner) else base
        else:
            yield from _imports(node, package, followed)
