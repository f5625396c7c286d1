"""Binding options to a factory's signature: its keyword-only, annotated arguments are its options.

In place of an argument annotated with an OptionGroup (a frozen dataclass), the group's fields are options.
A pydantic model of the signature gives validation, defaults, JSON schema and printed description. Validation is strict:
a quoted "0.1" is not a number and true is not an integer, but 1 is a float.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import types
import typing
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from grbench.errors import PluginError, Problems, SuiteError, cut
from grbench.registry.arguments import Argument, Factory, declared_arguments, title_of, unresolved
from grbench.registry.option_types import OptionGroup, PathHash
from grbench.storage.place import url_text

# Numbers must be finite, because options are written as JSON. Option names may begin with `model_`.
_STRICT = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <="}


class Option(NamedTuple):
    """An option's description. type: as `type_name` writes it; default: JSON, or the word `required`."""

    name: str
    type: str
    default: str
    doc: str


def bind(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All options of the factory, with defaults, as JSON-ready values.

    where: place of the options in the suite, for messages. Raises SuiteError, `<where>.<option>: <problem>`, where the
    options do not fit the signature, PluginError where the signature cannot declare options.
    """
    return _as_json(_validate(factory, options, where))


def bound_values(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keyword arguments that the factory is called with: like `bind`, but with values of the annotated types (Path,
    tuple) and with groups as instances. Raises as `bind` does."""
    return _grouped(declared_arguments(factory), flat_values(factory, options, where))


def flat_values(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Like `bound_values`, but each option of a group under its own name."""
    return _validate(factory, options, where).__dict__


def bound_contents(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Like `bind`, but with the hash of the content in place of the path of each DataFile and DataFolder.

    Raises SuiteError, `<where>.<option>: <path>`, for one that cannot be read.
    """
    model = _validate(factory, options, where)
    unread: list[str] = []

    def serialize_content(path: Path, hash_function: PathHash) -> str:
        try:
            return f"sha256:{hash_function(path)}"
        except OSError as error:  # raised below, because pydantic would turn it into an error of serialization
            unread.append(f"{path}: cannot be read ({error.strerror})")
            return ""

    values = _as_json(model, serialize_content)
    for name in type(model).model_fields if unread else ():
        unread.clear()
        model.model_dump(mode="json", include={name}, context=serialize_content)
        if unread:
            raise SuiteError(f"{where}.{name}: {unread[0]}")
    return values


def _as_json(model: pydantic.BaseModel, context: Any = None) -> dict[str, Any]:
    """The values JSON-ready; those of paths that are URLs as they were written, of which Path has merged slashes."""
    values: dict[str, Any] = model.model_dump(mode="json", context=context)
    for name, value in model.__dict__.items():
        if isinstance(value, Path) and values[name] == str(value):
            values[name] = url_text(value)
    return values


def file_contents(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options that name a DataFile or DataFolder, with the hash of the content in place of the path. Raises as
    `bound_contents` does."""
    named, hashed = bind(factory, options, where), bound_contents(factory, options, where)
    return {name: value for name, value in hashed.items() if value != named[name]}


@cache
def options_model(factory: Factory) -> type[pydantic.BaseModel]:
    """The pydantic model of the factory's options; raises PluginError where its signature cannot declare options."""
    documentation = _documentation(factory)
    fields: dict[str, Any] = {}
    for name, option in options_of(factory).items():
        default = ... if option.required else option.default
        fields[name] = (option.annotation, pydantic.Field(default, description=documentation.get(name)))
    try:
        with warnings.catch_warnings():
            # Options called `copy` or `json` shadow methods of the model that are not used here.
            warnings.filterwarnings("ignore", message=".*shadows an attribute", category=UserWarning)
            model: type[pydantic.BaseModel] = pydantic.create_model(title_of(factory), __config__=_STRICT, **fields)
    except (pydantic.errors.PydanticUserError, NameError, TypeError) as error:
        raise PluginError(f"{title_of(factory)}: its options cannot be read: {error}") from error
    return model


def describe(factory: Factory) -> list[Option]:
    """The factory's options, in order of its signature, with their documentation from the `Args:` section of its
    docstring."""
    documentation = _documentation(factory)
    return [
        Option(
            name,
            type_name(option.annotation),
            "required" if option.required else to_json(option.default, fallback=repr).decode(),
            documentation.get(name, ""),
        )
        for name, option in options_of(factory).items()
    ]


def json_schema(factory: Factory) -> dict[str, Any]:
    """The JSON schema of the factory's options."""
    return options_model(factory).model_json_schema()


def type_name(annotation: Any) -> str:
    """An annotation as text on one line: `int > 0`, `fp32 | bf16`, `list[str]`. A tuple of any length is written as the
    list that it is in a suite."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is types.NoneType:
        return "null"
    if origin is typing.Annotated:
        limits = " and ".join(_limits(arguments[1:]))
        return f"{type_name(arguments[0])} {limits}".strip()
    if origin is typing.Literal:
        return " | ".join(value if isinstance(value, str) else json.dumps(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    if annotation is Ellipsis:
        return "..."
    if origin is tuple and arguments[1:] == (Ellipsis,):
        origin, arguments = list, arguments[:1]
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(type_name(argument) for argument in arguments)}]" if arguments else name


def suggestion(name: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest valid name, or all valid ones."""
    names = sorted(valid)
    close = difflib.get_close_matches(name[:250], names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are: {cut(', '.join(names), 2_000)}" if names else "there are none"


def _validate(factory: Factory, options: Mapping[str, Any], where: str) -> pydantic.BaseModel:
    model, problems = options_model(factory), Problems()
    for name in options:
        if name not in model.model_fields:
            with problems:
                raise SuiteError(f"{where}.{cut(name)}: unknown option; {suggestion(name, model.model_fields)}")
    known = options_of(factory)
    given = {name: value for name, value in options.items() if name in known}
    defaults = {name: option.default for name, option in known.items() if not option.required}
    try:
        # Strict validation of JSON accepts a list for a tuple and text for a path, as in YAML. Defaults are validated
        # too, so that a default and the same value given in the suite become equal.
        bound = model.model_validate_json(to_json({**defaults, **given}, inf_nan_mode="constants"))
    except PydanticSerializationError as error:
        raise SuiteError(
            f"{where}: options must be text, numbers, true, false, null, lists or mappings: {error}"
        ) from error
    except pydantic.ValidationError as error:
        explained_already: set[str] = set()
        for problem in error.errors():
            name = str(problem["loc"][0])
            annotation = known[name].annotation
            if name not in options and problem["type"] != "missing":
                raise PluginError(
                    f"{title_of(factory)}: the default of option {name} does not fit its annotation "
                    f"{type_name(annotation)}"
                ) from error
            if name not in explained_already or _alternatives(annotation) == 1:
                with problems:
                    raise SuiteError(_explain(where, problem, annotation)) from error
            explained_already.add(name)
    problems.raise_found()
    return bound


def _explain(where: str, problem: Any, annotation: Any) -> str:
    name, *inner = map(str, problem["loc"])
    if problem["type"] == "missing":
        kind = "" if inner else f" ({type_name(annotation)})"
        return f"{'.'.join([where, name, *inner])}: must be given{kind}"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{'.'.join([where, name, *inner])}: unknown option"
    if _alternatives(annotation) > 1:  # pydantic reports one error per alternative; the whole type is clearer
        return f"{where}.{name}: should be {type_name(annotation)}, got {_got(problem)}"
    return f"{'.'.join([where, name, *inner])}: {explained(problem)}"


def explained(problem: Any) -> str:
    """What is wrong with a value, and the value: `should be greater than 0, got -1`. problem: one of the `errors()` of
    a pydantic.ValidationError."""
    if problem["type"] == "missing":
        return "is missing"
    message = re.sub("^(Input|List|Tuple|Dictionary|String|Value) should", "should", problem["msg"])
    message = message.removeprefix("Value error, ")
    message = re.sub(" after validation, not [0-9]+", "", message)
    message = message.replace("a valid array", "a list")
    message = re.sub("an object|a valid dictionary", "a mapping", message)
    return f"{message}, got {_got(problem)}"


def _got(problem: Any) -> str:
    return cut(to_json(problem["input"], fallback=repr, inf_nan_mode="constants").decode())


def _alternatives(annotation: Any) -> int:
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return 1
    return sum(argument is not types.NoneType for argument in typing.get_args(annotation))


def _limits(metadata: tuple[Any, ...]) -> list[str]:
    """The limits in the metadata of `Annotated`, as text; they are pydantic Fields or their constraints."""
    constraints = [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
    limits = ((sign, getattr(constraint, key, None)) for constraint in constraints for key, sign in _SIGNS.items())
    return [f"{sign} {limit}" for sign, limit in limits if limit is not None]


@cache
def options_of(factory: Factory) -> Mapping[str, Argument]:
    """All options of the factory by name: its own arguments, and the fields of its groups."""
    found: dict[str, Argument] = {}
    for name, option in _flat(declared_arguments(factory)):
        if name in found:
            raise PluginError(f"{title_of(factory)}: option {name} is declared twice; names must be unique")
        if name.startswith("_"):
            raise PluginError(f"{title_of(factory)}: option {name} must not start with an underscore")
        found[name] = option
    return found


def _flat(arguments: Mapping[str, Argument]) -> Iterator[tuple[str, Argument]]:
    for name, argument in arguments.items():
        if _is_group(argument.annotation):
            yield from _flat(_fields(name, argument))
        else:
            yield name, argument


def _grouped(arguments: Mapping[str, Argument], values: Mapping[str, Any]) -> dict[str, Any]:
    """{argument: value} from the values of all options; groups are instantiated with the values of their fields."""
    return {
        name: argument.annotation(**_grouped(_fields(name, argument), values))
        if _is_group(argument.annotation)
        else values[name]
        for name, argument in arguments.items()
    }


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, OptionGroup)


def _fields(name: str, argument: Argument) -> dict[str, Argument]:
    """The fields of the group that an argument takes; where the argument has a default, with the values in it as
    defaults."""
    group = argument.annotation
    if "__dataclass_fields__" not in vars(group) or not group.__dataclass_params__.frozen:
        raise PluginError(f"{title_of(group)}: a group of options must be a dataclass(frozen=True, kw_only=True)")
    if not argument.required and not isinstance(argument.default, group):
        raise PluginError(f"{title_of(group)}: the default of argument {name} must be a {title_of(group)}")
    try:
        hints = typing.get_type_hints(group, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise unresolved(group, error) from error
    fields = [field for field in dataclasses.fields(group) if field.init]
    return {
        field.name: Argument(
            hints[field.name], _default_of(field) if argument.required else getattr(argument.default, field.name)
        )
        for field in fields
    }


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _documentation(factory: Factory) -> dict[str, str]:
    """{option: text} from `Args:` sections: of the factory's docstring, else of its constructor's, else of the groups'
    docstrings."""
    texts = [inspect.getdoc(factory) or ""]
    if inspect.isclass(factory):
        texts.append(inspect.getdoc(factory.__init__) or "")
    texts += [
        inspect.cleandoc(base.__doc__ or "") for group in _groups(declared_arguments(factory)) for base in group.__mro__
    ]
    found: dict[str, str] = {}
    for text in texts:
        section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
        body = inspect.cleandoc(section.group(1)) if section else ""
        for name, doc in re.findall(r"^(\w+)(?: \([^)]*\))?:\s*(.*(?:\n[ ]+.*)*)", body, re.MULTILINE):
            found.setdefault(name, " ".join(doc.split()))
    return found


def _groups(arguments: Mapping[str, Argument]) -> Iterator[type[OptionGroup]]:
    """The groups that the arguments take, and the groups within them."""
    for name, argument in arguments.items():
        if _is_group(argument.annotation):
            yield argument.annotation
            yield from _groups(_fields(name, argument))
