"""What a Python source does: its syntax tree without what changes no result.

Left out are comments, layout, docstrings and other strings that stand alone, imports for type checkers, and the texts
of errors, warnings and prints (`raise X("...")`, `assert x, "..."`, `warn("...")`, `print("...")`); the error's type
and the condition that leads to it stay.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass

_SAYS = frozenset({"print", "warn"})
_IMPORTS = frozenset({"import_module", "__import__"})
_NO_SYNTAX = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


@dataclass(frozen=True)
class Syntax:
    """digest: sha256 of the tree; the same on every version of Python that can read the source.
    imports: every import in it, those inside functions too: statements, and calls such as `import_module("name")`."""

    digest: str
    imports: tuple[ast.Import | ast.ImportFrom | ast.Call, ...]


def read_syntax(source: bytes | str) -> Syntax:
    """Raises SyntaxError where the source is not Python."""
    writer = _Writer()
    writer.write(ast.parse(source), text_counts=True)
    return Syntax(hashlib.sha256("\n".join(writer.lines).encode()).hexdigest(), tuple(writer.imports))


class _Writer:
    """Writes a tree as lines. `ast.dump` would be slower, and its format is another one in each version of Python."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.imports: list[ast.Import | ast.ImportFrom | ast.Call] = []

    def write(self, node: ast.AST, *, text_counts: bool) -> None:
        """text_counts: whether strings below this node are more than what is said to a person."""
        if isinstance(node, ast.Constant):
            is_text = isinstance(node.value, str) and not text_counts
            self.lines.append("text" if is_text else ascii(node.value))
        elif isinstance(node, ast.JoinedStr) and not text_counts:
            self.lines.append("text")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            pass
        elif isinstance(node, ast.If) and _names(node.test) == "TYPE_CHECKING":
            for statement in node.orelse:
                self.write(statement, text_counts=text_counts)
        else:
            self._write_fields(node, text_counts)

    def _write_fields(self, node: ast.AST, text_counts: bool) -> None:
        silent: tuple[str, ...] = ()
        if isinstance(node, ast.Raise):
            silent = ("exc",)
        elif isinstance(node, ast.Assert):
            silent = ("msg",)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.append(node)
        elif isinstance(node, ast.Call):
            if _names(node.func) in _SAYS:
                silent = ("args",)
            elif _names(node.func) in _IMPORTS:
                self.imports.append(node)
        self.lines.append(f"{type(node).__name__}(")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in _NO_SYNTAX:
                continue
            self.lines.append(name)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    self.write(part, text_counts=text_counts and name not in silent)
                else:  # a name, a number, or the None of a dictionary's `**`
                    self.lines.append(ascii(part))
        self.lines.append(")")


def _names(node: ast.AST) -> str:
    """The last part of a dotted name: `warn` for `warnings.warn`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
