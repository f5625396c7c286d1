"""The JSON schema of suite files with the options of all installed plug-ins, for completion and checks in editors."""

from __future__ import annotations

from typing import Any

from grbench.hookspecs import KIND_OF_PART
from grbench.registry.arguments import Factory
from grbench.registry.discovery import Registry
from grbench.registry.options import json_schema, options_model
from grbench.suite.method import STAGE_KEYS, stage_options, training_options
from grbench.suite.published import figure_options
from grbench.suite.suite import REQUIRED_KEYS
from grbench.suite.tuning import budget_options, range_options, tuning_options
from grbench.types import FILTERS, MAX_SEED

Schema = dict[str, Any]


def suite_schema(registry: Registry) -> Schema:
    """The schema (JSON Schema 2020-12) of suites for these plug-ins, without broken ones."""
    definitions: Schema = {}

    def options(key: str, factory: Factory) -> Schema:
        """The schema of a factory's options; adds the types that it refers to, prefixed by `key`, to definitions."""
        schema = options_model(factory).model_json_schema(ref_template=f"#/$defs/{key}.{{model}}")
        definitions.update({f"{key}.{model}": inner for model, inner in schema.pop("$defs", {}).items()})
        return schema

    def component(kind: str, factories: dict[str, Factory], extra: Schema | None = None, partial: bool = False) -> str:
        """Adds a definition, any of the factories by name or as a mapping, and returns a reference to it.

        partial: name and options are not required, because a method can inherit them.
        """
        choices: list[Schema] = [{"enum": list(factories)}]
        for name, factory in factories.items():
            schema = options(f"{kind}.{name}", factory)
            schema["properties"] = {"name": {"const": name}, **schema.get("properties", {}), **(extra or {})}
            schema["required"] = ["name", *([] if partial else schema.get("required", []))]
            choices.append(schema)
        if partial:
            choices.append({"type": "object", "not": {"required": ["name"]}})
        definitions[kind] = {"oneOf": choices}
        return f"#/$defs/{kind}"

    def installed(kind: str) -> dict[str, Factory]:
        return {plugin.name: plugin.factory for plugin in registry.plugins(kind)}

    parts: Schema = {
        part: {"$ref": component(kind, installed(kind), partial=True)}
        for part, kind in KIND_OF_PART.items()
        if part != "loss"
    }
    weight = {"weight": {"type": "number", "exclusiveMinimum": 0, "default": 1.0}}
    loss = {"$ref": component("losses", installed("losses"), weight, partial=True)}
    parts["loss"] = {"oneOf": [loss, {"type": "array", "items": loss}, {"type": "null"}]}
    defaults: Schema = {
        **parts,
        "training": options("training", training_options()),
        "filters": {"type": "array", "items": {"enum": list(FILTERS)}},
        "trackers": {"type": "array", "items": {"$ref": component("trackers", installed("trackers"))}},
    }
    stage = options("stage", stage_options)
    stage["properties"] |= {key: defaults[key] for key in STAGE_KEYS}
    method: Schema = {
        "extends": {"type": "string"},
        "grid": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}, "minProperties": 1},
        "ablation": {"type": "boolean", "description": "all rows of the grid are tested, and none is chosen"},
        **defaults,
        "stages": {"oneOf": [{"type": "array", "minItems": 1, "items": stage}, {"type": "null"}]},
    }
    metric = component("metrics", installed("metrics"))
    for name, choice in zip(installed("metrics"), definitions["metrics"]["oneOf"][1:], strict=True):
        # The name in a mapping may have a cutoff too, as in `ndcg@10`.
        choice["properties"]["name"] = {"type": "string", "pattern": f"^{name}(@[1-9][0-9]*)?$"}
        choice["required"] = ["name"]
    with_cutoff = {"type": "string", "pattern": f"^({'|'.join(installed('metrics'))})@[1-9][0-9]*$"}
    definitions["metrics"]["oneOf"].append(with_cutoff)
    figures: Schema = {"type": "array", "minItems": 1, "items": options("published", figure_options)}
    properties: Schema = {
        "suite": {"type": "string", "pattern": r"^\w[\w.-]{0,99}$", "description": "names the folder of its results"},
        "title": {"type": "string"},
        "dataset": {"$ref": component("datasets", installed("datasets"))},
        "protocol": {"$ref": component("protocols", installed("protocols"))},
        "metrics": {"type": "array", "minItems": 1, "items": {"$ref": metric}},
        "slices": {
            "type": ["array", "null"],
            "items": {"$ref": component("slices", installed("slices"))},
            "description": "what tables and comparisons divide the users into groups by; [] = nothing",
        },
        "keep_lists": {
            "type": "integer",
            "minimum": 1,
            "description": "length of the longer lists that are recorded for metrics added later",
        },
        "seeds": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        },
        "defaults": _closed(defaults),
        "methods": {"type": "object", "minProperties": 1, "additionalProperties": _closed(method)},
        "tuning": _tuning_schema(),
        "baseline": {"type": "string", "description": "the method that the others are tested against"},
        "published": {
            "type": "object",
            "additionalProperties": figures,
            "description": "what others report of the methods, by their names, to stand beside ours",
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "grbench suite",
        **_closed(properties),
        "required": list(REQUIRED_KEYS),
        "$defs": definitions,
    }


def _tuning_schema() -> Schema:
    schema = json_schema(tuning_options)
    budget = {**json_schema(budget_options), "minProperties": 1, "maxProperties": 1}
    values = {"oneOf": [{"type": "array", "minItems": 1}, json_schema(range_options)]}
    space = {"type": "object", "minProperties": 1, "additionalProperties": values}
    schema["properties"]["budget"] |= budget
    schema["properties"]["space"] |= {"minProperties": 1, "additionalProperties": space}
    return schema


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}
