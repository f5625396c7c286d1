"""The published schema is that of the code, and records follow it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from records import a_record

from grbench.results.record import NOT_WRITTEN, Record
from grbench.results.record_schema import record_schema

ROOT = Path(__file__).parents[2]
RECORDS = [
    *(ROOT / "results" / "sample" / "quickstart").glob("*.json"),
    *Path(__file__).parent.glob("version_1/*.json"),
]


def test_the_published_schema_is_current() -> None:
    published = (ROOT / "docs" / "record_schema.json").read_text()
    assert published == json.dumps(record_schema(), indent=1) + "\n", (
        "write it anew: grbench schema record > docs/record_schema.json"
    )


def test_every_key_of_a_record_is_in_it_and_described() -> None:
    schema = record_schema()
    assert set(schema["properties"]) == set(json.loads(a_record("m", 0, 0.5).to_json()))
    assert "canonical JSON" in schema["description"]
    assert not [line for line in schema["description"].splitlines() if line.startswith(NOT_WRITTEN)]
    assert "not written" not in schema["description"]
    text = json.dumps(schema)
    assert all(f'"{name}"' in text for name in ("beside", "train_seconds", "kept_shortest", "broken_by"))


@pytest.mark.skipif(find_spec("jsonschema") is None, reason="needs the library jsonschema, which judges independently")
def test_records_follow_it() -> None:
    import jsonschema

    judge = jsonschema.Draft202012Validator(record_schema())
    for text in [*(path.read_text() for path in RECORDS), a_record("m", 0, 0.5).to_json(), a_record("m", 0).to_json()]:
        judge.validate(json.loads(text))
    for key, value in (("status", "good"), ("seed", "0"), ("checksum", "x"), ("files", {"../x": ""}), ("schema", 99)):
        values = json.loads(a_record("m", 0, 0.5).to_json()) | {key: value}
        assert not judge.is_valid(values)
    assert not judge.is_valid({key: value for key, value in values.items() if key != "checksum"})


def test_records_are_read_by_what_it_is_made_from() -> None:
    assert RECORDS
    for path in RECORDS:
        assert Record.from_json(path.read_bytes(), str(path)).digest == path.stem
