"""The name of a new package, and what is derived from it."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from grbench.errors import PluginError, cut
from grbench.hookspecs import KINDS, singular
from grbench.registry.discovery import Registry
from grbench.suite.installed import installed_suites

RIGHT = "begin with a letter, then letters, digits and -, such as my-encoder"
LONGEST = 40
"""Characters of a name: lines of the package's files with it fit into 120."""


SUITE_ROWS = ("reference", "reference_codes")
"""Of the package's suite, beside those of its plug-ins."""


@dataclass(frozen=True)
class PackageName:
    """The name of a distribution, which is also that of its suite: `my-encoder`."""

    distribution: str

    @property
    def module(self) -> str:
        """The package that is imported, and the name of each of its plug-ins: `my_encoder`."""
        return self.distribution.replace("-", "_").lower()

    @property
    def suites_module(self) -> str:
        """The package of its suite."""
        return f"{self.module}_suites"

    @property
    def class_prefix(self) -> str:
        """What names of classes begin with: `MyEncoder`."""
        return "".join(word[:1].upper() + word[1:] for word in self.module.split("_"))


def checked_name(text: str, registry: Registry) -> PackageName:
    """The name, if a distribution, a package, a suite and plug-ins can have it. Raises PluginError where it is not
    valid, or taken by what is installed."""
    name, shown = PackageName(text), f"name {cut(text)!r}"
    if len(text) > LONGEST or not re.fullmatch(r"[A-Za-z]([A-Za-z0-9]|[-_](?=[A-Za-z0-9]))*", text):
        raise PluginError(f"{shown}: is no name of a package; {RIGHT}, at most {LONGEST} characters")
    for reserved, what in ((keyword.iskeyword, "a word of Python"), (_in_standard_library, "a module of Python's own")):
        if reserved(name.module):
            raise PluginError(f"{shown}: {name.module} is {what}; choose another name")
    if name.module in SUITE_ROWS:
        raise PluginError(f"{shown}: is the name of another row of the package's suite; choose another name")
    if taken := _taken_by(name, registry):
        raise PluginError(f"{shown}: is taken by {taken}; choose another name")
    return name


def _in_standard_library(module: str) -> bool:
    return module in sys.stdlib_module_names


def _taken_by(name: PackageName, registry: Registry) -> str | None:
    """What is installed and has the name."""
    try:
        found = metadata.distribution(name.distribution)
    except metadata.PackageNotFoundError:
        pass
    else:
        return f"the installed distribution {found.name} {found.version}"
    for kind in KINDS:
        for other in registry.names(kind):
            if other.lower().replace("-", "_") == name.module:
                return f"the {singular(kind)} {other} of {registry.origin(kind, other)[0]}"
    if name.distribution in installed_suites():
        return f"the installed suite {name.distribution}"
    for module in (name.module, name.suites_module):
        spec = find_spec(module)
        if spec is not None and spec.origin is not None:  # a folder without __init__.py has no origin
            return f"the package {module} ({spec.origin})"
    return None
