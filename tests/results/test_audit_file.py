"""audit.json: written, read back, joined with what was there, and refused where it is damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from records import a_record as record_of

from grbench.errors import RunError
from grbench.registry.discovery import Registry
from grbench.results.audit_file import AuditResult, MethodAudit, SuiteAudit, audit_digest, read_audit, write_audit
from grbench.results.record_files import read_records, write_record

CLEAN = MethodAudit("a", "0123", (AuditResult("chance", "pass", "as expected"), AuditResult("files", "pass", "none")))
LEAKS = MethodAudit(
    "b",
    "4567",
    (AuditResult("chance", "leak", "too many are found", 1.5), AuditResult("files", "unknown", "ValueError: no")),
    world="made up",
    cut={"encoder.width": [512, 64]},
    notes=("codes stand in",),
    cpu_seconds=3.0,
)
AUDIT = SuiteAudit("tiny", {"chance": "Lists depend on targets.", "files": "Undeclared."}, (CLEAN, LEAKS), title="Tiny")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert read_audit(tmp_path) is None
    path = write_audit(tmp_path / "tiny", AUDIT)
    assert path == tmp_path / "tiny" / "audit.json"
    assert read_audit(tmp_path / "tiny") == AUDIT
    assert [method.clean for method in AUDIT.methods] == [True, False]
    assert [entry.name for entry in path.parent.iterdir()] == ["audit.json"]


def test_the_file_is_no_record(tmp_path: Path) -> None:
    write_record(tmp_path, record_of("m"))
    write_audit(tmp_path, AUDIT)
    said: list[str] = []
    assert [record.method for record in read_records([tmp_path], note=said.append)] == ["m"]
    assert said == []


def test_what_was_not_audited_again_stays(tmp_path: Path) -> None:
    again = replace(LEAKS, results=(AuditResult("chance", "pass", "mended"),))
    joined = SuiteAudit("tiny", {"chance": "Lists depend on targets."}, (again,)).joined(AUDIT, ["b", "a"])
    assert [method.method for method in joined.methods] == ["b", "a"]
    assert joined.methods[0].results == (again.results[0], LEAKS.results[1])
    assert joined.methods[1] == CLEAN
    assert set(joined.meanings) == {"chance", "files"}
    # Of another digest, the former results say nothing any more; a method that the suite has lost is left out.
    other = SuiteAudit("tiny", {}, (replace(again, digest="89ab"),)).joined(AUDIT, ["b"])
    assert other.methods == (replace(again, digest="89ab"),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: "{", "not an audit of grbench"),
        (lambda _: "[]", "no schema version"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "written by a newer grbench"),
        (lambda text: text.replace('"leak"', '"perhaps"'), "methods.1.results.0.verdict"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, change, said: str) -> None:
    path = write_audit(tmp_path, AUDIT)
    path.write_text(change(path.read_text()))
    with pytest.raises(RunError) as raised:
        read_audit(tmp_path)
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)


def test_the_digest_follows_options_and_not_the_seed(tmp_path: Path) -> None:
    from audited import CLEAN as method
    from audited import cell_of, registry_with_leaks

    registry: Registry = registry_with_leaks()
    cell = cell_of(registry, tmp_path, method)
    digest = audit_digest(cell, registry)
    assert audit_digest(replace(cell, seed=7), registry) == digest
    other = cell_of(registry, tmp_path, {**method, "optimizer": {"name": "adam", "lr": 0.5}})
    assert audit_digest(other, registry) != digest
