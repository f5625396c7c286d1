"""The files and columns of a TencentGR release, and the check that all of them are present.

Source: the Hugging Face datasets TAAC2025/TencentGR-1M and TAAC2025/TencentGR-10M; the candidate table
also with the column names that the organisers' reader (baseline_2025, `infer.py`) expects.
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
_SAMPLED_BYTES = 64 * 1024  # at each end of a large file, for its digest
_LARGE_BYTES = 64 << 20  # larger files are sampled for the digest


def _integer(kind: Any) -> bool:
    # Pandas writes integers with nulls as floats; a column of nulls may have the null type.
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


def _text_or_integer(kind: Any) -> bool:
    return _text(kind) or bool(pt.is_integer(kind) or pt.is_null(kind))


def _flag(kind: Any) -> bool:
    return bool(pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_null(kind))


ID = ColumnType("int64", lambda kind: bool(pt.is_integer(kind)))
RAW_ID = ColumnType("int64, or its decimal string", lambda kind: _text(kind) or bool(pt.is_integer(kind)))
VALUE = ColumnType("int64, nulls allowed", _integer)
VALUES = ColumnType("list<int64>, nulls allowed", lambda kind: bool(pt.is_null(kind)) or _list_of(_integer)(kind))
EVENTS = ColumnType(
    "list<struct<item_id: int64, action_type: int64, timestamp: int64>>",
    _list_of(_struct(item_id=ID.fits, action_type=_integer, timestamp=ID.fits)),
)
VECTOR = ColumnType("list<float>", _list_of(pt.is_floating))

EVENT_COLUMNS = {"user_id": ID, "seq": EVENTS}
ITEM_COLUMNS = {"item_id": ID} | dict.fromkeys(ITEM_FEATURES, VALUE)
USER_COLUMNS = {"user_id": ID} | {name: VALUES if name in LIST_FEATURES else VALUE for name in USER_FEATURES}
_CORE = {"seq": EVENT_COLUMNS, "item_feat": ITEM_COLUMNS, "user_feat": USER_COLUMNS}
EMBEDDING_COLUMNS = {"anonymous_cid": RAW_ID, "emb": VECTOR}
_EVENT_FIELDS = ("item_id", "action_type", "timestamp")
# Ids of the release that say nothing about an ad.
_CANDIDATE_NUMBERS = ("item_id", "creative_id", "reid_creative_id", "retrieval_id")


@dataclass(frozen=True)
class CandidateNaming:
    """One of the two column namings of the candidate table. flag: the field that marks values unseen in training."""

    item: str
    flag: str

    @property
    def columns(self) -> dict[str, ColumnType]:
        """The columns that every part must have."""
        fits = _struct(**{self.flag: _flag, "feature_value": _text_or_integer})
        cell = ColumnType(
            f"struct<{self.flag}: bool, feature_value: string>", lambda kind: bool(pt.is_null(kind)) or fits(kind)
        )
        return {self.item: RAW_ID} | dict.fromkeys(ITEM_FEATURES, cell)


RELEASED = CandidateNaming("item_id", "cold_start")
ORGANISERS = CandidateNaming("creative_id", "is_str")


def candidate_naming(candidates: PartFolder) -> CandidateNaming:
    """The naming of this table; raises DataError where its columns fit neither."""
    first = candidates.parts[0].schema
    item = next((name for name in (ORGANISERS.item, RELEASED.item) if name in first.names), RELEASED.item)
    kind = first.field(ITEM_FEATURES[0]).type if first.names.count(ITEM_FEATURES[0]) == 1 else pa.null()
    organisers = pt.is_struct(kind) and kind.get_field_index(ORGANISERS.flag) >= 0
    naming = CandidateNaming(item, ORGANISERS.flag if organisers else RELEASED.flag)
    candidates.require(naming.columns)
    return naming


@dataclass(frozen=True)
class Release:
    """A complete release: all parts are present, their footers readable, their columns of the right types."""

    root: Path
    events: PartFolder
    item_features: PartFolder
    user_features: PartFolder
    candidates: PartFolder | None
    embeddings: dict[str, PartFolder]

    @property
    def indexer(self) -> Path:
        """Path of the file that maps ids."""
        return self.root / "indexer.pkl"

    def files(self) -> Iterator[Path]:
        """The paths of all files that are read."""
        yield self.indexer
        for folder in (self.events, self.item_features, self.user_features, self.candidates, *self.embeddings.values()):
            if folder is not None:
                yield from (part.path for part in folder.parts)

    def stamps(self) -> dict[Path, tuple[int, int] | None]:
        """Size and modification time (ns) of all files that are read; None for a file that was removed."""
        found = {path: path.stat() if path.exists() else None for path in self.files()}
        return {path: stat and (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}

    def unread(self) -> list[str]:
        """A sentence for each part with columns that are not read."""
        parts = (self.events, self.item_features, self.user_features, self.candidates, *self.embeddings.values())
        return [f"{part.name}: {not_read}" for part in parts if part is not None and (not_read := unread(part))]

    def digest(self, options: str) -> str:
        """sha256 of `options` and of each file's relative path, size and content.

        Of parquet files above 64 MiB only the first and last 64 KiB are read; the end holds the footer with the offset,
        size and value range of every page.
        """
        digest = hashlib.sha256(options.encode())
        for path in sorted(self.files()):
            size = path.stat().st_size
            with path.open("rb") as file:
                if path == self.indexer or size <= _LARGE_BYTES:
                    content = hashlib.file_digest(file, "sha256")
                else:
                    content = hashlib.sha256(file.read(_SAMPLED_BYTES))
                    file.seek(max(0, size - _SAMPLED_BYTES))
                    content.update(file.read(_SAMPLED_BYTES))
            digest.update(f"\0{path.relative_to(self.root).as_posix()}\0{size}\0{content.hexdigest()}".encode())
        return digest.hexdigest()


def open_release(root: Path, embeddings: Sequence[str]) -> Release:
    """The release at `root` with the named embeddings; raises DataError where a part is missing or lacks columns."""
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


def needs_three_actions(root: Path) -> DataError:
    """The error for a release with conversions and the option `actions: 2`."""
    return DataError(f"{root / 'seq'}: has conversions (action_type 2), so it needs actions: 3")


def unread(folder: PartFolder) -> str:
    """Which columns of a part, and which fields of its events, are not read: those that the release does not have.
    Empty where there are none."""
    candidate = (*_CANDIDATE_NUMBERS, *ITEM_FEATURES)
    known = candidate if folder.name == "candidate" else tuple(_CORE.get(folder.name, EMBEDDING_COLUMNS))
    names = folder.others(known)
    if folder.name == "seq":
        fields = dict.fromkeys(
            field.name for part in folder.parts for field in part.schema.field("seq").type.value_type
        )
        names += [f"seq.{name}" for name in fields if name not in _EVENT_FIELDS]
    return f"columns that are not known and not read: {', '.join(names)}" if names else ""


def recognises(root: Path) -> bool:
    """Whether `root` looks like a release, possibly an incomplete one."""
    return root.is_dir() and sum((root / name).exists() for name in ("indexer.pkl", *_CORE)) >= 2


def require_root(root: Path) -> None:
    """Raises DataError unless `root` looks like a release."""
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
        raise DataError(
            f"{root}: has none of indexer.pkl, {', '.join(_CORE)}, so it is not a TencentGR release; {hint}"
        )


def open_core(root: Path, name: str) -> PartFolder:
    """seq, item_feat or user_feat, checked; raises DataError."""
    require_finished(root, name)
    folder = open_folder(root / name, name)
    folder.require(_CORE[name])
    if name == "seq" and not folder.rows:
        raise DataError(f"{root / name}: its parts have no rows; finish the download")
    return folder


def open_candidates(root: Path) -> PartFolder | None:
    """The candidate table, checked; None where the release has no such folder. Raises DataError."""
    if not (root / "candidate").exists():
        return None
    require_finished(root, "candidate")
    folder = open_folder(root / "candidate", "candidate")
    candidate_naming(folder)
    return folder


def embedding_folders(root: Path) -> dict[str, tuple[str, int]]:
    """Folders of mm_emb -> (embedding number, width according to the folder's name)."""
    found = (root / "mm_emb").iterdir() if (root / "mm_emb").is_dir() else iter(())
    matches = {path.name: _EMBEDDING_FOLDER.fullmatch(path.name) for path in sorted(found) if path.is_dir()}
    return {name: (match["id"], int(match["width"])) for name, match in matches.items() if match}


def embedding_folder(root: Path, embedding: str) -> str:
    """The folder in mm_emb of the embedding `81` or `84_32`; raises DataError where there is none or more than one."""
    folders = embedding_folders(root)
    matches = [
        folder for folder, (number, width) in folders.items() if embedding in (number, f"{number}_{width}", folder)
    ]
    if len(matches) > 1:
        choices = ", ".join("{}_{}".format(*folders[folder]) for folder in matches)
        raise DataError(f"{root / 'mm_emb'}: embedding {embedding} exists more than once; choose one of {choices}")
    if not matches:
        available = ", ".join(f"{number} ({width}-d)" for number, width in folders.values()) or "none"
        raise DataError(
            f"{root / 'mm_emb'}: has no folder emb_{embedding}_<width>_parquet; embeddings there: {available}. Choose "
            "with embeddings: [81], none with embeddings: []; `grbench data download` downloads others"
        )
    return matches[0]


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
            raise DataError(f"{path}: is a link to a missing file; finish the download")
