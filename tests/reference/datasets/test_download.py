"""Downloads, against a hub on 127.0.0.1 that speaks the endpoints of huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

from grbench.errors import DataError, RunError
from grbench_reference.datasets.download import hub
from grbench_reference.datasets.download import release as download
from grbench_reference.datasets.download.release import describe_missing, fetch, list_files, missing_files, parts
from grbench_reference.datasets.tencentgr.layout import require_finished

NAME = "TAAC2025/TencentGR-1M"
COMMIT, LATER = "1" * 40, "2" * 40


def content(seed: str, size: int) -> bytes:
    """Bytes that differ everywhere, so that a resumed file with a hole or an overlap is another file."""
    block = hashlib.sha256(seed.encode()).digest()
    return b"".join(hashlib.sha256(block + number.to_bytes(4)).digest() for number in range(size // 32 + 1))[:size]


class FakeHub:
    """Serves one dataset. `cut[path]` = how many bytes of the next answer for it go out before the line breaks."""

    def __init__(self) -> None:
        small = {"README.md": b"# a release\n", ".gitattributes": b"*.parquet lfs\n"}
        large = {
            "indexer.pkl": 3000,
            "seq/part-00000.parquet": 50_000,
            "seq/part-00001.parquet": 20_000,
            "item_feat/part-00000.parquet": 4000,
            "user_feat/part-00000.parquet": 1000,
            "candidate/part-00000.parquet": 500,
            "mm_emb/emb_81_32_parquet/part-00000.parquet": 6000,
            "mm_emb/emb_84_4096_parquet/part-00000.parquet": 90_000,
        }
        self.small = small
        self.files = small | {path: content(path, size) for path, size in large.items()}
        self.commits = {"main": COMMIT, COMMIT: COMMIT}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}
        self.status: dict[str, int] = {}
        self.gone: set[str] = set()
        self.ignores_ranges = False

    def tree(self) -> list[dict[str, Any]]:
        entries = [{"type": "directory", "path": "seq", "oid": "d" * 40, "size": 0}]
        for path, data in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": "b" * 40}
            if path not in self.small:
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        return entries

    def fetched(self) -> list[str]:
        return [path for path, _ in self.asked]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeHub, str]]:
    fake = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def answer(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True

        def missing(self, code: str) -> None:
            self.answer(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path.startswith(f"/api/datasets/{NAME}/revision/") or path == f"/api/datasets/{NAME}":
                revision = path.partition("/revision/")[2] or "main"
                if revision not in fake.commits:
                    return self.missing("RevisionNotFound")
                sha = fake.commits[revision]
                return self.answer(
                    200, json.dumps({"id": NAME, "sha": sha}).encode(), {"Content-Type": "application/json"}
                )
            if path.startswith(f"/api/datasets/{NAME}/tree/"):
                body = json.dumps(fake.tree()).encode()
                return self.answer(200, body, {"Content-Type": "application/json"})
            if path.startswith(f"/datasets/{NAME}/resolve/"):
                _, _, name = path.partition("/resolve/")[2].partition("/")
                return self.serve(name)
            return self.missing("RepoNotFound")

        def serve(self, name: str) -> None:
            if name not in fake.files or name in fake.gone:
                return self.missing("EntryNotFound")
            data, asked = fake.files[name], self.headers.get("Range")
            if self.command == "HEAD":
                etag = "b" * 40 if name in fake.small else hashlib.sha256(data).hexdigest()
                return self.answer(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
            fake.asked.append((name, asked))
            if name in fake.status:
                return self.answer(fake.status[name], b"busy")
            cut = fake.cut.pop(name, None)
            if asked is None or fake.ignores_ranges:
                return self.answer(200, data, cut=cut)
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return self.answer(206, data[start:], headers, cut=cut)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    # What arrived counts from whole chunks on; the client's own are 10 MB. It waits a second before it tries again.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    yield fake, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def downloaded(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != download.RECORD and ".cache" not in path.parts
    }


def core(fake: FakeHub) -> dict[str, bytes]:
    return {path: data for path, data in fake.files.items() if not path.startswith(("mm_emb/", ".git"))}


def embedding(fake: FakeHub, name: str) -> dict[str, bytes]:
    return {path: data for path, data in fake.files.items() if path.startswith(f"mm_emb/emb_{name}_")}


def test_only_the_parts_asked_for_arrive(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    folder = tmp_path / "release"
    told: list[tuple[str, int, int]] = []
    listing = list_files("1M", folder, embeddings=[81], endpoint=endpoint)
    assert not folder.exists()
    assert listing.sizes() == {"core": (7, 78_512), "emb_81_32": (1, 6000)}
    fetch(listing, report=lambda *values: told.append(values))
    assert downloaded(folder) == core(fake) | embedding(fake, "81")
    assert told[0] == ("core", 0, 78_512)
    assert {part: (done, total) for part, done, total in told} == {"core": (78_512, 78_512), "emb_81_32": (6000, 6000)}


def test_no_embeddings_or_one_by_number_and_width(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    fetch(list_files("1M", tmp_path / "none", embeddings=[], endpoint=endpoint))
    assert downloaded(tmp_path / "none") == core(fake)
    listing = list_files("1M", tmp_path / "none", embeddings=["84_4096"], endpoint=endpoint)
    assert [file.path for file in missing_files(listing)] == ["mm_emb/emb_84_4096_parquet/part-00000.parquet"]


def test_the_commit_is_recorded_and_kept_to(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    fetch(list_files("1M", tmp_path, embeddings=[], endpoint=endpoint))
    record = json.loads((tmp_path / download.RECORD).read_text())
    assert (record["repository"], record["revision"], record["commit"]) == (NAME, "main", COMMIT)
    fake.commits |= {"main": LATER, LATER: LATER}
    assert list_files("1M", tmp_path, endpoint=endpoint).commit == COMMIT
    assert list_files("1M", tmp_path / "new", endpoint=endpoint).commit == LATER
    assert list_files("1M", tmp_path, revision="main", endpoint=endpoint).commit == LATER


def test_another_commit_replaces_what_differs_only(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    fetch(list_files("1M", tmp_path, embeddings=[], endpoint=endpoint))
    fake.commits |= {LATER: LATER}
    fake.files["seq/part-00001.parquet"] = content("later", 20_000)  # of the same size as before
    fake.asked.clear()
    fetch(list_files("1M", tmp_path, embeddings=[], revision=LATER, endpoint=endpoint))
    assert fake.fetched() == ["seq/part-00001.parquet"]
    assert downloaded(tmp_path) == core(fake)


def test_a_whole_release_is_not_fetched_again(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    fetch(list_files("1M", tmp_path, embeddings=[], endpoint=endpoint))
    (tmp_path / download.RECORD).unlink()  # as after a copy by hand
    fake.asked.clear()
    fetch(list_files("1M", tmp_path, embeddings=[], endpoint=endpoint))
    assert fake.asked == []


def test_a_broken_line_goes_on_where_it_broke(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    fake.cut["seq/part-00000.parquet"] = 30_000
    fetch(list_files("1M", tmp_path, embeddings=[], endpoint=endpoint))
    ranges = [asked for path, asked in fake.asked if path == "seq/part-00000.parquet"]
    assert ranges == [None, "bytes=30000-"]
    assert downloaded(tmp_path) == core(fake)


def test_another_process_goes_on_where_the_first_one_stopped(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    path = "seq/part-00001.parquet"
    fake.status[path] = 500
    with pytest.raises(RunError, match=r"http.*500.*What arrived is kept; the same command goes on from there"):
        fetch(list_files("1M", tmp_path, embeddings=[], endpoint=endpoint), workers=1)
    # However far it came, nothing passes for a whole release: what is missing is named.
    with pytest.raises(DataError, match=rf"{path}: has not arrived yet"):
        require_finished(tmp_path, "seq")
    partial = tmp_path / ".cache/huggingface/download/seq/part-00001.parquet.0123.incomplete"
    partial.write_bytes(fake.files[path][:12_345])  # what a killed process leaves
    arrived = set(downloaded(tmp_path))
    fake.status.clear()
    fake.asked.clear()
    fetch(list_files("1M", tmp_path, embeddings=[], endpoint=endpoint))
    assert len(arrived) >= 3
    assert set(fake.fetched()) == set(core(fake)) - arrived
    assert downloaded(tmp_path) == core(fake)
    for folder in ("seq", "item_feat", "."):
        require_finished(tmp_path, folder)


def test_a_server_without_ranges_starts_over(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    fake.ignores_ranges = True
    fake.cut["seq/part-00000.parquet"] = 30_000
    told: dict[str, int] = {}
    fetch(
        list_files("1M", tmp_path, embeddings=[], endpoint=endpoint),
        report=lambda part, done, _: told.update({part: done}),
    )
    assert downloaded(tmp_path) == core(fake)
    assert told == {"core": 78_512}


def test_a_file_of_another_size_than_announced_is_dropped(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    path = "user_feat/part-00000.parquet"
    listing = list_files("1M", tmp_path, embeddings=[], endpoint=endpoint)
    good, fake.files[path] = fake.files[path], content("forged", 900)
    with pytest.raises(DataError, match=r"user_feat/part-00000.parquet: arrived with other than the 1,000 bytes"):
        fetch(listing)
    assert not (tmp_path / path).exists()
    fake.files[path] = good
    fetch(listing)
    assert downloaded(tmp_path) == core(fake)


def test_too_little_disk_is_said_before_anything_is_written(
    served: tuple[FakeHub, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, endpoint = served
    listing = list_files("1M", tmp_path / "release", embeddings=[], endpoint=endpoint)
    usage = download.shutil.disk_usage(tmp_path)._replace(free=70_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=rf"78.5 kB are still to be downloaded, but {tmp_path} has 70.0 kB free"):
        fetch(listing)
    assert not (tmp_path / "release").exists()
    # Files that are there already need no room any more.
    there = tmp_path / "release" / "seq" / "part-00001.parquet"
    there.parent.mkdir(parents=True)
    there.write_bytes(bytes(20_000))
    download.check_space(tmp_path / "release", missing_files(listing))


def test_a_part_that_the_hub_lacks_is_named(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    with pytest.raises(DataError, match=r"--embeddings 83: .* has no such embedding; it has 81_32, 84_4096"):
        list_files("1M", tmp_path, embeddings=[83], endpoint=endpoint)
    del fake.files["candidate/part-00000.parquet"]
    with pytest.raises(DataError, match="lacks candidate"):
        list_files("1M", tmp_path, endpoint=endpoint)


@pytest.mark.parametrize("path", ["seq/../../victim", "/victim", "mm_emb/emb_81_32_parquet/../../../victim"])
def test_a_file_outside_of_the_folder_is_refused(served: tuple[FakeHub, str], tmp_path: Path, path: str) -> None:
    fake, endpoint = served
    fake.files[path] = b"evil"
    with pytest.raises(DataError, match=r"lists the file .*victim', which is not inside of a release's folder"):
        list_files("1M", tmp_path / "release", endpoint=endpoint)


def test_a_file_that_vanishes_is_named(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    fake, endpoint = served
    listing = list_files("1M", tmp_path, embeddings=[], endpoint=endpoint)
    fake.gone.add("indexer.pkl")
    with pytest.raises(DataError, match="a file of the listing is gone"):
        fetch(listing)


def test_unknown_releases_revisions_and_repositories(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    _, endpoint = served
    with pytest.raises(DataError, match="2M: no such release; choose 1M or 10M"):
        list_files("2M", tmp_path, endpoint=endpoint)
    with pytest.raises(DataError, match="has no revision nowhere"):
        list_files("1M", tmp_path, revision="nowhere", endpoint=endpoint)
    with pytest.raises(DataError, match="there is no such public dataset"):
        list_files("10M", tmp_path, endpoint=endpoint)


def test_offline_says_how_to_copy_by_hand(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        list_files("1M", tmp_path / "TencentGR-1M", embeddings=[81, 84], endpoint="http://127.0.0.1:9")
    message = str(raised.value)
    assert message.startswith("http://127.0.0.1:9 cannot be reached")
    assert f"hf download {NAME} --repo-type dataset --revision main --local-dir TencentGR-1M" in message
    assert "--include 'seq/*'" in message
    assert "--include 'mm_emb/emb_84_*/*'" in message
    assert f"so that {tmp_path / 'TencentGR-1M' / 'indexer.pkl'}" in message
    assert not (tmp_path / "TencentGR-1M").exists()


def test_the_line_going_dead_in_between_is_offline_too(served: tuple[FakeHub, str], tmp_path: Path) -> None:
    _, endpoint = served
    listing = list_files("1M", tmp_path, embeddings=[], endpoint=endpoint)
    gone = hub.Request(**{**vars(listing.request), "endpoint": "http://127.0.0.1:9"})
    with pytest.raises(RunError, match="cannot be reached"):
        fetch(hub.Listing(gone, listing.commit, listing.files))


def test_a_record_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / download.RECORD).write_text("{")
    with pytest.raises(DataError, match=r"DOWNLOAD.json: is not JSON any more"):
        list_files("1M", tmp_path, endpoint="http://127.0.0.1:9")


def test_sizes_are_known_without_asking() -> None:
    assert parts("1M", [81]) == [("core", 1_000_000_000), ("emb_81", 900_000_000)]
    assert parts("10M", ["84_32", 84]) == [
        ("core", 11_000_000_000), ("emb_84_32", 3_700_000_000), ("emb_84", 3_700_000_000),
    ]  # fmt: skip
    assert sum(size for _, size in parts("1M", range(81, 87))) == pytest.approx(137e9, rel=0.06)


def test_a_missing_release_names_the_command() -> None:
    assert describe_missing("data/TencentGR-1M", [81]) == (
        "data/TencentGR-1M: does not exist. To fetch it from the Hugging Face hub, run: "
        "grbench data download 1M --embeddings 81 --out data/TencentGR-1M  (core about 1.0 GB, emb_81 about 0.9 GB)"
    )
    assert "download 10M --embeddings 81 --embeddings 84 --out" in describe_missing("x/TencentGR-10M", [81, 84])
    assert "--embeddings none" in describe_missing("x", [])
