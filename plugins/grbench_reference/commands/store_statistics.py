"""Statistics of a store, for `grbench data stats`. Events are read in blocks; memory is proportional to the items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from grbench.types import ACTION_MISSING, FIRST_ACTION, FIRST_VALUE, UNKNOWN

if TYPE_CHECKING:
    from grbench.data.store import FeatureTable, Store
    from grbench.data.ties import Ties

BLOCK = 1 << 22  # events, or cells of a feature table, read at once


@dataclass(frozen=True)
class StatisticsTable:
    """A table with a title; each row has one text per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def statistics(store: Store) -> list[StatisticsTable]:
    """Tables: overview, actions, popularity, candidates, features and embeddings, as far as the store has them."""
    events = np.zeros(store.catalogue.num_items + 1, np.int64)
    tokens = np.zeros(FIRST_ACTION + len(store.catalogue.actions), np.int64)
    for block in _blocks(len(store.items)):
        events += np.bincount(store.items[block], minlength=len(events))
        tokens += np.bincount(store.actions[block], minlength=len(tokens))
    tables = [_overview(store, events), _actions(store, tokens), _popularity(events[1:])]
    if store.candidates is not None:
        tables.append(_candidates(store, events))
    catalogue = store.catalogue
    for kind, table, rows in (
        ("Item features", catalogue.item_features, slice(1, catalogue.num_indexed + 1)),
        ("User features", catalogue.user_features, slice(0, catalogue.num_users)),
    ):
        if table.fields:
            tables.append(_features(kind, table, rows))
    if catalogue.embeddings:
        tables.append(_embeddings(store))
    return tables


def _blocks(size: int, step: int = BLOCK) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _overview(store: Store, events: np.ndarray) -> StatisticsTable:
    catalogue, lengths = store.catalogue, np.diff(store.offsets)
    new = catalogue.num_items - catalogue.num_indexed
    rows = [
        ("users", f"{catalogue.num_users:,}"),
        ("items", f"{catalogue.num_indexed:,}" + (f", and {new:,} only in the candidate table" if new else "")),
        ("items with an event", _share(int((events[1:] > 0).sum()), catalogue.num_items)),
        ("events", f"{len(store.items):,}"),
        ("events a user", f"mean {lengths.mean():.2f}, median {np.median(lengths):.0f}, most {lengths.max():,}")
        if len(lengths)
        else ("events a user", "none"),
        ("users without events", _share(int((lengths == 0).sum()), len(lengths))),
    ]
    if catalogue.has_times and len(store.times):
        spans = [store.times[block] for block in _blocks(len(store.times))]
        first, last = min(int(span.min()) for span in spans), max(int(span.max()) for span in spans)
        rows.append(("time", f"{_moment(first)} to {_moment(last)} (UTC), {(last - first) / 86_400:.1f} days"))
    if (ties := store.ties) is not None:
        rows += [
            ("events that share their time", _share(ties.events, len(store.items)) + _in_order(ties)),
            ("users with such events", _share(ties.users, catalogue.num_users)),
            ("users whose last event is one", _share(ties.latest, catalogue.num_users)),
        ]
    return StatisticsTable("Overview", ("", ""), tuple(rows))


def _actions(store: Store, tokens: np.ndarray) -> StatisticsTable:
    known = int(tokens[FIRST_ACTION:].sum())
    rows = [
        (name, f"{int(count):,}", _percent(int(count), known))
        for name, count in zip(store.catalogue.actions, tokens[FIRST_ACTION:], strict=True)
    ]
    missing = int(tokens[ACTION_MISSING])
    rows.append(("(no action)", f"{missing:,}", f"{_percent(missing, known + missing)} of all events"))
    return StatisticsTable("Actions", ("action", "events", "share"), tuple(rows))


def _popularity(events: np.ndarray) -> StatisticsTable:
    total, ranked = int(events.sum()), np.sort(events)[::-1]
    rows = [
        (f"events of the top {name}", _percent(int(ranked[:count].sum()), total))
        for name, count in (("10 items", 10), ("1 % of items", max(1, len(events) // 100)))
    ]
    rows += [
        (f"items with {words}", _share(int(within.sum()), len(events)))
        for words, within in (("no event", events == 0), ("at most 5 events", events <= 5), ("over 100", events > 100))
    ]
    return StatisticsTable("Popularity", ("", ""), tuple(rows))


def _candidates(store: Store, events: np.ndarray) -> StatisticsTable:
    assert store.candidates is not None
    pool = np.asarray(store.candidates)
    never = events[pool] == 0
    new = pool > store.catalogue.num_indexed
    rows = (
        ("candidates", f"{len(pool):,}"),
        ("without an event (cold)", _share(int(never.sum()), len(pool))),
        ("not in the indexer", _share(int(new.sum()), len(pool))),
        ("share of all events on candidates", _percent(int(events[pool].sum()), int(events.sum()))),
    )
    return StatisticsTable("Candidates", ("", ""), rows)


def _features(kind: str, table: FeatureTable, rows: slice) -> StatisticsTable:
    values = table.values[rows]
    described = []
    for field in table.fields:
        used, present, unknown, count = np.zeros(field.size, bool), 0, 0, 0
        for block in _blocks(len(values), max(1, BLOCK // field.width)):
            codes = np.asarray(values[block, field.start : field.start + field.width])
            used[codes.ravel()] = True
            present += int((codes >= FIRST_VALUE).any(axis=1).sum())
            unknown += int((codes == UNKNOWN).any(axis=1).sum())
            count += int((codes >= FIRST_VALUE).sum())
        described.append(
            (
                field.name,
                _percent(present, len(values)),
                f"{int(used[FIRST_VALUE:].sum()):,}",
                f"{unknown:,}",
                f"{count / present:.2f} of at most {field.width}" if field.width > 1 and present else "1",
            )
        )
    return StatisticsTable(kind, ("feature", "coverage", "values", "unknown", "values each"), tuple(described))


def _embeddings(store: Store) -> StatisticsTable:
    catalogue, rows = store.catalogue, []
    for name, embedding in catalogue.embeddings.items():
        indexed = np.asarray(embedding.present[1 : catalogue.num_indexed + 1])
        pool = (
            ""
            if store.candidates is None
            else _percent(int(np.asarray(embedding.present)[store.candidates].sum()), len(store.candidates))
        )
        rows.append((name, f"{embedding.values.shape[1]:,}", _percent(int(indexed.sum()), len(indexed)), pool))
    return StatisticsTable("Embeddings", ("embedding", "width", "coverage of items", "of candidates"), tuple(rows))


def _in_order(ties: Ties) -> str:
    return f", in {ties.broken_by.replace('_', ' ')}" if ties.events else ""


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({_percent(part, whole)})"


def _moment(seconds: int) -> str:
    if not 0 <= seconds < 2**35:  # not a plausible time
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
