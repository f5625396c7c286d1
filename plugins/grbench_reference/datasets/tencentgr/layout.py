"""What lies where in a TencentGR release, and whether all of it is there.

Source: the Hugging Face datasets TAAC2025/TencentGR-1M and TAAC2025/TencentGR-10M; column names of the candidate table
also as the organisers' own reader (baseline_2025, `infer.py`) expects them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from grbench.errors import DataError
from grbench_reference.datasets.download.release import unfinished
from grbench_reference.datasets.parquet_parts import ColumnType, PartFolder, open_folder

ITEM_FEATURES = ("100", "101", "102", "112", "114", "115", "116", "117", "118", "119", "120", "121", "122")
USER_FEATURES = ("103", "104", "105", "106", "107", "108", "109", "110")
LIST_FEATURES = frozenset({"106", "107", "108", "110"})

_EMBEDDING_FOLDER = re.compile(r"emb_(?P<id>[^_]+)_(?P<width>\d+)(_parquet)?")
_SAMPLED_BYTES = 64 * 1024  # of each end of a file, for its digest
_WHOLE_BYTES = 64 << 20


def _whole(kind: Any) -> bool:
    # Doubles are how pandas writes integers with nulls; a column without any value may lose its type altogether.
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_null(kind))


def _list_of(fits: Any) -> Any:
    def is_list(kind: Any) -> bool:
        listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
        return bool(listed and fits(kind.value_type))

    return is_list


def _struct(**fields: Any) -> Any:
    def is_struct(kind: Any) -> bool:
        return bool(pt.is_struct(kind)) and all(
            kind.get_field_index(name) >= 0 and fits(kind.field(name).type) for name, fits in fields.items()
        )

    return is_struct


def _text(kind: Any) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _text_or_whole(kind: Any) -> bool:
    return _text(kind) or bool(pt.is_integer(kind) or pt.is_null(kind))


def _flag(kind: Any) -> bool:
    return bool(pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_null(kind))


ID = ColumnType("int64", lambda kind: bool(pt.is_integer(kind)))
RAW_ID = ColumnType("int64, or its decimal string", lambda kind: _text(kind) or bool(pt.is_integer(kind)))
VALUE = ColumnType("int64, nulls allowed", _whole)
VALUES = ColumnType("list<int64>, nulls allowed", lambda kind: bool(pt.is_null(kind)) or _list_of(_whole)(kind))
EVENTS = ColumnType(
    "list<struct<item_id: int64, action_type: int64, timestamp: int64>>",
    _list_of(_struct(item_id=ID.fits, action_type=_whole, timestamp=ID.fits)),
)
VECTOR = ColumnType("list<float>", _list_of(pt.is_floating))

EVENT_COLUMNS = {"user_id": ID, "seq": EVENTS}
ITEM_COLUMNS = {"item_id": ID} | dict.fromkeys(ITEM_FEATURES, VALUE)
USER_COLUMNS = {"user_id": ID} | {name: VALUES if name in LIST_FEATURES else VALUE for name in USER_FEATURES}
_CORE = {"seq": EVENT_COLUMNS, "item_feat": ITEM_COLUMNS, "user_feat": USER_COLUMNS}
EMBEDDING_COLUMNS = {"anonymous_cid": RAW_ID, "emb": VECTOR}


@dataclass(frozen=True)
class CandidateSpelling:
    """One of the two ways in which the candidate table is written. `flag` marks a value that training never saw."""

    item: str
    flag: str

    @property
    def columns(self) -> dict[str, ColumnType]:
        """What every part must have."""
        fits = _struct(**{self.flag: _flag, "feature_value": _text_or_whole})
        cell = ColumnType(
            f"struct<{self.flag}: bool, feature_value: string>", lambda kind: bool(pt.is_null(kind)) or fits(kind)
        )
        return {self.item: RAW_ID} | dict.fromkeys(ITEM_FEATURES, cell)


RELEASED = CandidateSpelling("item_id", "cold_start")
ORGANISERS = CandidateSpelling("creative_id", "is_str")


def candidate_spelling(candidates: PartFolder) -> CandidateSpelling:
    """Which of the two this table is; raises DataError where it is neither."""
    first = candidates.parts[0].schema
    item = next((name for name in (ORGANISERS.item, RELEASED.item) if name in first.names), RELEASED.item)
    kind = first.field(ITEM_FEATURES[0]).type if ITEM_FEATURES[0] in first.names else pa.null()
    organisers = pt.is_struct(kind) and kind.get_field_index(ORGANISERS.flag) >= 0
    spelling = CandidateSpelling(item, ORGANISERS.flag if organisers else RELEASED.flag)
    candidates.require(spelling.columns)
    return spelling


@dataclass(frozen=True)
class Release:
    """A whole release: every part found, every footer read, every column of the right type."""

    root: Path
    events: PartFolder
    item_features: PartFolder
    user_features: PartFolder
    candidates: PartFolder | None
    embeddings: dict[str, PartFolder]

    @property
    def indexer(self) -> Path:
        """Where the ids are mapped."""
        return self.root / "indexer.pkl"

    def files(self) -> Iterator[Path]:
        """All files that are read."""
        yield self.indexer
        for folder in (self.events, self.item_features, self.user_features, self.candidates, *self.embeddings.values()):
            if folder is not None:
                yield from (part.path for part in folder.parts)

    def stamps(self) -> dict[Path, tuple[int, int] | None]:
        """Size and time of change of all files that are read; None for one that is gone."""
        found = {path: path.stat() if path.exists() else None for path in self.files()}
        return {path: stat and (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}

    def digest(self, options: str) -> str:
        """sha256 over `options` and over each file's relative path, size and content.

        indexer.pkl and files up to 64 MiB count whole. Of a larger parquet part both ends count: its footer, which
        holds the place, size and range of every page, is in the last 64 KiB.
        """
        digest = hashlib.sha256(options.encode())
        for path in sorted(self.files()):
            size = path.stat().st_size
            with path.open("rb") as file:
                if path == self.indexer or size <= _WHOLE_BYTES:
                    content = hashlib.file_digest(file, "sha256")
                else:
                    content = hashlib.sha256(file.read(_SAMPLED_BYTES))
                    file.seek(max(0, size - _SAMPLED_BYTES))
                    content.update(file.read(_SAMPLED_BYTES))
            digest.update(f"\0{path.relative_to(self.root).as_posix()}\0{size}\0{content.hexdigest()}".encode())
        return digest.hexdigest()


def open_release(root: Path, embeddings: Sequence[str]) -> Release:
    """The release at `root` with the named embeddings; raises DataError where part of it is missing or misshapen."""
    require_root(root)
    if not (root / "indexer.pkl").is_file():
        raise DataError(f"{root / 'indexer.pkl'}: is missing; finish the download (`grbench data download`)")
    require_finished(root, ".", pattern="indexer.pkl*")
    core = {name: open_core(root, name) for name in _CORE}
    return Release(
        root=root,
        events=core["seq"],
        item_features=core["item_feat"],
        user_features=core["user_feat"],
        candidates=open_candidates(root),
        embeddings={name: open_embedding(root, embedding_folder(root, name)) for name in embeddings},
    )


def recognises(root: Path) -> bool:
    """Whether `root` looks like a release, be it an unfinished one."""
    return root.is_dir() and sum((root / name).exists() for name in ("indexer.pkl", *_CORE)) >= 2


def require_root(root: Path) -> None:
    """Raises DataError unless there is something at `root` that may be a release."""
    fetch = "`grbench data download` fetches the official ones"
    if not root.exists():
        raise DataError(f"{root}: does not exist; {fetch}")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; give the folder that holds indexer.pkl and seq/")
    if not any(root.iterdir()):
        raise DataError(f"{root}: is empty; {fetch}")
    if not any((root / name).exists() for name in ("indexer.pkl", *_CORE)):
        inner = next((child for child in sorted(root.iterdir()) if recognises(child)), None)
        hint = f"did you mean {inner}?" if inner else fetch
        raise DataError(f"{root}: holds none of indexer.pkl, {', '.join(_CORE)}, so it is no TencentGR release; {hint}")


def open_core(root: Path, name: str) -> PartFolder:
    """seq, item_feat or user_feat, checked; raises DataError."""
    require_finished(root, name)
    folder = open_folder(root / name, name)
    folder.require(_CORE[name])
    if name == "seq" and not folder.rows:
        raise DataError(f"{root / name}: its parts hold no row; finish the download")
    return folder


def open_candidates(root: Path) -> PartFolder | None:
    """The candidate table, checked; None where the release has no such folder. Raises DataError."""
    if not (root / "candidate").exists():
        return None
    require_finished(root, "candidate")
    folder = open_folder(root / "candidate", "candidate")
    candidate_spelling(folder)
    return folder


def embedding_folders(root: Path) -> dict[str, tuple[str, int]]:
    """Folders of mm_emb -> (embedding id, the width that the folder's name promises)."""
    found = (root / "mm_emb").iterdir() if (root / "mm_emb").is_dir() else iter(())
    matches = {path.name: _EMBEDDING_FOLDER.fullmatch(path.name) for path in sorted(found) if path.is_dir()}
    return {name: (match["id"], int(match["width"])) for name, match in matches.items() if match}


def embedding_folder(root: Path, embedding: str) -> str:
    """The folder in mm_emb of embedding `81` or `84_32`; raises DataError where there is none, or more than one."""
    folders = embedding_folders(root)
    fits = [folder for folder, (number, width) in folders.items() if embedding in (number, f"{number}_{width}", folder)]
    if len(fits) > 1:
        choices = ", ".join("{}_{}".format(*folders[folder]) for folder in fits)
        raise DataError(f"{root / 'mm_emb'}: embedding {embedding} is there more than once; name one of {choices}")
    if not fits:
        there = ", ".join(f"{number} ({width}-d)" for number, width in folders.values()) or "none"
        raise DataError(
            f"{root / 'mm_emb'}: has no folder emb_{embedding}_<width>_parquet; embeddings there: {there}. Choose with "
            "embeddings: [81], none with embeddings: []; `grbench data download` fetches further ones"
        )
    return fits[0]


def open_embedding(root: Path, folder: str) -> PartFolder:
    """One folder of mm_emb, checked; raises DataError."""
    name = f"mm_emb/{folder}"
    require_finished(root, name)
    opened = open_folder(root / name, name)
    opened.require(EMBEDDING_COLUMNS)
    return opened


def require_finished(root: Path, folder: str, *, pattern: str = "*") -> None:
    """Raises DataError where a download for `folder` is not done, or left a partial file or a dangling link behind."""
    for path in unfinished(root):
        if path.parent == root / folder and path.match(pattern):
            raise DataError(f"{path}: has not arrived yet; run the same `grbench data download` again")
    # The hub's client keeps partial files beside the part, or in its own folder under the download's root.
    for place in (root / folder, root / ".cache" / "huggingface" / "download" / folder):
        for path in sorted(place.glob(f"{pattern}.incomplete")) if place.is_dir() else ():
            raise DataError(f"{path}: a download is unfinished; resume it, or remove this file if it is a left-over")
    for path in sorted((root / folder).glob("*.parquet")) if (root / folder).is_dir() else ():
        if not path.exists():
            raise DataError(f"{path}: links to a file that is not there; finish the download")
