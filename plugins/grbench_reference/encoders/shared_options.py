"""Options that several encoders have, written down once: in the class that reads them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar, get_type_hints

from grbench.registry.options import describe

Sharing = TypeVar("Sharing", bound=type)


def shares_options(base: type) -> Callable[[Sharing], Sharing]:
    """For a class with options of `base`, so that what is said of them is said once and cannot come to differ.

    An option that the class does not document is documented as the one of that name in `base`. A constructor that takes
    `**shared`, and hands it to `base`, has behind its own options all those of `base` that have a default and that it
    does not name itself, with base's types and defaults.
    """

    def complete(sharing: Sharing) -> Sharing:
        constructor = sharing.__init__  # type: ignore[misc]
        own = inspect.signature(constructor)
        named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        if len(named) < len(own.parameters):
            hints = get_type_hints(base.__init__, include_extras=True)  # type: ignore[misc]
            shared = [
                option.replace(annotation=hints.get(option.name, option.annotation))
                for option in inspect.signature(base).parameters.values()
                if option.default is not option.empty and option.name not in own.parameters
            ]
            constructor.__signature__ = own.replace(parameters=[*named, *shared])
        documented = (f"    {option.name}: {option.doc}" for option in describe(base) if option.doc)
        constructor.__doc__ = "\n".join(["Options.", "", "Args:", *documented])
        return sharing

    return complete
