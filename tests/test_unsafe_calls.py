"""No code of either package can run what a file says: the calls that could are found in the source and named here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import grbench
import grbench_reference

PACKAGES = [Path(package.__file__).parent for package in (grbench, grbench_reference) if package.__file__]

FORBIDDEN_MODULES = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "pickle", "_pickle"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "yaml.unsafe_load",
}

ALLOWED = {
    # Restricted: every name that the file imports is looked up in a table of two harmless functions.
    "grbench_reference/datasets/tencentgr/indexer.py": {"import pickle"},
    # Writes the synthetic release's indexer.
    "grbench_reference/datasets/synthetic/tables.py": {"import pickle"},
}


def name_of(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> str:
    return next((ast.unparse(each.value) for each in call.keywords if each.arg == name), "")


def unsafe(source: str) -> Iterator[str]:
    """What in a module could run code that a file holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {each.name}" for each in node.names if each.name in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            yield f"import {node.module}"
        elif isinstance(node, ast.Call):
            called = name_of(node.func)
            if called in FORBIDDEN_CALLS:
                yield called
            if called == "torch.load" and keyword(node, "weights_only") != "True":
                yield "torch.load without weights_only=True"
            if called == "yaml.load" and keyword(node, "Loader") != "_Loader":
                yield "yaml.load with another loader"
            if keyword(node, "allow_pickle") not in ("", "False"):
                yield f"{called} with allow_pickle"
            if keyword(node, "shell") not in ("", "False"):
                yield f"{called} with a shell"


def test_what_counts_as_unsafe() -> None:
    for line in (
        "eval('1')",
        "import os; os.system('x')",
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run('x', shell=True)",
    ):
        assert len(list(unsafe(line))) == 1, line
    for line in (
        "encoder.eval()",
        "re.compile('x')",
        "torch.load(path, weights_only=True)",
        "yaml.load(text, Loader=_Loader)",
        "np.load(path, mmap_mode='r')",
        "subprocess.run(['x'])",
    ):
        assert not list(unsafe(line)), line


def test_no_module_can_run_what_a_file_says() -> None:
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in sorted(package.rglob("*.py")):
            if calls := set(unsafe(file.read_text())):
                found[str(file.relative_to(package.parent))] = calls
    assert found == ALLOWED
