"""What may be removed from a folder of results, and what never."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from grbench.results.cell_files import prunable, remove
from grbench.results.claims import Claim, claim, claims_in
from grbench.results.record import Record
from grbench.results.record_files import record_path, write_record
from grbench.temporary import _machine

KEPT, OLD, BUSY, FOREIGN, OTHER, ALTERED, ORPHAN = (letter * 16 for letter in "abcdef0")


def folder_of_all_kinds(folder: Path) -> None:
    for digest in (KEPT, OLD, BUSY, ALTERED):
        write_record(folder, Record(digest, "tiny", "m", 0, "ok"), pa.table({"user": [1]}))
    for suffix in ("log", "checkpoint", "weights.safetensors", "d"):
        for digest in (KEPT, OLD):
            (folder / f"{digest}.{suffix}").write_text("x" * 100)
    write_record(folder, Record(OTHER, "another", "m", 0, "ok"))
    path = record_path(folder, ALTERED)
    path.write_text(path.read_text().replace('"m"', '"n"'))
    (folder / f"{FOREIGN}.json").write_text('{"mine": 1}')
    (folder / f"{FOREIGN}.log").touch()
    (folder / f"{ORPHAN}.log").touch()
    (folder / f"{OLD}.txt").touch()
    (folder / "notes.json").write_text("[]")
    (folder / f".x.parquet.partial-{_machine()}-999999999-0").touch()


def test_cells_that_the_suite_lacks_go_and_nothing_else(tmp_path: Path) -> None:
    folder_of_all_kinds(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    got = claim(tmp_path, BUSY)
    assert isinstance(got, Claim)
    with got:
        found = prunable(tmp_path, "tiny", {KEPT})
        assert {each.digest for each in found} == {OLD, ALTERED, ORPHAN, ""}
        assert {each.digest: each.record and each.record.method for each in found}[OLD] == "m"
        (old,) = [each for each in found if each.digest == OLD]
        assert old.size == 400 + sum((tmp_path / f"{OLD}.{suffix}").stat().st_size for suffix in ("json", "parquet"))
        assert all(remove(tmp_path, each) for each in found)
    gone = before - {path.name for path in tmp_path.iterdir()}
    assert {name for name in gone if not name.startswith(".x.parquet.partial-")} == {
        *(f"{OLD}.{suffix}" for suffix in ("json", "parquet", "log", "checkpoint", "weights.safetensors", "d")),
        *(f"{ALTERED}.{suffix}" for suffix in ("json", "parquet")),
        f"{ORPHAN}.log",
    }
    assert not list(tmp_path.glob(".x*"))
    assert claims_in(tmp_path) == {}


def test_a_cell_that_was_claimed_meanwhile_stays(tmp_path: Path) -> None:
    folder_of_all_kinds(tmp_path)
    found = {each.digest: each for each in prunable(tmp_path, "tiny", {KEPT})}
    got = claim(tmp_path, OLD)
    assert isinstance(got, Claim)
    with got:
        assert not remove(tmp_path, found[OLD])
    assert record_path(tmp_path, OLD).is_file()


def test_an_absent_folder_has_nothing_to_remove(tmp_path: Path) -> None:
    assert prunable(tmp_path / "absent", "tiny", set()) == []
