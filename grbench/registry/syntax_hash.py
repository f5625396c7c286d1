"""The hash of a Python source's syntax tree, without the parts that cannot change a result.

Not included are comments, layout, docstrings and other expression statements that are strings, imports for type
checkers, and the texts of errors, warnings and prints (`raise X("...")`, `assert x, "..."`, `warn("...")`,
`print("...")`). The types of errors and the conditions that lead to them are included.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass

_MESSAGE_CALLS = frozenset({"print", "warn"})
_IMPORT_CALLS = frozenset({"import_module", "__import__"})
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


@dataclass(frozen=True)
class Syntax:
    """digest: sha256 of the tree, equal in all versions of Python that can parse the source.
    imports: all import statements, also those in functions, and calls such as `import_module("name")`."""

    digest: str
    imports: tuple[ast.Import | ast.ImportFrom | ast.Call, ...]


def read_syntax(source: bytes | str) -> Syntax:
    """Parses and hashes a source; raises SyntaxError where it is not Python."""
    writer = _Writer()
    writer.write(ast.parse(source), text_counts=True)
    return Syntax(hashlib.sha256("\n".join(writer.lines).encode()).hexdigest(), tuple(writer.imports))


class _Writer:
    """Writes a tree as lines. `ast.dump` is slower, and its format differs between versions of Python."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.imports: list[ast.Import | ast.ImportFrom | ast.Call] = []

    def write(self, node: ast.AST, *, text_counts: bool) -> None:
        """text_counts: whether the texts of strings below this node are included."""
        if isinstance(node, ast.Constant):
            is_text = isinstance(node.value, str) and not text_counts
            self.lines.append("text" if is_text else ascii(node.value))
        elif isinstance(node, ast.JoinedStr) and not text_counts:
            self.lines.append("text")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            pass
        elif isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
            for statement in node.orelse:
                self.write(statement, text_counts=text_counts)
        else:
            self._write_fields(node, text_counts)

    def _write_fields(self, node: ast.AST, text_counts: bool) -> None:
        message_fields: tuple[str, ...] = ()
        if isinstance(node, ast.Raise):
            message_fields = ("exc",)
        elif isinstance(node, ast.Assert):
            message_fields = ("msg",)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.append(node)
        elif isinstance(node, ast.Call):
            if _last_name(node.func) in _MESSAGE_CALLS:
                message_fields = ("args",)
            elif _last_name(node.func) in _IMPORT_CALLS:
                self.imports.append(node)
        self.lines.append(f"{type(node).__name__}(")
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in _IGNORED_FIELDS:
                continue
            self.lines.append(name)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    self.write(part, text_counts=text_counts and name not in message_fields)
                else:  # a name, a number, or None (the key of `**` in a dictionary)
                    self.lines.append(ascii(part))
        self.lines.append(")")


def _last_name(node: ast.AST) -> str:
    """The last part of a dotted name: `warn` of `warnings.warn`; empty where the node is not a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
