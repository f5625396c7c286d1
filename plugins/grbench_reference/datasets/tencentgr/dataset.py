"""The dataset `tencentgr`: the public release of TencentGR-1M or TencentGR-10M, or data in the same layout.

Source: the Tencent Advertising Algorithm Challenge 2025; Hugging Face datasets TAAC2025/TencentGR-1M and -10M.
Items keep the numbers of the release (RID 1..N); candidates without one are numbered N+1, N+2, ...
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from grbench.data.store import store_size
from grbench.errors import DataError
from grbench.interfaces import Dataset
from grbench.types import Finding, Progress
from grbench_reference.datasets.download.release import describe_missing
from grbench_reference.datasets.parquet_parts import PartBatch, PartFolder, raise_fault
from grbench_reference.datasets.tencentgr.candidates import CandidateCounts, candidate_features, read_candidate_ids
from grbench_reference.datasets.tencentgr.embeddings import embedding_width, fill_embedding
from grbench_reference.datasets.tencentgr.events import ACTIONS, EventCounts, read_events
from grbench_reference.datasets.tencentgr.features import (
    FeatureProfile,
    feature_rows,
    fill_missing,
    longest_list_lengths,
    make_fields,
    release_pages,
)
from grbench_reference.datasets.tencentgr.id_lookup import IdLookup
from grbench_reference.datasets.tencentgr.indexer import Indexer, read_indexer
from grbench_reference.datasets.tencentgr.layout import (
    ITEM_FEATURES,
    LIST_FEATURES,
    USER_FEATURES,
    Release,
    needs_three_actions,
    open_release,
    recognises,
)
from grbench_reference.datasets.tencentgr.validation import validate_release

if TYPE_CHECKING:
    from grbench.data.store import Field
    from grbench.data.store_writer import StoreWriter

# Incremented when the same source gives a different store than before.
READER_VERSION = 1


class TencentGR(Dataset):
    """The public TencentGR release, 1M or 10M, read from a folder.

    Args:
        path: the folder with indexer.pkl, seq/, item_feat/, user_feat/, candidate/ and mm_emb/; relative to the current
            working directory.
        embeddings: content embeddings to read, by number (81) or, where a number exists in two widths, by number and
            width ("84_32"); [] = none.
        actions: 2 (exposure, click) or 3 (also conversion); null = as many as occur in the data.
    """

    def __init__(
        self, *, path: Path, embeddings: Sequence[int | str] = (81,), actions: Literal[2, 3] | None = None
    ) -> None:
        self._root = Path(path).expanduser()
        self._embeddings = tuple(str(embedding) for embedding in embeddings)
        self._actions = actions
        self._stamps: dict[Path, tuple[int, int] | None] | None = None

    @classmethod
    def recognises(cls, path: str | Path) -> bool:
        """Whether the folder at `path` looks like a release, possibly an incomplete one."""
        return recognises(Path(path).expanduser())

    def digest(self) -> str:
        """sha256 of the options and of the files that they select; raises DataError where a file is missing, truncated,
        or lacks columns."""
        options = {"reader": READER_VERSION, "embeddings": self._embeddings, "actions": self._actions}
        release = self._open()
        self._stamps = release.stamps()
        return release.digest(json.dumps(options, sort_keys=True))

    def store_bytes(self) -> int:
        """An estimate from the footers of the parquet files: list features of users are assumed to be as long as in the
        first file, and every candidate to be a new item, which overestimates a little."""
        release = self._open()
        lists = [name for name in USER_FEATURES if name in LIST_FEATURES]
        first_part = dataclasses.replace(release.user_features, parts=release.user_features.parts[:1])
        widths = longest_list_lengths(first_part, lists, report=lambda *_: None)
        candidates = 0 if release.candidates is None else release.candidates.rows
        return store_size(
            events=release.events.num_values("seq"),
            users=release.events.rows,
            items=(release.item_features.largest("item_id") or release.item_features.rows) + candidates,
            candidates=candidates,
            user_columns=len(USER_FEATURES) - len(lists) + sum(widths.values()),
            item_columns=len(ITEM_FEATURES),
            embeddings=[embedding_width(folder) for folder in release.embeddings.values()],
        )

    def validate(self, progress: Progress) -> list[Finding]:
        """Reads all columns of all parts, including all embeddings, and reports what is present, absent and wrong."""
        return validate_release(self._root, self._embeddings, self._actions, progress)

    def no_candidates(self) -> str | None:
        """The folder candidate/, where it is missing."""
        folder = self._root / "candidate"
        return None if folder.exists() else f"{folder}: is missing"

    def stand_in(self) -> dict[str, Any]:
        """Synthetic data in this layout, with three actions unless the option says two; it has no other embedding than
        emb_81."""
        read = [embedding for embedding in self._embeddings if embedding in ("81", "81_32")]
        return {
            "name": "tencentgr_synthetic",
            "users": 1200,
            "items": 600,
            "actions": self._actions or 3,
            "embeddings": read,
        }

    def write(self, writer: StoreWriter) -> None:
        """Streams the release into `writer`. Raises DataError naming file, column and row of a fault, or a file that
        changed after `digest` was called, since the store's name would not match its content."""
        release = self._open()
        writer.remarks += release.unread()
        before = self._stamps or release.stamps()
        writer.report("indexer.pkl", 0, 1)
        indexer = read_indexer(release.indexer)
        writer.report("indexer.pkl", 1, 1)
        ingest = _Ingest(writer, release, indexer, IdLookup(indexer.item_ids[1:], first_row=1))
        ingest.number_items()
        ingest.write_events(self._actions)
        ingest.write_item_features()
        ingest.write_candidate_features()
        ingest.write_user_features()
        for name, folder in release.embeddings.items():
            ingest.write_embedding(name, folder)
        after = release.stamps()
        if changed := sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)):
            raise DataError(
                f"{changed[0]}: was changed while it was read; try again when no other program writes to it"
            )

    def _open(self) -> Release:
        if not self._root.exists():
            raise DataError(describe_missing(self._root, self._embeddings))
        return open_release(self._root, self._embeddings)


@dataclass
class _Ingest:
    """Writes one release into one store. items: rows of raw item ids (OIDs)."""

    writer: StoreWriter
    release: Release
    indexer: Indexer
    items: IdLookup
    item_fields: Sequence[Field] = ()
    item_table: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int32))

    def number_items(self) -> None:
        """Items of the indexer keep their RIDs; candidates that it lacks follow, ascending by raw id."""
        if self.release.candidates is None:
            self.writer.notes["candidates"] = f"none: {self.release.root} has no folder candidate/"
            self.writer.set_items(self.indexer.item_ids)
            return
        candidates = read_candidate_ids(self.release.candidates, on_fault=raise_fault, report=self.writer.report)
        cold = np.unique(candidates[self.items.find(candidates) < 0])
        item_ids = np.concatenate([self.indexer.item_ids, cold])
        if len(cold):
            self.items = IdLookup(item_ids[1:], first_row=1)
        self.writer.set_items(item_ids, num_indexed=self.indexer.num_items)
        rows = self.items.find(candidates)
        self.writer.set_candidates(rows)
        self.writer.notes["candidates"] = {
            "rows": len(rows),
            "repeated": len(rows) - len(np.unique(rows)),
            "cold": len(cold),
        }

    def write_events(self, num_actions: int | None) -> None:
        counts = EventCounts()
        for block in read_events(
            self.release.events,
            num_items=self.indexer.num_items,
            on_fault=raise_fault,
            counts=counts,
            report=self.writer.report,
        ):
            self.writer.add_users(block.user_ids, block.lengths, block.items, block.actions, block.times)
        if num_actions is not None and counts.actions > num_actions:
            raise needs_three_actions(self.release.root)
        self.writer.actions = ACTIONS[: num_actions or counts.actions]
        self.writer.notes["events"] = _plain(counts)

    def write_item_features(self) -> None:
        folder = self.release.item_features
        profiles = {name: FeatureProfile() for name in ITEM_FEATURES}
        columns = make_fields(profiles, self.indexer.vocabulary)
        self.item_table = self.writer.create_item_features(columns)
        fill_missing(self.item_table, columns, first_row=1)
        described = np.zeros(self.indexer.num_items + 1, np.bool_)
        for rows, codes in feature_rows(
            folder,
            "item_id",
            columns,
            self._rows_of_rids,
            profiles=profiles,
            on_fault=raise_fault,
            report=self.writer.report,
        ):
            self.item_table[rows] = codes
            described[rows] = True
        self.item_fields = make_fields(profiles, self.indexer.vocabulary)
        self.writer.set_item_fields(self.item_fields)
        self.writer.notes["item_features"] = {
            "rows": folder.rows,
            "repeated": folder.rows - int(described.sum()),
            "items_without": self.indexer.num_items - int(described.sum()),
        }
        release_pages(self.item_table)

    def _rows_of_rids(self, batch: PartBatch, ids: np.ndarray) -> np.ndarray:
        """The rows of RIDs, which are the RIDs themselves; raises DataError where one is not in the indexer."""
        wrong = (ids < 1) | (ids > self.indexer.num_items)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            fault = f"the id {ids[row]} is not in indexer.pkl, which has 1..{self.indexer.num_items}"
            raise batch.error(fault, column="item_id", row=row)
        return ids

    def write_candidate_features(self) -> None:
        """Features in the candidate table replace those of item_feat, because candidates are what is ranked."""
        if self.release.candidates is None:
            return
        counts = CandidateCounts()
        unlike_catalogue = 0
        for rows, codes in candidate_features(
            self.release.candidates,
            self.item_fields,
            self.items,
            counts=counts,
            on_fault=raise_fault,
            report=self.writer.report,
        ):
            indexed = rows <= self.indexer.num_items
            unlike_catalogue += int((self.item_table[rows[indexed]] != codes[indexed]).sum())
            self.item_table[rows] = codes
        self.writer.notes["candidates"] |= {
            "feature_values": _plain(counts),
            "feature_values_unlike_item_feat": unlike_catalogue,
        }
        release_pages(self.item_table)

    def write_user_features(self) -> None:
        folder = self.release.user_features
        users = IdLookup(self.writer.user_ids)
        if len(repeated := users.repeated()):
            raise DataError(
                f"{self.release.root / 'seq'}: user_id {repeated[0]} has more than one row "
                f"({len(repeated)} such users); each user needs one row"
            )
        lists = [name for name in USER_FEATURES if name in LIST_FEATURES]
        widths = longest_list_lengths(folder, lists, report=_list_lengths(self.writer.report))
        profiles = {name: FeatureProfile(width=widths.get(name, 1)) for name in USER_FEATURES}
        columns = make_fields(profiles, self.indexer.vocabulary)
        table = self.writer.create_user_features(columns)
        fill_missing(table, columns, first_row=0)
        described = np.zeros(len(table), np.bool_)
        matched = 0
        for rows, codes in feature_rows(
            folder,
            "user_id",
            columns,
            lambda _, ids: users.find(ids),
            profiles=profiles,
            on_fault=raise_fault,
            report=self.writer.report,
        ):
            table[rows] = codes
            described[rows] = True
            matched += len(rows)
        self.writer.set_user_fields(make_fields(profiles, self.indexer.vocabulary))
        self.writer.notes["user_features"] = {
            "rows": folder.rows,
            "rows_of_users_without_sequence": folder.rows - matched,
            "users_without": int((~described).sum()),
            "nulls_in_lists": {name: profiles[name].nulls_in_lists for name in lists},
        }
        release_pages(table)

    def write_embedding(self, name: str, folder: PartFolder) -> None:
        width = embedding_width(folder)
        values, present = self.writer.create_embedding(name, width)
        counts = fill_embedding(folder, self.items, values, present, on_fault=raise_fault, report=self.writer.report)
        self.writer.notes.setdefault("embeddings", {})[name] = {
            "folder": folder.name,
            "width": width,
            **_plain(counts),
        }


def _list_lengths(report: Progress) -> Progress:
    return lambda what, done, total: report(f"{what} (lengths of lists)", done, total)


def _plain(counts: Any) -> dict[str, Any]:
    """A dataclass of counts as JSON-ready values."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in dataclasses.asdict(counts).items()
    }
