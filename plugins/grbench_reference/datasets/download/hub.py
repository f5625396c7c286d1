"""The Hugging Face hub: which files a dataset has at one commit, and bringing some of them to a folder.

Transfers are huggingface_hub's `snapshot_download`. A file gets its name once it is whole, so a transfer that stopped
goes on with the files that are not there yet; only those that were on their way start over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grbench.errors import DataError, RunError, first_line
from grbench.types import Progress


@dataclass(frozen=True)
class Request:
    """Files of one dataset. folder: where they are to lie; patterns: which they are, as in `hf download --include`."""

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


@dataclass(frozen=True)
class Listing:
    """The files of a request, at one commit."""

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
    """Brings `missing` files of the listing to its folder, part by part; raises DataError or RunError and keeps what
    arrived. `report` is called with (part, bytes that are there, bytes of the part)."""
    from huggingface_hub import snapshot_download

    request = listing.request
    for part, (_, total) in listing.sizes().items():
        files = [file for file in missing if file.part == part]
        bar = _bar_that_reports(part, total - sum(file.size for file in files), total, report)
        if not files:
            continue
        with _explained(request):
            snapshot_download(
                request.repository,
                repo_type="dataset",
                revision=listing.commit,
                endpoint=request.endpoint,
                local_dir=request.folder,
                allow_patterns=[file.path for file in files],
                max_workers=workers,
                tqdm_class=bar,
            )
            for file in files:
                _check_arrival(request.folder / file.path, file.size)
        report(part, total, total)
    for left_over in (request.folder / ".cache" / "huggingface" / "download").rglob("*.incomplete"):
        left_over.unlink()  # of a process that was killed; no later one goes on with it


def _check_arrival(path: Path, size: int) -> None:
    if not path.exists():  # snapshot_download is content with any folder where the hub cannot be reached
        raise ConnectionError(f"{path.name} did not arrive")
    if size_of(path) != size:
        path.unlink()
        raise DataError(f"{path}: arrived with other than the {size:,} bytes announced; run the same command again")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _bar_that_reports(part: str, done: int, total: int, report: Progress) -> Any:
    """A class of progress bars for `snapshot_download` that shows nothing and reports the bytes written."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    lock = threading.Lock()
    report(part, done, total)

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            # One of the library's bars counts bytes written; others count files, and bytes on the line.
            self.counts = options.get("name") == "huggingface_hub.snapshot_download"
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, more: float | None = 1) -> None:
            nonlocal done
            if self.counts:
                with lock:
                    done += int(more or 0)
                    report(part, done, total)

    return Bar


@contextmanager
def _explained(request: Request) -> Iterator[None]:
    """Turns what huggingface_hub raises into one message that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, endpoint = request.repository, request.endpoint
    kept = "What arrived is kept; the same command goes on from there"
    # The library has changed its HTTP client twice; all errors of the present one share this base.
    network_error: Any = HfHubHTTPError.__bases__[0]
    try:
        yield
    except RevisionNotFoundError as error:
        raise DataError(f"{repository}: has no revision {request.revision} at {endpoint}") from error
    except GatedRepoError as error:
        raise DataError(
            f"{repository}: its terms must be accepted at {endpoint} first, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{repository}: there is no such public dataset at {endpoint}") from error
    except RemoteEntryNotFoundError as error:
        raise DataError(f"{repository}: a file of the listing is gone from {endpoint}: {first_line(error)}") from error
    except (network_error, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        cause = error if isinstance(error, HfHubHTTPError) else error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            raise RunError(f"{endpoint}: {first_line(cause)}. {kept}") from error
        raise RunError(_offline(request, cause)) from error
    except (OSError, RuntimeError) as error:  # a full disk, or a transfer that hf_xet gave up
        raise DataError(f"{request.folder}: {first_line(error)}. {kept}") from error


def _offline(request: Request, error: BaseException) -> str:
    folder = request.folder
    include = " ".join(f"--include '{pattern}'" for pattern in request.patterns)
    return (
        f"{request.endpoint} cannot be reached ({first_line(error)}). What arrived so far is kept, and the same "
        "command goes on from there. To copy by hand instead: on a machine with network, run\n"
        f"    hf download {request.repository} --repo-type dataset --revision {request.revision} "
        f"--local-dir {folder.name} {include}\n"
        f"and copy that folder to {folder}, so that {folder / 'indexer.pkl'} and {folder / 'seq'} lie there"
    )
