"""Transfers from the Hugging Face hub that go on where they stopped, in this process or the next.

Listing and transfer are huggingface_hub's, over plain HTTP. What is added here is the partial file that outlives the
process: `x.parquet` arrives as `x.parquet.<checksum>.incomplete` beside its place, which readers of the release report
as an unfinished download, and gets its name once its content is what the hub announced.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from grbench.errors import DataError, GRBenchError, RunError
from grbench.types import Progress

_NETWORK_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "socket", "ssl"}


@dataclass(frozen=True)
class Request:
    """What was asked of the hub. `folder`: where it is to lie; `patterns`: the files wanted, as the hub's tools say."""

    repository: str
    revision: str
    endpoint: str
    folder: Path
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class RemoteFile:
    """A file of the hub. sha256: of its content, None for small files that the hub keeps in git itself."""

    path: str
    size: int
    sha256: str | None

    @property
    def part(self) -> str:
        """The part it belongs to: core, or an embedding such as emb_81_32."""
        folders = Path(self.path).parts
        return folders[1].removesuffix("_parquet") if folders[0] == "mm_emb" and len(folders) > 2 else "core"

    def partial(self, folder: Path) -> Path:
        """Where it lies while it is on its way; a file of another content would not be taken for it."""
        return folder / f"{self.path}.{(self.sha256 or 'git')[:12]}.incomplete"


@dataclass(frozen=True)
class Listing:
    """The files that were asked for, at one commit."""

    request: Request
    commit: str
    files: tuple[RemoteFile, ...]

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Part -> (files, bytes)."""
        found: dict[str, tuple[int, int]] = {}
        for file in self.files:
            count, size = found.get(file.part, (0, 0))
            found[file.part] = (count + 1, size + file.size)
        return found


def list_repository(request: Request) -> tuple[str, list[RemoteFile]]:
    """-> (commit, every file of the dataset at that commit); raises DataError or RunError."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=request.endpoint)
    with _explained(request):
        commit = str(api.dataset_info(request.repository, revision=request.revision).sha)
        tree = api.list_repo_tree(request.repository, recursive=True, revision=commit, repo_type="dataset")
        found = [entry for entry in tree if isinstance(entry, RepoFile)]
    return commit, [RemoteFile(file.path, file.size, file.lfs.sha256 if file.lfs else None) for file in found]


def transfer(listing: Listing, missing: Sequence[RemoteFile], *, workers: int, report: Progress) -> None:
    """Brings `missing` files of the listing to its folder; raises DataError or RunError and keeps what arrived."""
    hub: Any = import_module("huggingface_hub.utils")
    hidden = hub.are_progress_bars_disabled()
    hub.disable_progress_bars()  # one bar a part is drawn from `report` instead of one a file
    progress = _Progress(listing, missing, report)
    pool = ThreadPoolExecutor(workers)
    try:
        with _explained(listing.request):
            jobs = [pool.submit(_fetch, listing, file, progress) for file in missing]
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
    finally:
        progress.stop.set()
        pool.shutdown(cancel_futures=True)
        if not hidden:
            hub.enable_progress_bars()


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


class _Stopped(Exception):
    """Another file failed, or the user pressed Ctrl-C."""


class _Progress:
    """Counts bytes a part over all threads."""

    def __init__(self, listing: Listing, missing: Sequence[RemoteFile], report: Progress) -> None:
        self.totals = {part: size for part, (_, size) in listing.sizes().items()}
        self.done = dict(self.totals)
        for file in missing:
            self.done[file.part] -= file.size - size_of(file.partial(listing.request.folder))
        self.report, self.stop, self._lock = report, threading.Event(), threading.Lock()
        for part, total in self.totals.items():
            report(part, self.done[part], total)

    def add(self, part: str, size: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        with self._lock:
            self.done[part] += size
            self.report(part, self.done[part], self.totals[part])


class _CountedFile:
    """A file that tells how much is written to it; all else that huggingface_hub does with a file is passed on."""

    def __init__(self, file: BinaryIO, part: str, progress: _Progress) -> None:
        self._file, self._part, self._progress = file, part, progress

    def write(self, data: bytes) -> int:
        self._progress.add(self._part, len(data))
        return self._file.write(data)

    def truncate(self) -> int:
        # The server ignored where to go on from and starts over: what was counted so far is void.
        before, after = self._file.seek(0, 2), self._file.truncate(0)
        self._progress.add(self._part, after - before)
        return after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _fetch(listing: Listing, file: RemoteFile, progress: _Progress) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    hub: Any = import_module("huggingface_hub.utils")
    request, partial = listing.request, file.partial(listing.request.folder)
    url = hf_hub_url(
        request.repository, file.path, repo_type="dataset", revision=listing.commit, endpoint=request.endpoint
    )
    # No compression: a resumed transfer counts the bytes of the file itself.
    headers = {**hub.build_hf_headers(), "Accept-Encoding": "identity"}
    with partial.open("ab") as target:
        there = target.tell()
        if there < file.size:
            counted: Any = _CountedFile(target, file.part, progress)
            http_get(url, counted, resume_size=there, headers=headers, expected_size=file.size)
    if size_of(partial) != file.size or (file.sha256 and _sha256(partial, progress) != file.sha256):
        partial.write_bytes(b"")
        raise DataError(
            f"{request.folder / file.path}: arrived with another content than the hub announced, and was dropped; run "
            "the same command again"
        )
    partial.replace(request.folder / file.path)


def _sha256(path: Path, progress: _Progress) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            if progress.stop.is_set():
                raise _Stopped
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _explained(request: Request) -> Iterator[None]:
    """Turns what huggingface_hub raises into one message that says what to do."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, endpoint = request.repository, request.endpoint
    try:
        yield
    except GRBenchError:
        raise
    except RevisionNotFoundError as error:
        raise DataError(f"{repository}: has no revision {request.revision} at {endpoint}") from error
    except GatedRepoError as error:
        raise DataError(
            f"{repository}: its terms must be accepted at {endpoint} first, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{repository}: there is no such public dataset at {endpoint}") from error
    except EntryNotFoundError as error:
        raise DataError(f"{repository}: a file of the listing is gone from {endpoint}: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        raise RunError(
            f"{endpoint}: {_first_line(error)}. What arrived is kept; the same command goes on from there"
        ) from error
    except Exception as error:
        # The hub's client has changed its HTTP library twice, so network errors are told by where they come from.
        if _is_network_error(error):
            raise RunError(_offline(request, error)) from error
        if isinstance(error, OSError):
            raise DataError(
                f"{request.folder}: {error}. What arrived is kept; the same command goes on from there"
            ) from error
        raise


def _is_network_error(error: BaseException) -> bool:
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(kinds & _NETWORK_LIBRARIES)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _offline(request: Request, error: BaseException) -> str:
    folder = request.folder
    include = " ".join(f"--include '{pattern}'" for pattern in request.patterns)
    return (
        f"{request.endpoint} cannot be reached ({_first_line(error)}). What arrived so far is kept, and the same "
        "command goes on from there. To copy by hand instead: on a machine with network, run\n"
        f"    hf download {request.repository} --repo-type dataset --revision {request.revision} "
        f"--local-dir {folder.name} {include}\n"
        f"and copy that folder to {folder}, so that {folder / 'indexer.pkl'} and {folder / 'seq'} lie there"
    )
