"""The page of a record's fields, from its JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reference.markdown import code, escaped, table

Schema = Mapping[str, Any]


def record_page(path: Path) -> str:
    """What the fields of a record mean, then their types, those of nested objects too."""
    schema = json.loads(path.read_text())
    summary, _, fields = schema["description"].partition("\n\n")
    required = set(schema["required"])
    parts = [
        "# The record",
        f"{escaped(summary)} It is `<digest>.json` in a folder of results; the lists are beside it. "
        "`grbench.load_results` reads records [into pandas](../reading_a_table.md#in-a-notebook), and `grbench verify` "
        "checks them.",
        "The JSON schema: [record_schema.json](../record_schema.json), or `grbench schema record`.",
        "## What the fields mean",
        table(["field", "meaning"], _meanings(fields, schema["properties"])),
        "## Types",
        table(
            ["field", "type", ""],
            (
                [code(name), _type(field), "required" if name in required else ""]
                for name, field in schema["properties"].items()
            ),
        ),
    ]
    for name, definition in schema["$defs"].items():
        parts.append(f"### {_title(name)}")
        rows = [[code(key), _type(field)] for key, field in definition.get("properties", {}).items()]
        parts.append(table(["field", "type"], rows) if rows else "Any fields.")
    return "\n\n".join(parts)


def _meanings(text: str, properties: Schema) -> Iterator[list[str]]:
    """[names, meaning] of the description's entries: `names: meaning`, on a line and those that are indented below it,
    or behind a semicolon. Fields that exist in memory only are left out."""
    another = re.compile(rf"\n(?=\S)|; (?=(?:{'|'.join(properties)}):)")
    for entry in another.split(text):
        names, _, meaning = entry.partition(":")
        if names.partition(",")[0] in properties:
            yield [
                ", ".join(code(name) for name in names.split(", ")),
                escaped(re.sub(r"\bNone\b", "null", meaning.strip())),
            ]


def _title(definition: str) -> str:
    """`_CostFields` -> `Cost`; `_MetricIdentityFields` -> `Metric identity`."""
    words = re.findall(r"[A-Z][a-z]+", definition.removesuffix("Fields"))
    return " ".join(words).capitalize()


def _type(schema: Schema) -> str:
    """A field's type as Markdown, with links to the definitions that it names."""
    if "$ref" in schema:
        title = _title(schema["$ref"].rpartition("/")[2])
        return f"[{title}](#{title.lower().replace(' ', '-')})"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    values = schema.get("additionalProperties")
    if not isinstance(values, Mapping):
        values = next(iter(schema.get("patternProperties", {}).values()), None)
    if values:
        return f"object of {_type(values)}"
    return {"string": "text", None: "any"}.get(schema.get("type"), schema.get("type", "any"))
