"""Reading YAML 1.2: 1e-3 is a number, `no` and 2025-05-31 are text, and duplicate keys are errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from grbench.errors import SuiteError


def read_suite_file(path: Path) -> dict[str, Any]:
    """The file's mapping; raises SuiteError naming the file and, for invalid YAML, the line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SuiteError(f"{path}: no such file") from error
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: is not a text file in UTF-8") from error
    content = parse_yaml(text, str(path))
    if content is None:
        raise SuiteError(f"{path}: is empty; a suite is a mapping with at least suite, dataset, protocol, methods")
    if not isinstance(content, dict):
        raise SuiteError(
            f"{path}: should be a mapping of keys such as suite and methods, not {_kind_of_value(content)}"
        )
    return content


def parse_yaml(text: str, where: str) -> Any:
    """A YAML document with JSON's types only, keys as text; raises SuiteError prefixed by `where` and the line."""
    try:
        # Encoding as JSON rejects other types, and copies parts that are shared through anchors.
        return json.loads(json.dumps(yaml.load(text, Loader=_Loader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise SuiteError(f"{where}{line}: {problem}") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"{where}: is not a text file: {str(error).splitlines()[0]}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise SuiteError(
            f"{where}: should contain only text, numbers, true, false, null, lists and mappings: {error}"
        ) from error


def set_value(tree: Any, key: str, value: Any, where: str) -> None:
    """Sets a dotted key such as `a.b.0.c` in nested mappings and lists, in place; missing mappings are created.

    Text in place of a mapping is a component's name: `encoder: hstu` becomes `encoder: {name: hstu}`. Setting a
    component's name to another one removes the former one's options. Raises SuiteError where the key's path does not
    exist in a list or leads through another value.
    """
    *parents, last = key.split(".")
    node = tree
    for part in parents:
        index = _key_or_index(node, part, where)
        child = None if isinstance(node, dict) and index not in node else node[index]
        if child is None or isinstance(child, str):
            child = node[index] = {} if child is None else {"name": child}
        node = child
    is_component = last == "name" and parents[-2:-1] != ["stages"]  # a stage has a name too, but is no plug-in
    if is_component and isinstance(node, dict) and node.get("name", value) != value:
        node.clear()
    node[_key_or_index(node, last, where)] = value


def _key_or_index(node: Any, part: str, where: str) -> str | int:
    if isinstance(node, dict) and part:
        return part
    if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
        return int(part)
    described = f"a list of {len(node)}, counted from 0" if isinstance(node, list) else _kind_of_value(node)
    raise SuiteError(f"{where}: there is no {part!r} to set in {described}")


def _kind_of_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    return json.dumps(value)


def _construct_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0 if text[1:2] in ("x", "o") else 10)


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2; duplicate keys are errors."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in the base

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key is not first.setdefault(key.value, key):
                line = first[key.value].start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key.value!r}, first given on line {line}", key.start_mark
                )
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts the pairs of merge keys (`<<`) before the node's own pairs, because of equal keys the last one is used.

        Replaces the base class's method, whose precedence differs between releases of PyYAML.
        """
        merged = [value for key, value in node.value if key.tag == _MERGE]
        node.value = [pair for pair in node.value if pair[0].tag != _MERGE]
        for value in merged:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"expected mappings to merge, but found a {source.id}", source.start_mark
                    )
                self.flatten_mapping(source)
                node.value = source.value + node.value


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), [*"~nN", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), [*"tTfF"])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), [*"-+0123456789"]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    [*"-+.0123456789"],
)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)
