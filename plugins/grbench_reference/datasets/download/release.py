"""Fetches the official releases from the Hugging Face hub: only the parts a suite needs, pinned to one commit.

Sizes are known, and the free disk is looked at, before anything is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from grbench.errors import DataError, cut
from grbench.types import Progress
from grbench_reference.datasets.download.hub import Listing, RemoteFile, Request, list_repository, size_of, transfer

REPOSITORIES = {"1M": "TAAC2025/TencentGR-1M", "10M": "TAAC2025/TencentGR-10M"}
CORE = ("README.md", "indexer.pkl", "seq", "item_feat", "user_feat", "candidate")
REVISION = "main"  # resolved to a commit once; RECORD keeps it, so that a release never mixes two
RECORD = "DOWNLOAD.json"

# About how many GB each part has, for messages before the hub is asked. 1M, and 84 of 10M, as published; the rest of
# 10M in proportion to its 3.66 times as many ads and 10 times as many users.
_GIGABYTES = {
    "1M": {"core": 1.0, "81": 0.9, "82": 9.4, "83": 31.0, "84": 30.0, "85": 31.0, "86": 26.0},
    "10M": {"core": 11.0, "81": 3.3, "82": 34.0, "83": 113.0, "84": 3.7, "85": 113.0, "86": 95.0},
}


def parts(release: str, embeddings: Sequence[int | str] = (81,)) -> list[tuple[str, int]]:
    """What a suite with these embeddings needs of release `1M` or `10M`: (part, about how many bytes)."""
    _repository(release)
    sizes = _GIGABYTES[release]
    names = dict.fromkeys(_embedding_id(embedding) for embedding in embeddings)
    wanted = [("core", sizes["core"]), *((f"emb_{name}", sizes.get(name.split("_")[0], 0.0)) for name in names)]
    return [(part, round(size * 1e9)) for part, size in wanted]


def describe_missing(path: str | Path, embeddings: Sequence[int | str] = (81,)) -> str:
    """What to say when no release lies at `path`: which command fetches which parts, and how large they are."""
    release = "10M" if "10M" in Path(path).name.upper() else "1M"
    sizes = ", ".join(f"{part} about {readable(size)}" for part, size in parts(release, embeddings))
    chosen = "".join(f" --embeddings {_embedding_id(embedding)}" for embedding in embeddings) or " --embeddings none"
    return (
        f"{path}: does not exist. To fetch it from the Hugging Face hub, run: "
        f"grbench data download {release}{chosen} --out {path}  ({sizes})"
    )


def list_files(
    release: str,
    folder: Path,
    *,
    embeddings: Sequence[int | str] = (81,),
    revision: str | None = None,
    endpoint: str | None = None,
) -> Listing:
    """Asks the hub which files there are and how large. Nothing is written.

    Args:
        release: `1M` or `10M`
        folder: where the release is to lie
        embeddings: by number (81), or number and width (84_32)
        revision: a branch, tag or commit; None = the commit that `folder` was begun with, else the default branch
        endpoint: the hub's address; None = huggingface_hub's own choice (HF_ENDPOINT, else huggingface.co)

    Raises:
        DataError: the repository, the revision or one of the parts does not exist
        RunError: the hub cannot be reached
    """
    from huggingface_hub import HfApi

    repository = _repository(release)
    record = _read_record(folder)
    begun_with = record.get("commit") if record.get("repository") == repository else None
    patterns = [*CORE[:2], *(f"{name}/*" for name in CORE[2:])]
    patterns += [f"mm_emb/emb_{_embedding_id(embedding)}_*/*" for embedding in embeddings]
    request = Request(
        repository=repository,
        revision=revision or begun_with or REVISION,
        endpoint=HfApi(endpoint=endpoint).endpoint,
        folder=folder,
        patterns=tuple(patterns),
    )
    commit, files = list_repository(request)
    return Listing(request, commit, tuple(_chosen(files, embeddings, f"{repository} at {commit[:12]}")))


def fetch(listing: Listing, *, workers: int = 4, report: Progress | None = None) -> None:
    """Brings the files of a listing to its folder; files that are there stay.

    `report` is called with (part, bytes that are there, bytes of the part).

    Raises:
        DataError: too little disk, or a file that arrived with another size than the hub announced
        RunError: the hub cannot be reached any more; the same call goes on from there
    """
    folder, missing = listing.request.folder, missing_files(listing)
    check_space(folder, missing)
    try:
        for file in missing:  # what has another content, before the record says that this one is there
            (folder / file.path).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        _write_record(listing)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from error
    transfer(listing, missing, workers=workers, report=report or _unreported)


def missing_files(listing: Listing) -> list[RemoteFile]:
    """The files of a listing that its folder does not hold whole, or holds from a commit where they differed."""
    folder = listing.request.folder
    recorded = _read_record(folder).get("files", {})
    return [
        file
        for file in listing.files
        if size_of(folder / file.path) != file.size or recorded.get(file.path, file.sha256) != file.sha256
    ]


def unfinished(folder: Path) -> list[Path]:
    """Files that a download to this folder was begun for, and that have not arrived."""
    return [path for name in _read_record(folder).get("files", {}) if not (path := folder / name).exists()]


def check_space(folder: Path, missing: Sequence[RemoteFile]) -> None:
    """Raises DataError unless the disk under `folder` has room for what is still to come."""
    needed = sum(file.size for file in missing)
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DataError(
            f"{folder}: {readable(needed)} are still to be downloaded, but {place} has {readable(free)} free; "
            "make room, choose fewer --embeddings, or give --out on a larger disk. Nothing was downloaded"
        )


def readable(size: float) -> str:
    """Bytes in the unit that people use for them."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= 0.1 * unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:.1f} kB"


def _unreported(part: str, done: int, total: int | None) -> None:
    """Reports to nobody."""


def _chosen(files: Sequence[RemoteFile], embeddings: Sequence[int | str], where: str) -> Iterator[RemoteFile]:
    """The core parts and the embeddings asked for; raises DataError where the repository lacks one, or lists a file
    that would lie outside of the folder that it is downloaded to, as a hub that means harm may."""
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise DataError(
                f"{where}: lists the file {cut(repr(file.path))}, which is not inside of a release's folder"
            )
    there = {Path(file.path).parts[0] for file in files}
    if lacking := [name for name in CORE if name not in there and name != "README.md"]:
        raise DataError(f"{where}: lacks {', '.join(lacking)}, so it is no whole TencentGR release")
    known = {file.part for file in files} - {"core"}
    wanted = {"core"}
    for embedding in embeddings:
        name = f"emb_{_embedding_id(embedding)}"
        fits = {part for part in known if part == name or part.startswith(f"{name}_")}
        if not fits:
            choices = ", ".join(sorted(part.removeprefix("emb_") for part in known)) or "none"
            raise DataError(f"--embeddings {embedding}: {where} has no such embedding; it has {choices}")
        wanted |= fits
    yield from (file for file in files if file.part in wanted and Path(file.path).parts[0] in (*CORE, "mm_emb"))


def _repository(release: str) -> str:
    if release not in REPOSITORIES:
        raise DataError(f"{release}: no such release; choose {' or '.join(REPOSITORIES)}")
    return REPOSITORIES[release]


def _embedding_id(embedding: int | str) -> str:
    return str(embedding).removeprefix("emb_").removesuffix("_parquet")


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON any more ({error}); remove it and run the same command again") from error
    if not isinstance(record, dict) or not isinstance(record.get("files", {}), dict):
        raise DataError(f"{path}: is not the record of a download; remove it and run the same command again")
    return record


def _write_record(listing: Listing) -> None:
    request = listing.request
    earlier = _read_record(request.folder)
    files = earlier.get("files", {}) if earlier.get("repository") == request.repository else {}
    record = {
        "repository": request.repository,
        "revision": request.revision,
        "commit": listing.commit,
        "files": files | {file.path: file.sha256 for file in listing.files},
    }
    (request.folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
