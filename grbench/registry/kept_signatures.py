"""Signatures of plug-ins, kept on disk: with them suites are checked and plug-ins listed without importing any.

A signature says what a factory's source declares: its module, its options with their types and defaults, and of the
class that it makes the public methods and `needs`. Options of rare types (a pydantic validator, a class of one's own)
cannot be kept; such a factory is imported each time. All are void once what is installed has changed, or a source file
of the core or of a package with plug-ins; the first command after that imports the plug-ins it needs, and keeps them.
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
from grbench.registry.option_types import DataFile, DataFolder
from grbench.registry.options import Factory, describe, json_schema, options_of
from grbench.registry.source_hash import plugin_packages

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


class KeptFactory:
    """Stands for a factory that is not imported: of the same module, signature and interfaces. A call imports it."""

    def __init__(self, target: str, content: Mapping[str, Any]) -> None:
        self.target = target
        self.__module__ = content["module"]
        self.__qualname__ = content["qualname"]
        hints = {name: _decode(written) for name, written, *_ in content["options"]}
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
        shown = content["shows"]
        self.__annotations__ = hints if shown is None else {**hints, "return": _kept_class(self.__qualname__, shown)}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return pkgutil.resolve_name(self.target)(*arguments, **options)


class KeptSignatures:
    """{target, `module:attribute`: signature}, read from a folder and written there by `save`."""

    def __init__(self, folder: Path) -> None:
        # Each environment has its own, as each has its own plug-ins.
        self._path = folder / f"signatures-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}.json"
        self._fingerprint = _fingerprint()
        self._new = False
        self._contents: dict[str, dict[str, Any]] = {}
        self._factories: dict[str, KeptFactory] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # none yet, or no file of ours
            kept = json.loads(self._path.read_text())
            if kept["fingerprint"] == self._fingerprint:
                self._contents = kept["signatures"]

    def get(self, target: Factory | str) -> KeptFactory | None:
        """What stands for the factory; None where it is not kept, as those are not that are registered imported."""
        if not isinstance(target, str) or target not in self._contents:
            return None
        if target not in self._factories:
            self._factories[target] = KeptFactory(target, self._contents[target])
        return self._factories[target]

    def add(self, target: Factory | str, factory: Factory) -> None:
        """Keeps the signature of an imported factory, where it can be kept so that nothing of it is lost."""
        if not isinstance(target, str) or target in self._contents:
            return
        try:
            content = json.loads(json.dumps(_describe(factory)))
            same = _facts(KeptFactory(target, content)) == _facts(factory)
        except (PluginError, TypeError, ValueError, AttributeError, ImportError):
            return  # it has what the functions below do not know
        if same:
            self._contents[target], self._new = content, True

    def save(self) -> None:
        """Writes what was added. A folder that cannot be written costs only time."""
        if not self._new:
            return
        partial = self._path.with_name(f".{self._path.name}.partial-{os.getpid()}")
        with contextlib.suppress(OSError):
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"fingerprint": self._fingerprint, "signatures": self._contents}))
            partial.replace(self._path)
            self._new = False


def _facts(factory: Factory) -> Any:
    """What a message, a check or a schema says of the options."""
    schema = json_schema(factory)
    for place in [schema, *schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]:
        place.pop("description", None)
    return schema, [option[:3] for option in describe(factory)]


def _describe(factory: Factory) -> dict[str, Any]:
    """The signature, JSON-ready; raises TypeError where that cannot be."""
    defaults = {option.name: option.default for option in describe(factory)}
    options = []
    for name, option in options_of(factory).items():
        default = [] if option.required else [json.loads(defaults[name])]
        options.append([name, _encode(option.annotation), *default])
    returned = factory if isinstance(factory, type) else typing.get_type_hints(factory).get("return")
    shows = None
    if isinstance(returned, type):
        needs = getattr(returned, "needs", None)
        shows = {
            "methods": [name for name in dir(returned) if name[0] != "_" and callable(getattr(returned, name, None))],
            "needs": None if needs is None else [f"{each.__module__}:{each.__qualname__}" for each in needs],
        }
    home = inspect.unwrap(factory)
    return {"module": home.__module__, "qualname": home.__qualname__, "options": options, "shows": shows}


def _kept_class(name: str, content: Mapping[str, Any]) -> type:
    members: dict[str, Any] = dict.fromkeys(content["methods"], _not_imported)
    if content["needs"] is not None:
        members["needs"] = tuple(pkgutil.resolve_name(each) for each in content["needs"])
    return type(name, (), members)


def _not_imported(*_: Any) -> None:
    raise PluginError("this is the signature of a plug-in; only an imported one computes")


def _encode(annotation: Any) -> Any:
    """An annotation as JSON; raises TypeError for what `_decode` could not make again."""
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
    raise TypeError(f"{annotation} is not kept")


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
        raise TypeError(f"{limit} is not kept")
    return [name, dataclasses.asdict(limit)]


def _decode(written: Any) -> Any:
    """The annotation that `_encode` was given, or one that means the same."""
    if isinstance(written, str):
        return _NAMED[written]
    if "limited" in written:
        inner, *limits = written["limited"]
        return Annotated[(_decode(inner), *(_LIMITS[name](**values) for name, values in limits))]
    if "literal" in written:
        return Literal[tuple(written["literal"])]
    if "fields" in written:
        fields = {name: _decode(field) for name, field in written["fields"].items()}
        make: Any = TypedDict
        made = make(written["name"], fields, total=written["total"])
        if written["config"] is not None:
            made.__pydantic_config__ = written["config"]
        return made
    ((name, arguments),) = written.items()
    inner = tuple(_decode(argument) for argument in arguments)
    if name == "union":
        return functools.reduce(operator.or_, inner)
    return _GENERIC[name][inner] if inner else _GENERIC[name]


def _fingerprint() -> str:
    """Names the interpreter, what is installed, and every source file that a signature may come from.

    Files count by their size and the time of their last change, as they do for Python's own compiled files.
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
    places = (spec.submodule_search_locations or [spec.origin or ""]) if spec is not None else []
    for place in map(Path, places):
        for file in [place] if place.is_file() else place.rglob("*.py"):
            found = file.stat()
            yield str(file), found.st_mtime_ns, found.st_size
