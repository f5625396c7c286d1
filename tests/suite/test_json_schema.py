"""The JSON Schema that editors check suites with."""

from __future__ import annotations

import json

from demo_plugins import TrainingOptions, demo_registry

from grbench.suite import method
from grbench.suite.json_schema import suite_schema


def references(schema):
    if isinstance(schema, dict):
        yield from ([schema["$ref"]] if "$ref" in schema else [])
        schema = list(schema.values())
    if isinstance(schema, list):
        for value in schema:
            yield from references(value)


def test_the_schema_names_every_plug_in_with_its_options(monkeypatch):
    monkeypatch.setattr("grbench.suite.json_schema.training_options", lambda: TrainingOptions)
    schema = suite_schema(demo_registry())
    assert json.loads(json.dumps(schema)) == schema
    assert all(reference.removeprefix("#/$defs/") in schema["$defs"] for reference in references(schema))
    names, dense, generative, inherited = schema["$defs"]["encoders"]["oneOf"]
    assert names == {"enum": ["dense", "generative"]}
    assert dense["properties"]["name"] == {"const": "dense"}
    assert dense["properties"]["width"]["exclusiveMinimum"] == 0
    assert dense["required"] == ["name"]
    assert generative["properties"]["layers"]["default"] == 2
    assert inherited == {"type": "object", "not": {"required": ["name"]}}
    assert schema["$defs"]["metrics"]["oneOf"][-1]["pattern"] == "^(hits)@[1-9][0-9]*$"
    assert schema["$defs"]["metrics"]["oneOf"][1]["properties"]["name"]["pattern"] == "^hits(@[1-9][0-9]*)?$"
    assert set(schema["properties"]["methods"]["additionalProperties"]["properties"]) == set(method.METHOD_KEYS)
    tuning = schema["properties"]["tuning"]
    assert tuning["required"] == ["budget", "space"]
    assert set(tuning["properties"]["budget"]["properties"]) == {"trials", "training_seconds"}
    values = tuning["properties"]["space"]["additionalProperties"]["additionalProperties"]["oneOf"]
    assert [choice["type"] for choice in values] == ["array", "object"]
    assert schema["properties"]["defaults"]["properties"]["training"]["properties"]["epochs"]["default"] == 10
