"""Suites that installed packages ship, found by name."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from grbench.errors import SuiteError, cut
from grbench.registry.options import suggestion

SUITE_SUFFIXES = (".yaml", ".yml")
ENTRY_POINTS = "grbench.suites"
"""The entry-point group whose values are packages with suite files."""


START_YOUR_OWN = "grbench suite show NAME > my_suite.yaml starts your own from an installed one"


def installed_suites() -> dict[str, Path]:
    """{name: file} of all installed suites, sorted by name. The name is the file's, without its suffix.

    Where two packages ship a suite of the same name, the one with the first entry-point name is taken.
    """
    found: dict[str, Path] = {}
    for entry in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        spec = find_spec(entry.module)  # finds a package's folder without importing the package
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for file in sorted(Path(folder).iterdir()):
                if file.suffix in SUITE_SUFFIXES:
                    found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def suite_file(given: Path | str) -> Path:
    """The suite file that a user means: a path, or the name of an installed suite. A folder of that name does not hide
    the suite. Raises SuiteError where there is neither."""
    path = Path(given)
    if path.suffix in SUITE_SUFFIXES or len(path.parts) > 1 or path.is_file():
        return path
    installed = installed_suites()
    if str(given) not in installed:
        raise SuiteError(
            f"{cut(str(given))}: no such suite; {suggestion(str(given), installed)} (or give a YAML file: "
            f"{START_YOUR_OWN})"
        )
    return installed[str(given)]


def missing_file(path: Path) -> str:
    """What to say where a suite's file is not there."""
    name = path.stem
    here = f"{name} alone names the installed suite" if name in installed_suites() else START_YOUR_OWN
    return f"{path}: no such file; {here}"


def is_suite(path: Path) -> bool:
    """Whether a path that may also name data means a suite: by its suffix, or as the name of an installed suite."""
    return path.suffix in SUITE_SUFFIXES or (not path.exists() and str(path) in installed_suites())
