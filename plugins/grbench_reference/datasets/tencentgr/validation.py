"""The validation of a TencentGR release, for `grbench data validate`: all columns of all parts are read, also after
faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from grbench.errors import DataError
from grbench.types import ACTION_MISSING, FIRST_ACTION, FIRST_VALUE, Finding, Progress
from grbench_reference.datasets.tencentgr.candidates import CandidateCounts, candidate_codes, raw_ids
from grbench_reference.datasets.tencentgr.embeddings import EmbeddingCounts, embedding_width, read_embedding
from grbench_reference.datasets.tencentgr.events import ACTIONS, EventCounts, read_events
from grbench_reference.datasets.tencentgr.features import NULL, FeatureProfile, read_feature_column
from grbench_reference.datasets.tencentgr.id_lookup import IdLookup
from grbench_reference.datasets.tencentgr.indexer import Indexer, read_indexer
from grbench_reference.datasets.tencentgr.layout import (
    ITEM_FEATURES,
    USER_FEATURES,
    candidate_naming,
    embedding_folder,
    embedding_folders,
    needs_three_actions,
    open_candidates,
    open_core,
    open_embedding,
    require_root,
    unread,
)

_EMBEDDINGS = ("81", "82", "83", "84", "85", "86")  # all that the release has
_BATCH_ROWS = 65_536
_ANY_ID = 2**31 - 2  # the largest item id, where the number of items is unknown
_PLAUSIBLE = (946_684_800, 4_102_444_800)  # the years 2000 to 2099 in unix seconds


class _Faults:
    """Records the first fault of one part and counts the others."""

    def __init__(self) -> None:
        self.first: DataError | None = None
        self.count = 0

    def __call__(self, error: DataError) -> None:
        self.first = self.first or error
        self.count += 1

    def finding(self, part: str, rows: int | None, detail: str) -> Finding:
        if self.first is None:
            return Finding(part, "ok", rows, detail)
        more = f" (and {self.count - 1} more faults)" if self.count > 1 else ""
        return Finding(part, "problem", rows, f"{self.first}{more}. {detail}".removesuffix(" "))


def validate_release(root: Path, embeddings: Sequence[str], actions: int | None, progress: Progress) -> list[Finding]:
    """Reads the whole release at `root`; raises DataError only where `root` is not a release.

    embeddings, actions: the options of the dataset, which the release has to go with.
    """
    require_root(root)
    return list(_Validation(root, embeddings, actions, progress).findings())


class _Validation:
    def __init__(self, root: Path, embeddings: Sequence[str], actions: int | None, progress: Progress) -> None:
        self.root, self.embeddings, self.actions, self.progress = root, embeddings, actions, progress
        self.indexer: Indexer | None = None
        self.items: IdLookup | None = None
        self.users = np.empty(0, np.int64)
        self.seen_items: np.ndarray | None = None

    @property
    def num_items(self) -> int:
        return self.indexer.num_items if self.indexer else _ANY_ID

    def findings(self) -> Iterator[Finding]:
        yield from self._guarded("indexer.pkl", self._indexer)
        yield from self._guarded("seq", self._events)
        yield from self._guarded("item_feat", self._item_features)
        yield from self._guarded("user_feat", self._user_features)
        yield from self._guarded("candidate", self._candidates)
        folders = embedding_folders(self.root)
        for name in folders:
            yield from self._guarded(f"mm_emb/{name}", partial(self._embedding, name, folders[name][1]))
        for embedding in sorted(set(_EMBEDDINGS) - {number for number, _ in folders.values()} - {*self.embeddings}):
            yield Finding(
                f"mm_emb/emb_{embedding}", "absent", None, "not downloaded; needed only by suites that name it"
            )
        for embedding in self.embeddings:
            yield from self._guarded(f"mm_emb/emb_{embedding}", partial(self._named_embedding, embedding))

    def _guarded(self, part: str, read: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
        try:
            return read()
        except DataError as error:
            return [Finding(part, "problem", None, str(error))]

    def _indexer(self) -> Sequence[Finding]:
        self.progress("indexer.pkl", 0, 1)
        self.indexer = read_indexer(self.root / "indexer.pkl")
        self.items = IdLookup(self.indexer.item_ids[1:], first_row=1)
        self.seen_items = np.zeros(self.num_items + 1, np.bool_)
        self.progress("indexer.pkl", 1, 1)
        detail = (
            f"{self.indexer.num_items:,} items, {self.indexer.num_users:,} users, "
            f"value ids of {len(self.indexer.vocabulary)} features"
        )
        return [Finding("indexer.pkl", "ok", self.indexer.num_items, detail)]

    def _events(self) -> Sequence[Finding]:
        folder, faults, counts = open_core(self.root, "seq"), _Faults(), EventCounts()
        users = []
        for block in read_events(
            folder, num_items=self.num_items, on_fault=faults, counts=counts, report=self.progress
        ):
            users.append(block.user_ids)
            if self.seen_items is not None:
                self.seen_items[block.items] = True
        self.users = np.concatenate(users)
        if len(repeated := IdLookup(self.users).repeated()):
            faults(DataError(f"{len(repeated)} users have more than one row, such as {repeated[0]}"))
        if not all(time is None or _plausible(time) for time in (counts.first_time, counts.last_time)):
            times = f"timestamps run from {counts.first_time} to {counts.last_time}"
            faults(DataError(f"{times}; they should be unix seconds"))
        if not counts.events:
            faults(DataError(f"{self.root / 'seq'}: has no events"))
        if self.actions is not None and counts.actions > self.actions:
            faults(needs_three_actions(self.root))
        detail = _joined(_describe_events(counts, len(folder.parts)), unread(folder))
        return [faults.finding("seq", folder.rows, detail)]

    def _item_features(self) -> Sequence[Finding]:
        folder, faults = open_core(self.root, "item_feat"), _Faults()
        described = np.zeros(self.num_items + 1, np.bool_) if self.indexer else None
        profiles = {name: FeatureProfile() for name in ITEM_FEATURES}
        read = 0
        for batch in folder.stream(["item_id", *ITEM_FEATURES], batch_rows=_BATCH_ROWS, report=self.progress):
            ids = batch.integers("item_id", null=NULL)
            wrong = (ids < 1) | (ids > self.num_items)
            if wrong.any():
                fault = f"{int(wrong.sum())} id(s) from here on are outside 1..{self.num_items}"
                faults(batch.error(fault, column="item_id", row=int(np.flatnonzero(wrong)[0])))
            if described is not None:
                described[ids[~wrong]] = True
            read += len(ids) - int(wrong.sum())
            for name, profile in profiles.items():
                profile.add(read_feature_column(batch, name, faults))
        detail = f"{len(folder.parts)} part(s)"
        if described is not None and self.seen_items is not None:
            detail += f"; describes {_share(int(described.sum()), self.num_items)} of the indexer's items"
            undescribed = int((self.seen_items & ~described).sum())
            detail += f"; {undescribed:,} items of seq have no row; {read - int(described.sum()):,} rows repeat an item"
        finding = faults.finding("item_feat", folder.rows, _joined(detail, unread(folder)))
        return [finding, *_describe_features("item_feat", profiles)]

    def _user_features(self) -> Sequence[Finding]:
        folder, faults = open_core(self.root, "user_feat"), _Faults()
        lookup = IdLookup(self.users)
        described = np.zeros(len(self.users), np.bool_)
        profiles = {name: FeatureProfile() for name in USER_FEATURES}
        unknown_users = 0
        for batch in folder.stream(["user_id", *USER_FEATURES], batch_rows=_BATCH_ROWS, report=self.progress):
            ids = batch.integers("user_id", null=NULL)
            if (ids == NULL).any():
                faults(batch.error("is null", column="user_id", row=int(np.flatnonzero(ids == NULL)[0])))
            rows = lookup.find(ids)
            described[rows[rows >= 0]] = True
            unknown_users += int((rows < 0).sum())
            for name, profile in profiles.items():
                profile.add(read_feature_column(batch, name, faults))
        detail = (
            f"{len(folder.parts)} part(s); {int((~described).sum()):,} users of seq have no row; "
            f"{unknown_users:,} rows are of users that are not in seq"
        )
        finding = faults.finding("user_feat", folder.rows, _joined(detail, unread(folder)))
        return [finding, *_describe_features("user_feat", profiles)]

    def _candidates(self) -> Sequence[Finding]:
        folder, faults = open_candidates(self.root), _Faults()
        if folder is None:
            missing = "no such folder: all items have to be ranked, which is not the official protocol"
            return [Finding("candidate", "absent", None, missing)]
        naming = candidate_naming(folder)
        extra = [name for name in ("retrieval_id",) if all(name in part.schema.names for part in folder.parts)]
        counts = {name: CandidateCounts() for name in ITEM_FEATURES}
        sizes = self.indexer.vocabulary if self.indexer else {}
        ids = []
        for batch in folder.stream([naming.item, *extra, *ITEM_FEATURES], batch_rows=_BATCH_ROWS, report=self.progress):
            ids.append(raw_ids(batch, naming.item, faults))
            for name in ITEM_FEATURES:
                size = sizes.get(name, _ANY_ID - 1 - FIRST_VALUE) + 1 + FIRST_VALUE
                with batch.reading(name):
                    candidate_codes(batch.array(name), naming.flag, size, counts[name])
        candidates = np.concatenate(ids) if ids else np.empty(0, np.int64)
        repeated = len(candidates) - len(np.unique(candidates))
        detail = f"{len(folder.parts)} part(s), {naming.item} and {naming.flag}; {repeated:,} repeated ids"
        if self.items is not None:
            detail += f"; {int((self.items.find(candidates) < 0).sum()):,} are not in the indexer (cold)"
        rows = folder.rows
        per_feature = [
            Finding(
                f"candidate.{name}",
                "ok",
                rows - count.missing,
                f"{_share(rows - count.missing, rows)} have a value; unknown: {count.flagged_cold:,} flagged, "
                f"{count.not_a_number:,} not a number, {count.beyond_vocabulary:,} beyond the vocabulary",
            )
            for name, count in counts.items()
        ]
        return [faults.finding("candidate", rows, _joined(detail, unread(folder))), *per_feature]

    def _named_embedding(self, embedding: str) -> Sequence[Finding]:
        """Nothing where the release has the embedding; raises DataError where it has not, or several."""
        embedding_folder(self.root, embedding)
        return []

    def _embedding(self, name: str, named_width: int) -> Sequence[Finding]:
        folder, faults, counts = open_embedding(self.root, name), _Faults(), EmbeddingCounts()
        width = embedding_width(folder)
        if width != named_width:
            faults(DataError(f"vectors are {width}-d, the folder's name says {named_width}-d"))
        present = np.zeros(self.num_items + 1, np.bool_) if self.items is not None else None
        not_finite = 0
        for ids, vectors in read_embedding(folder, width, on_fault=faults, counts=counts, report=self.progress):
            finite = np.isfinite(vectors).all(axis=1)
            not_finite += int((~finite).sum())
            if self.items is not None and present is not None:
                rows = self.items.find(ids)
                present[rows[(rows >= 0) & finite]] = True
                counts.unknown_item += int((rows < 0).sum())
        missing = f"{counts.null:,} null and {not_finite:,} with NaN or infinite float16 values count as missing"
        detail = f"{len(folder.parts)} part(s), {width}-d; {missing}"
        if present is not None:
            detail += (
                f"; {counts.unknown_item:,} not in the indexer; "
                f"{_share(int(present.sum()), self.num_items)} of the indexer's items have a vector"
            )
        return [faults.finding(f"mm_emb/{name}", folder.rows, _joined(detail, unread(folder)))]


def _joined(*sentences: str) -> str:
    return "; ".join(filter(None, sentences))


def _describe_events(counts: EventCounts, parts: int) -> str:
    actions = ", ".join(
        f"{name} {_share(int(number), counts.events)}"
        for name, number in zip(ACTIONS[: counts.actions], counts.tokens[FIRST_ACTION:], strict=False)
    )
    times = (
        f"; {_day(counts.first_time)} to {_day(counts.last_time)}"
        if counts.first_time is not None and counts.last_time is not None
        else ""
    )
    return (
        f"{parts} part(s), {counts.users:,} users, {counts.events:,} events, at most {counts.longest_history:,} a user"
        f"{times}; {actions}, no action {_share(int(counts.tokens[ACTION_MISSING]), counts.events)}; "
        f"{counts.events_without_item:,} events without item, {counts.users_without_events:,} users without events, "
        f"{counts.users_sorted_by_time:,} users not sorted by time"
    )


def _describe_features(part: str, profiles: dict[str, FeatureProfile]) -> list[Finding]:
    return [
        Finding(
            f"{part}.{name}",
            "ok" if profile.present or not profile.rows else "absent",
            profile.present,
            f"{_share(profile.present, profile.rows)} have a value; largest {profile.largest:,}"
            + (f"; up to {profile.width} a row, {profile.nulls_in_lists:,} nulls" if profile.width > 1 else ""),
        )
        for name, profile in profiles.items()
    ]


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.2f} %)" if total else f"{count:,}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat() if _plausible(seconds) else str(seconds)


def _plausible(seconds: int) -> bool:
    return _PLAUSIBLE[0] <= seconds <= _PLAUSIBLE[1]
