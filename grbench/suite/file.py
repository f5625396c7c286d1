"""Reading YAML 1.2: 1e-3 is a number, `no` and 2025-05-31 are text, and duplicate keys are errors."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from grbench.errors import SuiteError, cut
from grbench.suite.installed import missing_file

MAX_BYTES = 4_000_000
MAX_VALUES = 50_000
"""Of values of a file, with each alias counted as what it stands for; reading that many takes seconds."""
MAX_DEPTH = 32
MAX_KEY = 250
MAX_TEXT = 4_096
"""Characters of a text: the longest path that Linux takes."""


Construct = Callable[[Any, Any], Any]
"""Makes a value of a YAML node: gets the loader and the node."""


def read_suite_file(path: Path) -> dict[str, Any]:
    """The file's mapping; raises SuiteError naming the file and, for invalid YAML, the line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SuiteError(f"{path}: is larger than {MAX_BYTES:,} bytes, so it is not a suite")
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SuiteError(missing_file(path)) from error
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: is not a text file in UTF-8") from error
    suite = parse_yaml(text, str(path))
    if suite is None:
        raise SuiteError(f"{path}: is empty; a suite is a mapping with at least suite, dataset, protocol, methods")
    if not isinstance(suite, dict):
        raise SuiteError(f"{path}: should be a mapping of keys such as suite and methods, not {_kind_of_value(suite)}")
    return suite


def parse_yaml(text: str, where: str) -> Any:
    """A YAML document with JSON's types only, keys as text, whole numbers of at most 64 bits; raises SuiteError
    prefixed by `where` and the line, also where the document is larger than the limits above."""
    try:
        # Encoding as JSON copies parts that are shared through anchors, and makes text of keys.
        content = json.loads(json.dumps(yaml.load(text, Loader=_Loader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        if "'\\t'" in problem:
            problem += "; indent by spaces: YAML takes no tabs"
        raise SuiteError(f"{where}{line}: {cut(problem, 300)}") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"{where}: is not a text file: {str(error).splitlines()[0]}") from error
    except TypeError as error:  # keys that JSON lacks
        raise SuiteError(
            f"{where}: should contain only text, numbers, true, false, null, lists and mappings: {error}"
        ) from error
    except RecursionError as error:
        raise SuiteError(f"{where}: {_TOO_DEEP}") from error
    _check_depth(content, where)
    return content


_TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} deep"


def _check_depth(content: Any, where: str) -> None:
    level, depth = [content], 0
    while level := [
        inner
        for value in level
        if isinstance(value, dict | list)
        for inner in (value.values() if isinstance(value, dict) else value)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            raise SuiteError(f"{where}: {_TOO_DEEP}")


def set_value(tree: Any, key: str, value: Any, where: str) -> None:
    """Sets a dotted key such as `a.b.0.c` in nested mappings and lists; missing mappings are created. `tree` itself
    is changed; the mappings and lists in it that change are copied.

    Text in place of a mapping is a component's name: `encoder: hstu` becomes `encoder: {name: hstu}`. Setting a
    component's name to another one removes the former one's options. Raises SuiteError where the key's path does not
    exist in a list or leads through another value.
    """
    *parents, last = key.split(".")
    if len(parents) >= MAX_DEPTH or max(map(len, [*parents, last])) > MAX_KEY:
        raise SuiteError(f"{where}: should be at most {MAX_DEPTH} keys of at most {MAX_KEY} characters each")
    node = tree
    for part in parents:
        index = _key_or_index(node, part, where)
        child = None if isinstance(node, dict) and index not in node else node[index]
        if child is None or isinstance(child, str):
            child = {} if child is None else {"name": child}
        node[index] = copy.copy(child)  # because other methods of a grid share it
        node = node[index]
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
    raise SuiteError(f"{where}: there is no {cut(part)!r} to set in {described}")


def _kind_of_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    return cut(json.dumps(value))


def _fault(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _construct_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if len(text) > MAX_TEXT:
        raise _fault(node, f"a text of {len(text):,} characters; a suite's texts have at most {MAX_TEXT:,}")
    if re.search("[\0\ud800-\udfff]", text):
        raise _fault(node, f"{text!a:.80} has a character that no file can hold")
    return text


def _construct_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    # Python refuses to convert thousands of digits.
    number = int(text, 0 if text[1:2] in ("x", "o") else 10) if len(text) < 100 else 2**64
    if not -(2**63) <= number < 2**64:
        raise _fault(node, f"{cut(text)} is beyond 64 bits")
    return number


def _checked(construct: Construct) -> Construct:
    """The constructor of a type, for values that may be tagged with it without being one: `!!bool z`."""

    def construct_or_refuse(loader: Any, node: Any) -> Any:
        try:
            return construct(loader, node)
        except (LookupError, ValueError) as error:
            raise _fault(node, f"{cut(node.value)!r} is no {node.tag.rpartition(':')[2]}") from error

    return construct_or_refuse


_CORE = "tag:yaml.org,2002:"
_MERGE = f"{_CORE}merge"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2; duplicate keys and what is beyond the limits above are
    errors."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in the base
    yaml_constructors: ClassVar[dict[str | None, Construct]] = {
        f"{_CORE}map": yaml.SafeLoader.construct_yaml_map,
        f"{_CORE}seq": yaml.SafeLoader.construct_yaml_seq,
        f"{_CORE}str": _construct_text,
        f"{_CORE}int": _checked(_construct_integer),
        f"{_CORE}float": _checked(yaml.SafeLoader.construct_yaml_float),
        f"{_CORE}bool": _checked(yaml.SafeLoader.construct_yaml_bool),
        f"{_CORE}null": yaml.SafeLoader.construct_yaml_null,
        None: yaml.SafeLoader.construct_undefined,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = 0
        self.values_of: dict[Any, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        """The next node. Counts the values, with each alias as what it stands for, before anything is made of them."""
        before, is_alias = self.values, self.check_event(yaml.AliasEvent)
        node: Any = super().compose_node(parent, index)
        if is_alias and node not in self.values_of:
            raise _fault(node, "an alias stands for what it is part of")
        self.values = before + self.values_of[node] if is_alias else self.values + 1
        if self.values > MAX_VALUES:
            raise _fault(node, f"more than {MAX_VALUES:,} values, counting each alias as what it stands for")
        self.values_of[node] = self.values - before
        return node

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if len(key.value) > MAX_KEY:
                raise _fault(key, f"a key of {len(key.value):,} characters; keys have at most {MAX_KEY}")
            if key is not first.setdefault(key.value, key):
                line = first[key.value].start_mark.line + 1
                raise _fault(key, f"duplicate key {cut(key.value)!r}, first given on line {line}")
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
                    raise _fault(source, f"expected mappings to merge, but found a {source.id}")
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
