"""An S3-compatible server for tests: moto's, a process of its own with its own environment, since its libraries need
other versions of some that grbench's have."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OWN = Path(__file__).parents[2] / ".venv-moto" / "bin" / "moto_server"
# Not the one on PATH: pyarrow finds answers of older versions to be errors.
MOTO = os.environ.get("GRBENCH_TEST_MOTO") or (str(OWN) if OWN.exists() else None)
MISSING = "needs moto's server: make s3-server installs it, or GRBENCH_TEST_MOTO names it"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """Runs the server; yields its address. Skips the test where there is none installed."""
    if MOTO is None:
        pytest.skip(MISSING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHONPATH"))}
    server = subprocess.Popen(
        [MOTO, "-H", "127.0.0.1", "-p", str(port)],
        env=clean | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "moto's server has ended"
                time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def client(address: str) -> object:
    """pyarrow's file system of the server, for what grbench itself does not do: making buckets and spoiling objects."""
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(
        access_key=KEYS["AWS_ACCESS_KEY_ID"],
        secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=address,
        region=KEYS["AWS_REGION"],
        allow_bucket_creation=True,
    )
