"""Users, items, events and targets of files as the field ships them are those that pandas counts in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from logs import store_of

from grbench_reference.protocols.leave_last_out import LeaveLastOut


def shuffled_log() -> pd.DataFrame:
    """400 events of 40 users, with times to the tenth of a second, in no order."""
    rng = np.random.default_rng(0)
    moments = rng.permutation(400) / 10 + 1_600_000_000
    return pd.DataFrame({"user": rng.integers(0, 40, 400), "item": rng.integers(0, 90, 400), "timestamp": moments})


def write_lists(log: pd.DataFrame, path: Path) -> None:
    path.write_text("".join(f"{user} {' '.join(map(str, each.item))}\n" for user, each in log.groupby("user")))


def write_json(log: pd.DataFrame, path: Path) -> None:
    path.write_text(json.dumps({str(user): each.item.tolist() for user, each in log.groupby("user")}))


@pytest.mark.parametrize(
    ("name", "options", "write", "timed"),
    [
        ("log.csv", {}, lambda log, path: log.to_csv(path, index=False), True),
        ("log.csv.gz", {"delimiter": ";"}, lambda log, path: log.to_csv(path, index=False, sep=";"), True),
        ("log.tsv", {}, lambda log, path: log.assign(note='"').to_csv(path, index=False, sep="\t", quoting=3), True),
        (
            "log.csv",
            {"header": False, "user": 0, "item": 1, "timestamp": 2},
            lambda log, path: log.to_csv(path, index=False, header=False),
            True,
        ),
        (
            "log.csv",
            {},
            lambda log, path: log.assign(timestamp=pd.to_datetime(log.timestamp, unit="s")).to_csv(path, index=False),
            True,
        ),
        ("log.parquet", {}, lambda log, path: log.to_parquet(path), True),
        ("log.json", {}, write_json, False),
        ("log.txt", {"layout": "histories"}, write_lists, False),
        (
            "log.txt",
            {"layout": "pairs"},
            lambda log, path: log[["user", "item"]].to_csv(path, index=False, header=False, sep=" "),
            False,
        ),
    ],
)
def test_counts_and_targets_are_those_of_pandas(
    tmp_path: Path, name: str, options: Any, write: Callable[[pd.DataFrame, Path], None], timed: bool
) -> None:
    log = shuffled_log()
    write(log, tmp_path / name)
    ordered = log.sort_values("timestamp") if timed else log
    by_user = ordered.groupby("user")
    expected = by_user.item.last()[by_user.size() >= 3]

    store = store_of(tmp_path / name, tmp_path / "cache", **options)
    test = LeaveLastOut().split(store).test
    assert store.catalogue.num_users == log.user.nunique()
    assert store.catalogue.num_items == log.item.nunique()
    assert len(store.items) == len(log)
    users, targets = store.catalogue.user_ids[test.users], store.catalogue.item_ids[test.targets[:, 0]]
    assert dict(zip(users.tolist(), targets.tolist(), strict=True)) == expected.to_dict()
