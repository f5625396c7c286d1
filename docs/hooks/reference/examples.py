"""The page of the examples: what each says of itself, its code, and what it prints."""

from __future__ import annotations

import ast
import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

from reference.markdown import block, folded


def examples_page(folder: Path) -> str:
    """The scripts of the folder, run, then the plug-ins with their suites."""
    introduction, *_ = (folder / "README.md").read_text().split("\n## ")
    parts = [introduction]
    for script in sorted(folder.glob("*.py")):
        documentation, code = _split(script.read_text())
        parts += [f"## {script.name}", documentation, block(code, "python")]
        parts += ["It prints:", block(_output(script), "text")]
    for package in sorted(path.parent for path in folder.glob("*/pyproject.toml")):
        modules = [module.relative_to(package) for module in sorted(package.rglob("*.py"))]
        documentation, code = _split((package / modules[0]).read_text())
        parts += [f"## {package.name}", documentation, block(code, "python")]
        for module in modules[1:]:
            documentation, code = _split((package / module).read_text())
            parts += [f"### {module}", documentation, block(code, "python")]
        parts += [block((package / "suite.yaml").read_text(), "yaml")]
        parts += [folded("pyproject.toml", block((package / "pyproject.toml").read_text(), "toml"))]
    return "\n\n".join(parts)


def _split(source: str) -> tuple[str, str]:
    """(the module's docstring, the code below it)."""
    tree = ast.parse(source)
    documentation = ast.get_docstring(tree) or ""
    return documentation, "\n".join(source.splitlines()[tree.body[0].end_lineno or 0 :]).strip()


def _output(script: Path) -> str:
    """What the script prints when it is run from the root of the repository."""
    printed = io.StringIO()
    here = contextlib.chdir(script.parents[1])
    with here, contextlib.redirect_stdout(printed), mock.patch.object(sys, "argv", [str(script)]):
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()
