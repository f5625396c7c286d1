"""Places as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from grbench.errors import DataError
from grbench.storage.place import is_url, place_of, url_text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("file:///a/b", "file:///a/b"),
        ("S3://bucket", "s3://bucket"),
        ("/a/b", "/a/b"),
        ("data/x", "data/x"),
    ],
)
def test_a_path_keeps_the_url_that_was_written(written: str, text: str) -> None:
    """An option annotated Path merges the slashes of a URL."""
    assert url_text(Path(written)) == url_text(written) == text


def test_what_is_a_url() -> None:
    assert [is_url(text) for text in ("s3://b/x", "s3:b", "file:/x", "gs://x", "x", "/x", "a:b", "C")] == [
        *([True] * 4),
        *([False] * 4),
    ]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("s4://bucket/x", "there are no places of the kind s4:; give s3://bucket/folder, file:///folder, or a path"),
        ("s3:bucket/x", "should name a bucket and a folder, s3://bucket/folder"),
        ("s3://", "should name a bucket and a folder"),
        ("s3://b/x?region=y", "a place has no ? and no #; the server is named by AWS_ENDPOINT_URL, the region by AWS_"),
        ("s3://key:secret@b/x", "credentials do not belong into a path"),
        ("s3://b/x?secret_key=hidden", "credentials do not belong into a path"),
    ],
)
def test_a_place_that_is_none(written: str, says: str) -> None:
    with pytest.raises(DataError) as refused:
        place_of(written)
    assert says in str(refused.value)
    assert "secret@" not in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_places_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_of("x").path == str(tmp_path / "x")
    assert place_of(f"file://{tmp_path}/a%20b").path == str(tmp_path / "a b")
    below = place_of("file:///data").below("x", "y.npy")
    assert (below.url, below.path, below.name) == ("file:///data/x/y.npy", "/data/x/y.npy", "y.npy")
