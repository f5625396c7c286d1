"""The declared arguments of a factory: its keyword-only, annotated arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from grbench.errors import PluginError

Factory = Callable[..., Any]


class Argument(NamedTuple):
    """A keyword-only argument of a factory, or a field of a group. default: `Parameter.empty` where it has none."""

    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


@cache
def declared_arguments(factory: Factory) -> Mapping[str, Argument]:
    """The factory's keyword-only arguments. Other annotations are not resolved, because the types of run-time objects
    are often imported for type checkers only."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(f"{title_of(factory)}: its signature cannot be read: {error}") from error
    found = {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            raise PluginError(f"{title_of(factory)}: name its options instead of taking **{parameter.name}")
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is not parameter.empty:
            raise PluginError(
                f"{title_of(factory)}: argument {parameter.name} has a default but is not keyword-only; put a * before "
                "it"
            )
    for parameter in found.values():
        if parameter.annotation is parameter.empty:
            raise PluginError(
                f"{title_of(factory)}: option {parameter.name} has no annotation; write `{_annotated(parameter)}`"
                f"{_place(factory)}"
            )
    hints = resolve(factory, {name: parameter.annotation for name, parameter in found.items()})
    return {name: Argument(hint, found[name].default) for name, hint in hints.items()}


def _annotated(option: inspect.Parameter) -> str:
    """The option as it might be declared, by the type of its default: `layers: int = 1`."""
    if option.default is inspect.Parameter.empty:
        return f"{option.name}: int"
    kind = "int | None" if option.default is None else type(option.default).__name__
    return f"{option.name}: {kind} = {option.default!r}"


def _place(factory: Factory) -> str:
    """` (file, line n)` of the factory's function, empty where it is not written in Python."""
    function = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    code = getattr(function, "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""


def resolve(factory: Factory, annotations: dict[str, Any]) -> dict[str, Any]:
    """Evaluates annotations of the factory that are text (`from __future__ import annotations`); raises PluginError
    where a name in them is not defined at run time."""
    function = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)

    def holder() -> None: ...

    holder.__annotations__ = annotations
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise unresolved(factory, error) from error


def unresolved(factory: Factory, error: Exception) -> PluginError:
    """What to raise where an annotation is text that means nothing at run time."""
    return PluginError(
        f"{title_of(factory)}: an annotation cannot be resolved: {error}; import it outside of TYPE_CHECKING"
    )


def title_of(factory: Factory) -> str:
    """The factory's name, for messages."""
    return getattr(factory, "__qualname__", repr(factory))
