"""A place where data lie: `s3://bucket/folder`, `file:///folder` or a path.

Server, region and credentials are those of AWS' own tools (environment, ~/.aws, the machine's role) and no part of a
place, because places are written into records, and into suites of others.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from grbench.errors import DataError, cut

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_SECONDS = 5.0
"""How long a server may take to accept a connection."""
READ_SECONDS = 8.0
"""How long a server may take between two pieces of an answer."""
ATTEMPTS = 3
"""How often a request is sent before it has failed."""

FORMS = "s3://bucket/folder, file:///folder, or a path"

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+|(?P<bare>[sS]3):")


@dataclass(frozen=True)
class Place:
    """A folder or file of a file system. url: as people write it; path: as `files` has it; is_local: whether it can be
    opened by its path."""

    url: str
    files: FileSystem
    path: str
    is_local: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def endpoint(self) -> str:
        """The server, for messages."""
        return "this machine's file systems" if self.is_local else _endpoint() or "Amazon's S3"

    def below(self, *names: str) -> Place:
        """The place of a file or folder in this one."""
        url, path = ("/".join([text.rstrip("/"), *names]) for text in (self.url, self.path))
        return Place(url, self.files, path, self.is_local)


def is_url(path: str | Path) -> bool:
    """Whether it is written as a URL: then its content is copied to the local disk before it is read."""
    return _SCHEME.match(str(path)) is not None


def url_text(path: str | Path) -> str:
    """The path, or the URL with the slashes that a Path has merged: `s3:/bucket/x` is `s3://bucket/x`."""
    match = _SCHEME.match(text := str(path))
    if match is None or match["scheme"] is None:
        return text
    return f"{match['scheme'].lower()}://{'/' if match['scheme'].lower() == 'file' else ''}{text[match.end() :]}"


def place_of(path: str | Path) -> Place:
    """The place that is meant. Nothing is asked of a server yet, but for the region of a bucket at Amazon that the
    environment does not say. Raises DataError for what is none of FORMS, and for credentials in it."""
    from pyarrow.fs import LocalFileSystem

    if not is_url(path):
        where = Path(path).expanduser()
        return Place(str(path), LocalFileSystem(), os.path.abspath(where), is_local=True)
    url = url_text(path)
    parts = urlsplit(url)
    if "@" in parts.netloc or re.search(r"(?i)key|token", parts.query):
        raise DataError(
            f"{parts.scheme}://...: credentials do not belong into a path, which is written into records; set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if parts.query or parts.fragment:
        raise DataError(
            f"{cut(url)}: a place has no ? and no #; the server is named by AWS_ENDPOINT_URL, the region by AWS_REGION"
        )
    if parts.scheme == "file":
        return Place(url, LocalFileSystem(), unquote(parts.path).rstrip("/") or "/", is_local=True)
    if parts.scheme != "s3":
        raise DataError(f"{cut(url)}: there are no places of the kind {cut(parts.scheme)}:; give {FORMS}")
    bucket, key = parts.netloc, unquote(parts.path).strip("/")
    if not bucket or url.partition(":")[2][:2] != "//":
        raise DataError(f"{cut(url)}: should name a bucket and a folder, s3://bucket/folder")
    return Place(url, _s3(bucket), f"{bucket}/{key}".rstrip("/"), is_local=False)


def _s3(bucket: str) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    scheme, _, server = (_endpoint() or "").rpartition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and not server:
        with contextlib.suppress(OSError):  # the first request says what is wrong
            region = resolve_s3_region(bucket)
    return S3FileSystem(
        endpoint_override=server.rstrip("/") or None,
        region=region,
        scheme=scheme or None,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=READ_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _endpoint() -> str | None:
    """The address of a server that is not Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
