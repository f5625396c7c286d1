"""The JSON schema of a record file, made from the class that reads and writes it."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pydantic

from grbench.results.record import CHECKSUM_VERSION, NOT_WRITTEN, SCHEMA_VERSION, Record


def record_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of the records that this grbench writes, and of those of earlier versions."""
    schema = pydantic.TypeAdapter(Record).json_schema(ref_template="#/$defs/{model}")
    definitions = schema.pop("$defs", {})
    if "$ref" in schema:  # pydantic may put the class itself among the definitions
        schema = definitions.pop(schema["$ref"].rpartition("/")[2])
    properties = {name: each for name, each in schema["properties"].items() if name not in NOT_WRITTEN}
    properties["files"]["additionalProperties"] = False  # no name but those of the pattern
    summary, _, fields = inspect.cleandoc(Record.__doc__ or "").partition("\n\n")
    version = {"type": "integer", "minimum": 1, "maximum": SCHEMA_VERSION, "description": "version of this schema"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "grbench record",
        "description": f"{summary}\n\n{_of_files(fields)}",
        "type": "object",
        "properties": {"schema": version, **properties},
        "required": ["schema", *schema["required"]],
        "additionalProperties": True,
        "if": {"properties": {"schema": {"minimum": CHECKSUM_VERSION}}},
        "then": {"required": ["checksum"]},
        "$defs": definitions,
    }


def _of_files(fields: str) -> str:
    """The lines on fields, `name: text` and lines that go on, without those on fields that no file has."""
    named = "|".join(NOT_WRITTEN)
    return re.sub(rf"^(?:{named}):.*\n?(?: .*\n?)*", "", fields, flags=re.MULTILINE).rstrip()
