"""A cache of plug-ins' signatures on disk, with which suites are checked and plug-ins listed without importing them.

A signature consists of the factory's module, its options with types and defaults, and of the class of its objects the
public methods and `needs`. Signatures with options of other types (with a pydantic validator, or of a plug-in's own
class) cannot be cached; such factories are imported each time. The cache is discarded when installed packages, or a
source file of the core or of a package with plug-ins, have changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import operator
import os
import pkgutil
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict, is_typeddict

from grbench.errors import PluginError
from grbench.hookspecs import GROUP
from grbench.registry.arguments import Factory
from grbench.registry.option_types import DataFile, DataFolder
from grbench.registry.options import describe, json_schema, options_of
from grbench.registry.source_hash import plugin_packages
from grbench.temporary import beside

_NAMED: dict[str, Any] = {
    **{"int": int, "float": float, "bool": bool, "str": str, "null": type(None), "any": Any, "path": Path},
    **{"data_file": DataFile, "data_folder": DataFolder, "...": ...},
}
_GENERIC: dict[str, Any] = {"list": list, "tuple": tuple, "dict": dict, "sequence": Sequence, "mapping": Mapping}
_LIMITS = {
    limit.__name__: limit
    for limit in (
        *(annotated_types.Gt, annotated_types.Ge, annotated_types.Lt, annotated_types.Le),
        *(annotated_types.MinLen, annotated_types.MaxLen, annotated_types.MultipleOf),
    )
}


class CachedFactory:
    """Represents a factory that is not imported, with the same module, signature and interfaces; a call imports it.

    target: `module:attribute`; content: the cached signature.
    """

    def __init__(self, target: str, content: Mapping[str, Any]) -> None:
        self.target = target
        self.__module__ = content["module"]
        self.__qualname__ = content["qualname"]
        hints = {name: _decode(encoded) for name, encoded, *_ in content["options"]}
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=hints[name],
                    default=default[0] if default else inspect.Parameter.empty,
                )
                for name, _, *default in content["options"]
            ]
        )
        returned = content["returns"]
        self.__annotations__ = (
            hints if returned is None else {**hints, "return": _cached_class(self.__qualname__, returned)}
        )

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return pkgutil.resolve_name(self.target)(*arguments, **options)


class SignatureCache:
    """Signatures by target (`module:attribute`), read from a file in the folder; `save` writes added ones to it."""

    def __init__(self, folder: Path) -> None:
        # One file per Python environment, because each has its own plug-ins.
        self._path = folder / f"signatures-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}.json"
        self._fingerprint = _fingerprint()
        self._new = False
        self._contents: dict[str, dict[str, Any]] = {}
        self._factories: dict[str, CachedFactory] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # missing or malformed: starts empty
            saved = json.loads(self._path.read_text())
            if saved["fingerprint"] == self._fingerprint:
                self._contents = saved["signatures"]

    def get(self, target: Factory | str) -> CachedFactory | None:
        """The factory with its cached signature; None where it is not cached, or registered as an object and not as
        `module:attribute`."""
        if not isinstance(target, str) or target not in self._contents:
            return None
        if target not in self._factories:
            self._factories[target] = CachedFactory(target, self._contents[target])
        return self._factories[target]

    def add(self, target: Factory | str, factory: Factory) -> None:
        """Adds the signature of an imported factory, unless decoding it again gives another schema or description."""
        if not isinstance(target, str) or target in self._contents:
            return
        try:
            content = json.loads(json.dumps(_describe(factory)))
            same = _facts(CachedFactory(target, content)) == _facts(factory)
        except (PluginError, TypeError, ValueError, AttributeError, ImportError):
            return  # an option's type cannot be encoded
        if same:
            self._contents[target], self._new = content, True

    def save(self) -> None:
        """Writes added signatures. A folder that cannot be written is not an error: factories are then imported."""
        if not self._new:
            return
        with contextlib.suppress(OSError), beside(self._path) as partial:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"fingerprint": self._fingerprint, "signatures": self._contents}))
            partial.replace(self._path)
            self._new = False


def _facts(factory: Factory) -> Any:
    """The JSON schema and the description of the options, without documentation."""
    schema = json_schema(factory)
    for part in [schema, *schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]:
        part.pop("description", None)
    return schema, [option[:3] for option in describe(factory)]


def _describe(factory: Factory) -> dict[str, Any]:
    """The signature, JSON-ready; raises TypeError where an option's type cannot be encoded."""
    defaults = {option.name: option.default for option in describe(factory)}
    options = []
    for name, option in options_of(factory).items():
        default = [] if option.required else [json.loads(defaults[name])]
        options.append([name, _encode(option.annotation), *default])
    returned = factory if isinstance(factory, type) else typing.get_type_hints(factory).get("return")
    returns = None
    if isinstance(returned, type):
        needs = getattr(returned, "needs", None)
        returns = {
            "methods": [name for name in dir(returned) if name[0] != "_" and callable(getattr(returned, name, None))],
            "needs": None if needs is None else [f"{each.__module__}:{each.__qualname__}" for each in needs],
        }
    inner = inspect.unwrap(factory)
    return {"module": inner.__module__, "qualname": inner.__qualname__, "options": options, "returns": returns}


def _cached_class(name: str, content: Mapping[str, Any]) -> type:
    members: dict[str, Any] = dict.fromkeys(content["methods"], _not_imported)
    if content["needs"] is not None:
        members["needs"] = tuple(pkgutil.resolve_name(each) for each in content["needs"])
    return type(name, (), members)


def _not_imported(*_: Any) -> None:
    raise PluginError("this class has only the method names of a plug-in that is not imported")


def _encode(annotation: Any) -> Any:
    """An annotation as JSON; raises TypeError where `_decode` could not restore it."""
    for name, named in _NAMED.items():
        if annotation is named or (name.startswith("data_") and annotation == named):
            return name
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner, *notes = arguments
        limits = [limit for note in notes for limit in (note.metadata if isinstance(note, FieldInfo) else [note])]
        return {"limited": [_encode(inner), *map(_encode_limit, limits)]}
    if origin is Literal:
        return {"literal": list(arguments)}
    if is_typeddict(annotation):
        return _encode_fields(annotation)
    inner = [_encode(argument) for argument in arguments]
    if origin in (Union, type(int | str)):
        return {"union": inner}
    for name, generic in _GENERIC.items():
        if annotation is generic or origin is generic:
            return {name: inner}
    raise TypeError(f"{annotation} cannot be cached")


def _encode_fields(annotation: Any) -> Any:
    hints = typing.get_type_hints(annotation, include_extras=True)
    return {
        "fields": {name: _encode(hint) for name, hint in hints.items()},
        "name": annotation.__name__,
        "total": annotation.__total__,
        "config": getattr(annotation, "__pydantic_config__", None),
    }


def _encode_limit(limit: Any) -> Any:
    name = type(limit).__name__
    if _LIMITS.get(name) is not type(limit):
        raise TypeError(f"{limit} cannot be cached")
    return [name, dataclasses.asdict(limit)]


def _decode(encoded: Any) -> Any:
    """The annotation that `_encode` was called with, or an equivalent one."""
    if isinstance(encoded, str):
        return _NAMED[encoded]
    if "limited" in encoded:
        inner, *limits = encoded["limited"]
        return Annotated[(_decode(inner), *(_LIMITS[name](**values) for name, values in limits))]
    if "literal" in encoded:
        return Literal[tuple(encoded["literal"])]
    if "fields" in encoded:
        fields = {name: _decode(field) for name, field in encoded["fields"].items()}
        make: Any = TypedDict
        made = make(encoded["name"], fields, total=encoded["total"])
        if encoded["config"] is not None:
            made.__pydantic_config__ = encoded["config"]
        return made
    ((name, arguments),) = encoded.items()
    inner = tuple(_decode(argument) for argument in arguments)
    if name == "union":
        return functools.reduce(operator.or_, inner)
    return _GENERIC[name][inner] if inner else _GENERIC[name]


def _fingerprint() -> str:
    """sha256 of the interpreter's version, the installed packages, and the source files that a signature may come from.

    Files are compared by size and modification time, as Python does for its compiled files.
    """
    entries = metadata.entry_points(group=GROUP)
    facts = {
        "python": [sys.version, sys.prefix],
        "entry points": sorted([e.name, e.value, e.dist.name, e.dist.version] for e in entries if e.dist is not None),
        "installed": [[path, os.stat(path).st_mtime_ns] for path in sys.path if path.endswith("-packages")],
        "sources": sorted(file for package in ["grbench", *plugin_packages()] for file in _files(package)),
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _files(package: str) -> Iterator[tuple[str, int, int]]:
    spec = find_spec(package)
    locations = (spec.submodule_search_locations or [spec.origin or ""]) if spec is not None else []
    for location in map(Path, locations):
        for file in [location] if location.is_file() else location.rglob("*.py"):
            found = file.stat()
            yield str(file), found.st_mtime_ns, found.st_size
