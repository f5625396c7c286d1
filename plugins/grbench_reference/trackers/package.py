"""The package of a tracker, or what to install where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from grbench.errors import PluginError, first_line


def tracker_package(module: str, tracker: str) -> Any:
    """The module, untyped because it need not be installed; raises PluginError with the command that installs it.

    tracker: its name, which is that of the extra too.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise PluginError(
            f"tracker {tracker}: {module} cannot be imported ({first_line(error)}); "
            f"install it: pip install 'grbench[{tracker}]'"
        ) from error
