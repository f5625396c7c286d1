"""Binding options to a factory's signature: its keyword-only, annotated arguments are its options.

An argument annotated with an OptionGroup (a frozen dataclass) is no option itself: the group's fields are.
Pydantic makes a model of the signature, so one declaration gives the check, the defaults, the JSON schema and the
printed description. Checks are strict, as JSON's are: a quoted "0.1" is no number, true is no integer, 1 is a float.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from grbench.errors import PluginError, SuiteError
from grbench.registry.option_types import OptionGroup

Factory = Callable[..., Any]

# Numbers are finite, because options end in JSON; any name but a private one may be an option's.
_STRICT = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <="}


class Argument(NamedTuple):
    """A keyword-only argument of a factory, or a field of a group. Without a default, that is `Parameter.empty`."""

    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Without a default."""
        return self.default is inspect.Parameter.empty


class Option(NamedTuple):
    """One option as it is printed. `default` is JSON, or the word `required`."""

    name: str
    type: str
    default: str
    doc: str


def bind(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Every option of the factory, defaults filled in, as JSON-ready values.

    Raises SuiteError with `<where>.<option>: what is wrong` where the options do not fit the signature, and PluginError
    where the signature itself cannot hold options.
    """
    return _validate(factory, options, where).model_dump(mode="json")


def bound_values(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Like `bind`, but as the annotations say: a Path is a Path, a tuple a tuple, and the options of a group are one
    instance of it. What the factory is called with."""
    return _grouped(_arguments(factory), flat_values(factory, options, where))


def flat_values(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Like `bound_values`, but each option of a group under its own name."""
    return _validate(factory, options, where).__dict__


def bound_contents(factory: Factory, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Like `bind`, but a DataFile or DataFolder is the hash of what it holds, and not where it lies.

    Raises SuiteError with `<where>.<option>: <path>` for one that cannot be read.
    """
    model = _validate(factory, options, where)
    unread: list[str] = []

    def content_of(path: Path, hashed: Callable[[Path], str]) -> str:
        try:
            return f"sha256:{hashed(path)}"
        except OSError as error:  # raised below: pydantic would take it for a value that is no path
            unread.append(f"{path}: cannot be read ({error.strerror})")
            return ""

    values = model.model_dump(mode="json", context=content_of)
    for name in type(model).model_fields if unread else ():
        unread.clear()
        model.model_dump(mode="json", include={name}, context=content_of)
        if unread:
            raise SuiteError(f"{where}.{name}: {unread[0]}")
    return values


@cache
def options_model(factory: Factory) -> type[pydantic.BaseModel]:
    """The pydantic model of the factory's options; raises PluginError where its signature cannot hold options."""
    documentation = _documentation(factory)
    fields: dict[str, Any] = {}
    for name, option in options_of(factory).items():
        default = ... if option.required else option.default
        fields[name] = (option.annotation, pydantic.Field(default, description=documentation.get(name)))
    try:
        with warnings.catch_warnings():
            # Options called `copy` or `json` hide methods of the model that nobody here calls.
            warnings.filterwarnings("ignore", message=".*shadows an attribute", category=UserWarning)
            model: type[pydantic.BaseModel] = pydantic.create_model(_title(factory), __config__=_STRICT, **fields)
    except (pydantic.errors.PydanticUserError, NameError, TypeError) as error:
        raise PluginError(f"{_title(factory)}: its options cannot be read: {error}") from error
    return model


def describe(factory: Factory) -> list[Option]:
    """The factory's options in the order of its signature, documented by the `Args:` section of its docstring."""
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
    """The JSON schema of a mapping of the factory's options."""
    return options_model(factory).model_json_schema()


def type_name(annotation: Any) -> str:
    """An annotation in a line: `int > 0`, `fp32 | bf16`, `list[str]`. A tuple of any length is a list in a suite."""
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
    """The end of a message about an unknown name: the nearest valid one, or all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are: {', '.join(names)}" if names else "there are none"


def _validate(factory: Factory, options: Mapping[str, Any], where: str) -> pydantic.BaseModel:
    model = options_model(factory)
    for name in options:
        if name not in model.model_fields:
            raise SuiteError(f"{where}.{name}: unknown option; {suggestion(str(name), model.model_fields)}")
    known = options_of(factory)
    defaults = {name: option.default for name, option in known.items() if not option.required}
    try:
        # By way of JSON, where strictness means what a YAML file can say: a list is a tuple, a string a path. Defaults
        # go the same way, so that leaving 0 out and writing 0 give the same value.
        return model.model_validate_json(to_json({**defaults, **options}, inf_nan_mode="constants"))
    except PydanticSerializationError as error:
        raise SuiteError(f"{where}: only text, numbers, true, false, null, lists and mappings: {error}") from error
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        annotation = known[name].annotation
        if name not in options and problem["type"] != "missing":
            raise PluginError(
                f"{_title(factory)}: the default of option {name} does not fit its annotation {type_name(annotation)}"
            ) from error
        raise SuiteError(_explain(where, problem, annotation)) from error


def _explain(where: str, problem: Any, annotation: Any) -> str:
    name, *inner = map(str, problem["loc"])
    if problem["type"] == "missing":
        place, what = [name, *inner], f"must be given ({type_name(annotation)})" if not inner else "must be given"
        return f"{'.'.join([where, *place])}: {what}"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{'.'.join([where, name, *inner])}: unknown option"
    got = to_json(problem["input"], fallback=repr, inf_nan_mode="constants").decode()
    if _alternatives(annotation) > 1:  # pydantic complains once an alternative; the whole says more
        return f"{where}.{name}: should be {type_name(annotation)}, got {got}"
    said = re.sub("^(Input|List|Tuple|Dictionary|String|Value) should", "should", problem["msg"])
    said = re.sub(" after validation, not [0-9]+", "", said)
    said = said.replace("a valid array", "a list").replace("an object", "a mapping")
    return f"{'.'.join([where, name, *inner])}: {said}, got {got}"


def _alternatives(annotation: Any) -> int:
    if typing.get_origin(annotation) is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return 1
    return sum(argument is not types.NoneType for argument in typing.get_args(annotation))


def _limits(metadata: tuple[Any, ...]) -> list[str]:
    """The limits that `Annotated` carries, as pydantic's Field or the constraints it is made of."""
    constraints = [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
    limits = ((sign, getattr(constraint, key, None)) for constraint in constraints for key, sign in _SIGNS.items())
    return [f"{sign} {limit}" for sign, limit in limits if limit is not None]


@cache
def options_of(factory: Factory) -> Mapping[str, Argument]:
    """Every option of the factory: its own arguments, and in place of a group that group's fields."""
    found: dict[str, Argument] = {}
    for name, option in _flat(_arguments(factory)):
        if name in found:
            raise PluginError(f"{_title(factory)}: option {name} is there twice; a name may be in one group only")
        if name.startswith("_"):
            raise PluginError(f"{_title(factory)}: option {name} must not start with an underscore")
        found[name] = option
    return found


def _flat(arguments: Mapping[str, Argument]) -> Iterator[tuple[str, Argument]]:
    for name, argument in arguments.items():
        if _is_group(argument.annotation):
            yield from _flat(_fields(name, argument))
        else:
            yield name, argument


def _grouped(arguments: Mapping[str, Argument], values: Mapping[str, Any]) -> dict[str, Any]:
    """{argument: value} from the values of all options: a group is made of those of its fields."""
    return {
        name: argument.annotation(**_grouped(_fields(name, argument), values))
        if _is_group(argument.annotation)
        else values[name]
        for name, argument in arguments.items()
    }


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, OptionGroup)


def _fields(name: str, argument: Argument) -> dict[str, Argument]:
    """The fields of the group that an argument takes; their defaults are those of the argument's own default."""
    group = argument.annotation
    if "__dataclass_fields__" not in vars(group) or not group.__dataclass_params__.frozen:
        raise PluginError(f"{_title(group)}: a group of options must be a dataclass(frozen=True, kw_only=True)")
    if not argument.required and not isinstance(argument.default, group):
        raise PluginError(f"{_title(group)}: the default of argument {name} must be a {_title(group)}")
    try:
        hints = typing.get_type_hints(group, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise _unresolved(group, error) from error
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


@cache
def _arguments(factory: Factory) -> Mapping[str, Argument]:
    """The factory's keyword-only arguments. Only their annotations are resolved, because those of the run-time objects
    before them are often imported for type checkers alone."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(f"{_title(factory)}: its signature cannot be read: {error}") from error
    found = {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            raise PluginError(f"{_title(factory)}: name its options instead of taking **{parameter.name}")
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is not parameter.empty:
            raise PluginError(
                f"{_title(factory)}: argument {parameter.name} has a default but is not keyword-only; put a * before it"
            )
    for parameter in found.values():
        if parameter.annotation is parameter.empty:
            raise PluginError(f"{_title(factory)}: option {parameter.name} has no annotation")
    hints = resolve(factory, {name: parameter.annotation for name, parameter in found.items()})
    return {name: Argument(hint, found[name].default) for name, hint in hints.items()}


def resolve(factory: Factory, annotations: dict[str, Any]) -> dict[str, Any]:
    """Annotations of the factory with the text that `from __future__ import annotations` makes of them evaluated;
    raises PluginError where a name in them is not there at run time."""
    function = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)

    def holder() -> None: ...

    holder.__annotations__ = annotations
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise _unresolved(factory, error) from error


def _unresolved(factory: Factory, error: Exception) -> PluginError:
    return PluginError(
        f"{_title(factory)}: an annotation cannot be resolved: {error}; import it outside of TYPE_CHECKING"
    )


def _title(factory: Factory) -> str:
    return getattr(factory, "__qualname__", repr(factory))


def _documentation(factory: Factory) -> dict[str, str]:
    """{option: text} of the `Args:` section of the factory's docstring; for what a class does not describe there of its
    constructor's, and for what neither describes of the groups' docstrings."""
    texts = [inspect.getdoc(factory) or ""]
    if inspect.isclass(factory):
        texts.append(inspect.getdoc(factory.__init__) or "")
    texts += [inspect.cleandoc(base.__doc__ or "") for group in _groups(_arguments(factory)) for base in group.__mro__]
    found: dict[str, str] = {}
    for text in texts:
        section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
        body = inspect.cleandoc(section.group(1)) if section else ""
        for name, doc in re.findall(r"^(\w+)(?: \([^)]*\))?:\s*(.*(?:\n[ ]+.*)*)", body, re.MULTILINE):
            found.setdefault(name, " ".join(doc.split()))
    return found


def _groups(arguments: Mapping[str, Argument]) -> Iterator[type[OptionGroup]]:
    """Those that the arguments take, and those within them."""
    for name, argument in arguments.items():
        if _is_group(argument.annotation):
            yield argument.annotation
            yield from _groups(_fields(name, argument))
