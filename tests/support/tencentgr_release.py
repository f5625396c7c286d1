"""Writes a TencentGR release by hand, in the public layout: a world of five ads and three users whose every value is
known, and single tables that break it in one way each."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ITEM_FEATURES = ("100", "101", "102", "112", "114", "115", "116", "117", "118", "119", "120", "121", "122")
USER_SCALARS, USER_LISTS = ("103", "104", "105", "109"), ("106", "107", "108", "110")

# Raw ids as large as the release's: in 32 bits they would wrap. The last one is a candidate that nobody has seen.
A, B, C, D, E, COLD = 20001973219, 20000000007, 20001973218, 4294967297, 20005426854, 20009999999
RIDS = {A: 1, B: 2, C: 3, D: 4, E: 5}

EVENT = pa.struct([("item_id", pa.int64()), ("action_type", pa.int64()), ("timestamp", pa.int64())])
T = 1_745_456_042  # seconds, in April 2025

# User 640 comes before user 7, and nobody is user 1. Two events share a time; one has no action.
HISTORIES: dict[int, list[tuple[int | None, int | None, int | None]]] = {
    640: [(3, 0, T), (1, 1, T + 5), (1, None, T + 5), (5, 0, T + 9)],
    7: [(2, 0, T + 1)],
    90: [(4, 1, T), (2, 0, T + 2)],
}
# Feature values by RID; features that are not named are null throughout.
ITEMS: dict[int, dict[str, int | None]] = {
    1: {"100": 6, "115": None, "121": 40},
    2: {"100": None, "115": 2, "121": 41},
    3: {"100": 1, "115": None, "121": 42},
    5: {"100": 0, "115": 1, "121": None},
}
USERS: dict[int, dict[str, Any]] = {
    7: {"103": 46, "106": [4, None, 2], "107": []},
    640: {"103": None, "106": [1], "107": None, "109": 3},
    5555: {"103": 1},
}
VOCABULARY = {"100": 6, "115": 187, "121": 42, "106": 13}
CANDIDATES: dict[int, dict[str, tuple[bool | None, str | None] | None]] = {
    E: {"100": (False, "2"), "115": (False, "1"), "121": (True, "1220085321")},
    COLD: {"100": (False, "6"), "115": None, "121": (False, "43")},
    A: {"100": (False, "6"), "115": (False, None), "121": (False, "forty")},
}
VECTORS: dict[int | str, Sequence[float | None] | None] = {
    C: [0.5, -1.0, 0.25],
    A: [1.0, 2.0, 3.0],
    D: None,
    COLD: [8.0, 8.0, 8.0],
}


def write_release(root: Path) -> Path:
    """The whole world; returns `root`."""
    write_indexer(root)
    write_events(root, HISTORIES)
    write_items(root, ITEMS)
    write_users(root, USERS)
    write_candidates(root, CANDIDATES)
    write_vectors(root, "emb_81_3_parquet", VECTORS)
    return root


def write_table(root: Path, folder: str, columns: Mapping[str, Any], part: str = "part-00000.parquet") -> Path:
    """One part of one folder."""
    path = root / folder / part
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)
    return path


def add_column(folder: Path, name: str, values: pa.Array, part: str = "part-00000.parquet") -> None:
    """Appends a column to a part that is there."""
    pq.write_table(pq.read_table(folder / part).append_column(name, values), folder / part)


def write_indexer(root: Path, rids: Mapping[Any, Any] | None = None, protocol: int = 4) -> Path:
    """indexer.pkl, with the types of the released one: a defaultdict of dicts at `f`."""
    root.mkdir(parents=True, exist_ok=True)
    values: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for feature, size in VOCABULARY.items():
        values[feature] = {int(feature) * 10**7 + value: value for value in range(1, size + 1)}
    content = {
        "f": values,
        "i": dict(RIDS if rids is None else rids),
        "u": {f"user_{number:08d}": number for number in range(1, 641)},
        "a": {1: 1, 0: 2},
    }
    path = root / "indexer.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def write_events(root: Path, histories: Mapping[int | None, Any], part: str = "part-00000.parquet") -> Path:
    """seq: histories are lists of (item, action, time)."""
    names = ("item_id", "action_type", "timestamp")
    rows = [
        None if events is None else [dict(zip(names, event, strict=True)) for event in events]
        for events in histories.values()
    ]
    columns = {"user_id": pa.array(list(histories), pa.int64()), "seq": pa.array(rows, pa.list_(EVENT))}
    return write_table(root, "seq", columns, part)


def write_items(root: Path, items: Mapping[int, Mapping[str, int | None]], part: str = "part-00000.parquet") -> Path:
    """item_feat."""
    columns = {"item_id": pa.array(list(items), pa.int64())}
    for feature in ITEM_FEATURES:
        columns[feature] = pa.array([values.get(feature) for values in items.values()], pa.int64())
    return write_table(root, "item_feat", columns, part)


def write_users(root: Path, users: Mapping[int, Mapping[str, Any]], part: str = "part-00000.parquet") -> Path:
    """user_feat."""
    columns = {"user_id": pa.array(list(users), pa.int64())}
    for feature in USER_SCALARS:
        columns[feature] = pa.array([values.get(feature) for values in users.values()], pa.int64())
    for feature in USER_LISTS:
        columns[feature] = pa.array([values.get(feature) for values in users.values()], pa.list_(pa.int64()))
    return write_table(root, "user_feat", columns, part)


def write_candidates(root: Path, candidates: Mapping[int, Mapping[str, Any]], *, organisers: bool = False) -> Path:
    """candidate, as released, or as the organisers' reader spells it."""
    flag = ("is_str", pa.int64()) if organisers else ("cold_start", pa.bool_())
    number = int if organisers else bool
    cell = pa.struct([flag, ("feature_value", pa.string())])
    ids = pa.array(list(candidates), pa.int64())
    columns: dict[str, Any] = {"retrieval_id": pa.array(range(len(candidates)), pa.int64())}
    if organisers:
        columns |= {"creative_id": ids, "reid_creative_id": pa.array([RIDS.get(oid, 0) for oid in candidates])}
    else:
        columns |= {"item_id": ids}
    for feature in ITEM_FEATURES:
        cells = [values.get(feature) for values in candidates.values()]
        structs = [
            None
            if value is None
            else {flag[0]: None if value[0] is None else number(value[0]), "feature_value": value[1]}
            for value in cells
        ]
        columns[feature] = pa.array(structs, cell)
    return write_table(root, "candidate", columns)


def write_vectors(root: Path, folder: str, vectors: Mapping[Any, Any], part: str = "part-00000.parquet") -> Path:
    """One folder of mm_emb: raw ids are decimal strings."""
    columns = {
        "anonymous_cid": pa.array([None if oid is None else str(oid) for oid in vectors], pa.string()),
        "emb": pa.array(list(vectors.values()), pa.list_(pa.float32())),
    }
    return write_table(root, f"mm_emb/{folder}", columns, part)
