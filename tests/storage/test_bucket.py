"""Buckets of an S3-compatible server that runs here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import KEYS, client, s3_server

from grbench.errors import DataError
from grbench.storage.copying import copy, copy_folder
from grbench.storage.listing import SUMS, list_place
from grbench.storage.place import place_of
from grbench.storage.push import push

CONTENT = {"a.bin": b"0123456789" * 1000, "deep/er/b.bin": b"", "c d.txt": b"c\n"}


def nobody(what: str, done: int, total: int | None) -> None:
    """A Progress that does nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        client(address).create_dir("bucket")
        yield address


@pytest.fixture(autouse=True)
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user, and nothing of this machine's."""
    for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "source"


def pushed(server: str, source: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert push(source, place_of(f"s3://bucket/{name}"), nobody)
    return f"s3://bucket/{name}"


def refusal(url: str, *, seconds: float = 60) -> str:
    began = time.monotonic()
    with pytest.raises(DataError) as refused:
        list_place(place_of(url))
    assert time.monotonic() - began < seconds
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_to_a_bucket_and_back(server: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = pushed(server, source, "there/and/back", monkeypatch)
    assert push(source, place_of(url), nobody) is False
    listing = list_place(place_of(url))
    seen: list[tuple[str, int, int | None]] = []
    folder = copy(tmp_path / "cache", listing, lambda *told: seen.append(told))
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == (
        CONTENT
    )
    assert seen[0] == (f"copying {url}", 0, 10_002)
    assert seen[-1] == (f"copying {url}", 10_002, 10_002)
    push(source, place_of(tmp_path / "shared"), nobody)
    assert list_place(place_of(tmp_path / "shared")).digest == listing.digest, "the content counts, not the place"


def test_a_broken_copy_is_brought_again(
    server: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = list_place(place_of(pushed(server, source, "broken", monkeypatch)))
    file = copy(tmp_path / "cache", listing, nobody) / "a.bin"
    file.write_bytes(b"cut")
    copy(tmp_path / "cache", listing, nobody)
    assert file.read_bytes() == CONTENT["a.bin"]


@pytest.mark.parametrize("spoiled", [b"cut", b"x" * 10_000])
def test_an_object_that_is_not_what_was_pushed(
    server: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: bytes
) -> None:
    url = pushed(server, source, f"spoiled{len(spoiled)}", monkeypatch)
    with client(server).open_output_stream(f"{url.removeprefix('s3://')}/a.bin") as out:
        out.write(spoiled)
    listing = list_place(place_of(url))
    with pytest.raises(DataError, match=rf"{url}/a.bin: is not what its checksum is of .* push it again"):
        copy(tmp_path / "cache", listing, nobody)
    assert not (copy_folder(tmp_path / "cache", listing) / "a.bin").exists()


def test_what_is_not_there(server: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = pushed(server, source, "gone", monkeypatch)
    assert refusal("s3://bucket/nothing") == "s3://bucket/nothing: there is no such file or folder"
    assert refusal("s3://no-bucket/x") == f"s3://no-bucket/x: there is no bucket no-bucket at {server}"
    with pytest.raises(DataError, match=r"there is no bucket no-bucket at .*; create it first"):
        push(source, place_of("s3://no-bucket/x"), nobody)
    client(server).delete_file("bucket/gone/a.bin")
    assert "lacks a.bin, which its SHA256SUMS names" in refusal(url)
    client(server).delete_file(f"bucket/gone/{SUMS}")
    assert [file.sha256 for file in list_place(place_of(url)).files] == [None, None]


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert refusal("s3://bucket/x") == (
        "s3://bucket/x: http://127.0.0.1:9 cannot be reached (Could not connect to server); look at the network and at "
        "AWS_ENDPOINT_URL"
    )


def test_a_server_that_knows_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert f"{address} refuses access, or knows no such credentials; set AWS_ACCESS_KEY_ID" in refusal("s3://b-1/x")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert f"{address} refuses access without credentials; set AWS_ACCESS_KEY_ID" in refusal("s3://b-1/x")
