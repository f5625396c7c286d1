"""Damaged files of ranked lists, in each format: each is read, or refused with one message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import Call, damage_bytes, damage_table, damage_tree, try_inputs

from grbench.data.histories import Histories
from grbench.data.split import Queries, Split
from grbench.data.training_data import TrainingData
from grbench.ranking_files.formats import format_of, read_given_lists
from grbench.ranking_files.given_ranking import given_ranking
from grbench.ranking_files.id_rows import IdRows
from grbench.testing import tiny_store

ITEMS = [[20_000_000_002, 20_000_000_004], [20_000_000_001], [20_000_000_003, 20_000_000_001, 20_000_000_002]]
LISTS: dict[str, Any] = {"user": [1000, 1001, 1002], "items": ITEMS, "scores": [[0.5, 0.25], [2.0], [3.0, 2.0, 2.0]]}


def a_split(folder: Path) -> Split:
    store = tiny_store(folder, [[(1, 0, 1)]] * 3, num_items=4)
    histories = Histories(store, np.arange(3), store.offsets[:-1], store.offsets[1:])
    targets = np.array([[1], [2], [4]])
    return Split(
        TrainingData(store.catalogue, histories), None, Queries(histories, targets, targets * 0 + 3, 3), np.arange(1, 5)
    )


def write_damaged(random: Random, folder: Path) -> Path:
    match random.randrange(4):
        case 0:
            table, path = pa.table(LISTS), folder / "lists.parquet"
            if random.random() < 0.8:
                table = damage_table(table, random)
            pq.write_table(table, path)
        case 1:
            path = folder / "lists.json"
            tree = {
                "time": 1.5,
                "user": list(LISTS["user"]),
                "top10s": [[*row] for row in ITEMS],
                "scores": LISTS["scores"],
            }
            tree = json.loads(json.dumps(tree))
            for _ in range(random.choice((0, 1, 1, 2))):
                damage_tree(tree, random)
            path.write_text(json.dumps(tree), encoding="utf-8", errors="surrogatepass")
        case 2:
            path = folder / random.choice(("lists.trec", "lists.run"))
            path.write_text("".join(f"{line} tag\n" for line in lines(" ", "Q0")))
        case _:
            path = folder / random.choice(("lists.csv", "lists.tsv"))
            delimiter = "," if path.suffix == ".csv" else "\t"
            header = delimiter.join(("user", "q", "item", "rank", "score"))
            path.write_text("".join(f"{line}\n" for line in [header, *lines(delimiter, "")]))
    if path.suffix not in (".parquet", ".json") or random.random() < 0.4:
        damage_bytes(path, random)
    return path


def lines(delimiter: str, query: str) -> list[str]:
    return [
        delimiter.join(map(str, (user, query, item, place + 1, score)))
        for user, items, scores in zip(LISTS["user"], ITEMS, LISTS["scores"], strict=True)
        for place, (item, score) in enumerate(zip(items, scores, strict=True))
    ]


def test_a_damaged_file_of_ranked_lists_is_read_or_refused(tmp_path: Path) -> None:
    split = a_split(tmp_path / "store")
    catalogue = split.training.catalogue

    def damaged(random: Random, folder: Path) -> Sequence[Call]:
        path = write_damaged(random, folder)

        def score() -> None:
            users = IdRows(np.asarray(catalogue.user_ids), "user", first_row=0)
            items = IdRows(np.asarray(catalogue.item_ids[1:]), "item", first_row=1)
            lists = read_given_lists(path, format_of(path, None), users, items, lambda *_: None)
            given_ranking(lists, split, path, length=3, empty_if_missing=True, report=lambda *_: None)

        return [score]

    assert try_inputs(damaged, tmp_path, 250) >= 250
