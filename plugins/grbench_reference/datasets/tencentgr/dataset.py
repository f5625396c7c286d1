"""The dataset `tencentgr`: the public release of TencentGR-1M or TencentGR-10M, or anything laid out like it.

Source: the Tencent Advertising Algorithm Challenge 2025; Hugging Face datasets TAAC2025/TencentGR-1M and -10M.
Items are numbered as the release numbers them (RID 1..N); candidates that it does not number follow as N+1, N+2, ...
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
from grbench_reference.datasets.parquet_parts import PartBatch, PartFolder, raise_it
from grbench_reference.datasets.tencentgr.candidates import CandidateCounts, candidate_features, read_candidate_ids
from grbench_reference.datasets.tencentgr.embeddings import embedding_width, fill_embedding
from grbench_reference.datasets.tencentgr.events import ACTIONS, EventCounts, read_events
from grbench_reference.datasets.tencentgr.features import (
    FeatureProfile,
    feature_rows,
    fill_missing,
    longest_lists,
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
    open_release,
    recognises,
)
from grbench_reference.datasets.tencentgr.validation import validate_release

if TYPE_CHECKING:
    from grbench.data.store import Field
    from grbench.data.store_writer import StoreWriter

# Raised whenever the same source is turned into another store than before.
READER_VERSION = 1


class TencentGR(Dataset):
    """The public TencentGR release, 1M or 10M, read from a folder.

    Args:
        path: the folder that holds indexer.pkl, seq/, item_feat/, user_feat/, candidate/ and mm_emb/; a relative one
            starts at the folder that grbench is called from.
        embeddings: content embeddings to take in, by number (81) or, where one number is there in two widths, by
            number and width ("84_32"); [] takes none.
        actions: 2 (exposure, click) or 3 (and conversion); left out, as many as occur in the data.
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
        """Whether the folder at `path` looks like a release, be it an unfinished one."""
        return recognises(Path(path).expanduser())

    def digest(self) -> str:
        """sha256 over the files that the options select and over the options; raises DataError where one is missing,
        cut short, or has not the release's columns."""
        options = {"reader": READER_VERSION, "embeddings": self._embeddings, "actions": self._actions}
        release = self._open()
        self._stamps = release.stamps()
        return release.digest(json.dumps(options, sort_keys=True))

    def store_bytes(self) -> int:
        """From the footers of the parts. Lists of users' features are taken to be as long as in the first part; every
        candidate counts as one that the catalogue lacks, which makes it rather too much."""
        release = self._open()
        lists = [name for name in USER_FEATURES if name in LIST_FEATURES]
        some_users = dataclasses.replace(release.user_features, parts=release.user_features.parts[:1])
        widths = longest_lists(some_users, lists, report=lambda *_: None)
        candidates = 0 if release.candidates is None else release.candidates.rows
        return store_size(
            events=release.events.values("seq"),
            users=release.events.rows,
            items=(release.item_features.largest("item_id") or release.item_features.rows) + candidates,
            candidates=candidates,
            user_columns=len(USER_FEATURES) - len(lists) + sum(widths.values()),
            item_columns=len(ITEM_FEATURES),
            embeddings=[embedding_width(folder) for folder in release.embeddings.values()],
        )

    def validate(self, progress: Progress) -> list[Finding]:
        """Reads every column of every part, all embeddings included, and says what is there, absent and wrong."""
        return validate_release(self._root, progress)

    def write(self, writer: StoreWriter) -> None:
        """Streams the release into `writer`; raises DataError naming file, column and row, or a file that was changed
        since the digest was taken: the store would be named after other files than those it was made from."""
        release = self._open()
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
                f"{changed[0]}: was changed while it was read; prepare the data again when nothing writes it"
            )

    def _open(self) -> Release:
        if not self._root.exists():
            raise DataError(describe_missing(self._root, self._embeddings))
        return open_release(self._root, self._embeddings)


@dataclass
class _Ingest:
    """One release on its way into one store. `items` finds the rows of raw item ids."""

    writer: StoreWriter
    release: Release
    indexer: Indexer
    items: IdLookup
    item_fields: Sequence[Field] = ()
    item_table: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int32))

    def number_items(self) -> None:
        """The indexer's items keep their RIDs; candidates that it does not know follow, ascending by raw id."""
        if self.release.candidates is None:
            self.writer.notes["candidates"] = f"none: {self.release.root} has no folder candidate/"
            self.writer.set_items(self.indexer.item_ids)
            return
        candidates = read_candidate_ids(self.release.candidates, complain=raise_it, report=self.writer.report)
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
            complain=raise_it,
            counts=counts,
            report=self.writer.report,
        ):
            self.writer.add_users(block.user_ids, block.lengths, block.items, block.actions, block.times)
        if num_actions is not None and counts.actions > num_actions:
            raise DataError(f"{self.release.root / 'seq'}: has conversions (action_type 2), so it needs actions: 3")
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
            self._indexed,
            profiles=profiles,
            complain=raise_it,
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

    def _indexed(self, batch: PartBatch, ids: np.ndarray) -> np.ndarray:
        """RIDs are rows already; raises DataError where one is not the indexer's."""
        wrong = (ids < 1) | (ids > self.indexer.num_items)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            fault = f"the id here is none of 1..{self.indexer.num_items}, which indexer.pkl knows"
            raise batch.error(fault, column="item_id", row=row)
        return ids

    def write_candidate_features(self) -> None:
        """What the candidate table says of an item wins over the catalogue: it is what the ranking is asked of."""
        if self.release.candidates is None:
            return
        counts = CandidateCounts()
        unlike_catalogue = 0
        for rows, codes in candidate_features(
            self.release.candidates,
            self.item_fields,
            self.items,
            counts=counts,
            complain=raise_it,
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
        widths = longest_lists(folder, lists, report=_list_lengths(self.writer.report))
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
            complain=raise_it,
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
        counts = fill_embedding(folder, self.items, values, present, complain=raise_it, report=self.writer.report)
        self.writer.notes.setdefault("embeddings", {})[name] = {
            "folder": folder.name,
            "width": width,
            **_plain(counts),
            "items_without": len(present) - 1 - int(present.sum()),
        }


def _list_lengths(report: Progress) -> Progress:
    return lambda what, done, total: report(f"{what} (lengths of lists)", done, total)


def _plain(counts: Any) -> dict[str, Any]:
    """A dataclass of counts as JSON holds it."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in dataclasses.asdict(counts).items()
    }
