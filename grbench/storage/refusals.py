"""What is said where a place cannot be read or written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.errors import DataError, cut, first_line

if TYPE_CHECKING:
    from grbench.storage.place import Place

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

# What the libraries of pyarrow say, and what is said in its place.
_ACCESS: tuple[str, ...] = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
_ACCESS += ("INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT", "MISSING_AUTHENTICATION_TOKEN", "EXPIRED_TOKEN")
_ACCESS += ("HTTP STATUS 403", "NO RESPONSE BODY")
_NETWORK = ("NETWORK_CONNECTION", "CURLCODE", "REQUEST_TIMEOUT", "COULDN'T CONNECT", "COULDN'T RESOLVE", "TIMEOUT")
_BUCKET = ("NO_SUCH_BUCKET", "BUCKET NOT FOUND", "SPECIFIED BUCKET DOES NOT EXIST")


@contextmanager
def explained(place: Place, doing: str) -> Iterator[None]:
    """Turns what pyarrow raises into one DataError that says what to do. doing: `read` or `written`."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException) as error:
        raise DataError(f"{place.url}: {_reason(place, error, doing)}") from error


def no_bucket(place: Place) -> str:
    """There is no such bucket."""
    return f"there is no bucket {place.path.partition('/')[0]} at {place.endpoint}"


def no_space(folder: Path, needed: int, free: int) -> DataError:
    """Where a copy does not fit on the local disk. needed, free: bytes."""
    return DataError(
        f"{folder}: {readable(needed)} are still to be copied, and {readable(free)} are free; free some, or set "
        "GRBENCH_CACHE to a folder on a larger disk. Files that have arrived whole are kept"
    )


def readable(size: float) -> str:
    """Bytes in the unit in which disks and transfers are counted."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= 0.1 * unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:.1f} kB"


def _reason(place: Place, error: BaseException, doing: str) -> str:
    said = str(error).upper()
    if place.is_local:
        return f"cannot be {doing} ({getattr(error, 'strerror', None) or first_line(error)})"
    if any(word in said for word in _BUCKET):
        return no_bucket(place)
    if any(word in said for word in _NETWORK):
        return f"{place.endpoint} cannot be reached ({_short(error)}); look at the network and at AWS_ENDPOINT_URL"
    if any(word in said for word in _ACCESS):
        why = ", or knows no such credentials" if _has_credentials() else " without credentials"
        return f"{place.endpoint} refuses access{why}; {CREDENTIALS}"
    return f"cannot be {doing} ({_short(error)})"


def _has_credentials() -> bool:
    """Whether there are some where AWS' own tools look for them. Those of a machine's role are not looked for: a server
    that refuses them says so."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials"
    return any(os.environ.get(name) for name in names) or Path(file).is_file()


def _short(error: BaseException) -> str:
    """The part of the library's message that says why; the rest repeats the request."""
    line = first_line(error, 1_000)
    why = line.rpartition("operation: ")[2].partition(" (Request ID")[0] or line
    return cut(re.sub(r"^curlCode: [0-9]+, ([^;]*);.*", r"\1", why), 200)
