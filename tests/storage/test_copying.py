"""Copies of folders and files: made once, compared with their checksums, and mended."""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import subprocess
from pathlib import Path

import pytest

from grbench.errors import DataError
from grbench.run.data_source import copying_events, local_copy
from grbench.storage import copying
from grbench.storage.copying import copy, is_copied
from grbench.storage.listing import SUMS, FileListing, list_place
from grbench.storage.place import place_of
from grbench.storage.push import push

CONTENT = {"a.bin": b"0123456789" * 1000, "deep/er/b.bin": b"", "c.txt": b"c\n"}


def nobody(what: str, done: int, total: int | None) -> None:
    """A Progress that does nothing."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write(folder, CONTENT)
    return folder


@pytest.fixture
def shared(tmp_path: Path, source: Path) -> Path:
    """The source, pushed to a folder."""
    assert push(source, place_of(tmp_path / "shared" / "data"), nobody)
    return tmp_path / "shared" / "data"


def write(folder: Path, content: dict[str, bytes]) -> None:
    for name, what in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(what)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed(folder: Path) -> FileListing:
    return list_place(place_of(f"file://{folder}"))


def refusal(cache: Path, folder: Path) -> str:
    with pytest.raises(DataError) as refused:
        copy(cache, listed(folder), nobody)
    return str(refused.value)


def test_a_push_has_checksums_that_other_tools_read(source: Path, shared: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=shared, check=True)
    assert content_of(shared) == {**CONTENT, SUMS: (shared / SUMS).read_bytes()}
    assert push(source, place_of(shared), nobody) is False


def test_a_push_that_was_stopped_is_no_data_and_goes_on(tmp_path: Path, source: Path, shared: Path) -> None:
    (shared / "a.bin").unlink()
    kept = (shared / "c.txt").stat().st_mtime_ns
    with pytest.raises(DataError, match=r"lacks a.bin, .* \(1 of 3 files are missing\): it was not pushed to the end"):
        listed(shared)
    assert push(source, place_of(shared), nobody)
    assert content_of(copy(tmp_path / "cache", listed(shared), nobody)) == CONTENT
    assert (shared / "c.txt").stat().st_mtime_ns == kept


def test_a_push_leaves_what_others_have_put_there(tmp_path: Path, source: Path, shared: Path) -> None:
    (source / "c.txt").write_bytes(b"another")
    with pytest.raises(DataError, match="holds other files"):
        push(source, place_of(shared), nobody)
    with pytest.raises(DataError, match="holds files that no push has put there"):
        push(shared, place_of(source), nobody)
    with pytest.raises(DataError, match="there are no files to push"):
        push(tmp_path / "nothing", place_of(shared), nobody)


def test_a_copy_is_made_once_and_mended(tmp_path: Path, shared: Path) -> None:
    cache, listing = tmp_path / "cache", listed(shared)
    folder = copy(cache, listing, nobody)
    assert content_of(folder) == CONTENT
    assert is_copied(cache, listing)
    inode = (folder / "c.txt").stat().st_ino
    (folder / "a.bin").write_bytes(b"x" * len(CONTENT["a.bin"]))
    assert not is_copied(cache, listing)
    seen: list[int] = []
    assert copy(cache, listing, lambda what, done, total: seen.append(done)) == folder
    assert content_of(folder) == CONTENT
    assert (folder / "c.txt").stat().st_ino == inode, "what is whole stays"
    assert seen == [2, 10_002]
    (folder / "c.txt").touch()
    assert not is_copied(cache, listing)
    copy(cache, listing, nobody)
    assert is_copied(cache, listing)
    assert (folder / "c.txt").stat().st_ino == inode, "what was only touched is compared, and stays"


def test_the_content_names_the_copy(tmp_path: Path, source: Path, shared: Path) -> None:
    """So pushes of the same data to two places are one copy; without checksums, places and times count."""
    push(source, place_of(tmp_path / "elsewhere" / "data"), nobody)
    assert listed(tmp_path / "elsewhere" / "data").digest == listed(shared).digest
    before = listed(source).digest
    (source / "c.txt").write_bytes(b"d\n")
    assert listed(source).digest != before
    assert content_of(copy(tmp_path / "cache", listed(source), nobody)) == CONTENT | {"c.txt": b"d\n"}


def test_a_file_alone(tmp_path: Path, shared: Path, source: Path) -> None:
    sums = hashlib.sha256(CONTENT["c.txt"]).hexdigest()
    for folder, digest in ((shared, sums), (source, None)):
        listing = listed(folder / "c.txt")
        assert [(file.name, file.sha256) for file in listing.files] == [("c.txt", digest)]
        assert local_copy(listing, tmp_path / "cache").read_bytes() == CONTENT["c.txt"]


def test_pieces_come_in_order(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PIECE_BYTES", 7)
    assert content_of(copy(tmp_path / "cache", listed(shared), nobody)) == CONTENT


@pytest.mark.parametrize("spoiled", [b"short", b"x" * 10_000])
def test_what_is_not_what_its_checksum_is_of(tmp_path: Path, shared: Path, spoiled: bytes) -> None:
    (shared / "a.bin").write_bytes(spoiled)
    said = refusal(tmp_path / "cache", shared)
    assert f"file://{shared}/a.bin: is not what its checksum is of" in said
    assert "it was cut off or altered after it was pushed" in said
    (folder,) = (path for path in (tmp_path / "cache" / "copies").iterdir() if path.is_dir())
    assert content_of(folder) == {}, "nothing stays of it"


def test_places_that_cannot_be_read(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        listed(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        listed(tmp_path / "empty")
    (shared / "more.txt").touch()
    with pytest.raises(DataError, match=r"SHA256SUMS does not name more.txt \(1 such files\)"):
        listed(shared)
    (shared / SUMS).write_text("no sums\n")
    with pytest.raises(DataError, match="SHA256SUMS: line 1 is no checksum with a file's name: no sums"):
        listed(shared)


def test_a_full_disk(tmp_path: Path, shared: Path) -> None:
    """A process may write only so much of a file, which the system says as it says of a full disk. What has arrived
    stays, and the copy goes on from there."""
    cache, listing = tmp_path / "cache", listed(shared)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        said = refusal(cache, shared)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "are still to be copied" in said
    assert "set GRBENCH_CACHE to a folder on a larger disk" in said
    assert [path for path in (cache / "copies").rglob("*") if "partial" in path.name] == []
    assert content_of(copy(cache, listing, nobody)) == CONTENT


def test_a_cache_that_cannot_be_written(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "cache").touch()
    assert "cannot be written (Not a directory); set GRBENCH_CACHE" in refusal(tmp_path / "cache", shared)


def _copy_in_process(cache: Path, shared: Path, copied: object) -> None:
    def report(what: str, done: int, total: int | None) -> None:
        if what.startswith("copying") and done == total:
            copied.put(done)  # type: ignore[attr-defined]

    assert content_of(local_copy(listed(shared), cache, report)) == CONTENT


def test_processes_that_ask_at_once_copy_once(tmp_path: Path, shared: Path) -> None:
    processes = multiprocessing.get_context("fork")
    copied = processes.Queue()
    children = [processes.Process(target=_copy_in_process, args=(tmp_path / "cache", shared, copied)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert copied.get(timeout=5) == 10_002
    assert copied.empty()


def test_events_are_in_megabytes() -> None:
    sent: list[dict[str, object]] = []
    report = copying_events(lambda **facts: sent.append(facts))
    report("copying x", 1_000_000, 9_000_000)
    report("copying x", 4_000_000, 9_000_000)
    assert [(each["what"], each["done"], each["total"]) for each in sent] == [("copying x", 1, 9), ("copying x", 4, 9)]
    assert sent[0]["megabytes_per_second"] == 0
    assert float(str(sent[1]["megabytes_per_second"])) > 0
