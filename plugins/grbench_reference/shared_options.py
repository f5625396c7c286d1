"""Encoders that have all the options of another, and some of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar, get_type_hints

Extended = TypeVar("Extended", bound=type)


def shares_options(base: type) -> Callable[[Extended], Extended]:
    """For a class whose constructor takes its own options and `**shared`, all of which it hands to `base`.

    The signature then names every option, those of `base` first, with base's types, defaults and documentation: what is
    added to `base` is added here, and cannot come to mean something else.
    """

    def name_them(extended: Extended) -> Extended:
        constructor, theirs = extended.__init__, inspect.signature(base.__init__)  # type: ignore[misc]
        hints = get_type_hints(base.__init__, include_extras=True)  # type: ignore[misc]
        own = inspect.signature(constructor)
        shared = [
            option.replace(annotation=hints[option.name])
            for option in theirs.parameters.values()
            if option.kind is option.KEYWORD_ONLY
        ]
        assert not {option.name for option in shared} & set(own.parameters), "an option cannot be both own and shared"
        named = [option for option in own.parameters.values() if option.kind is not option.VAR_KEYWORD]
        first = [option for option in named if option.kind is not option.KEYWORD_ONLY]
        last = [option for option in named if option.kind is option.KEYWORD_ONLY]
        constructor.__signature__ = own.replace(parameters=[*first, *shared, *last])
        constructor.__doc__ = inspect.getdoc(base)  # its Args: section describes what is shared
        return extended

    return name_them
