"""Damaged logs of interactions, read by `data validate` and into a store."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from fuzzing import Call, damage_bytes, damage_table, damage_tree, reading, try_inputs

from grbench.registry.options import bound_values
from grbench_reference.datasets.interactions.dataset import Interactions

ODD_OPTIONS: tuple[tuple[str, Any], ...] = (
    *(("user", name) for name in ("", "item", "nobody", 0, 7, "é")),
    *(("item", name) for name in (None, "user", "user_id:token", 1, -1)),
    *(("timestamp", name) for name in (None, "item", "action", 2)),
    *(("action", name) for name in ("action", "item", "timestamp", "nothing")),
    *(("history", name) for name in ("user", "action", "history")),
    *(("layout", name) for name in ("table", "json", "pairs", "histories")),
    *(("delimiter", text) for text in (",", ";", "\t", " ", "|", '"')),
    *(("actions", names) for names in ([], ["a"], ["a", "b", "c"], ["a", "a"])),
    *(("time_unit", unit) for unit in ("s", "ms", "us", "ns")),
    *(("file", name) for name in ("*", "log*", "none.csv", "", "..", ["log.csv", "log.csv"])),
    *(("min_events", number) for number in (1, 3, 10**6)),
    *(("ties_seed", seed) for seed in (0, 2**40)),
    ("header", False),
)


def a_table(random: Random) -> pa.Table:
    rows = random.choice((1, 12, 60))
    return pa.table(
        {
            "user": pa.array([random.randrange(5) for _ in range(rows)]),
            "item": pa.array([f"i{random.randrange(8)}" for _ in range(rows)]),
            "timestamp": pa.array([1_745_456_042 + random.randrange(30) for _ in range(rows)]),
            "action": pa.array([random.choice(("view", "click", None)) for _ in range(rows)]),
            "history": pa.array([[f"i{random.randrange(8)}" for _ in range(3)] for _ in range(rows)]),
        }
    )


def text_of(table: pa.Table, delimiter: str) -> bytes:
    """As CSV, values that it cannot write as Python writes them."""
    plain = pa.table(
        [pa.array([None if value is None else str(value) for value in column.to_pylist()]) for column in table.columns],
        names=table.schema.names,
    )
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(plain, sink, pa.csv.WriteOptions(delimiter=delimiter))
    return sink.getvalue().to_pybytes()


def write_log(table: pa.Table, folder: Path, random: Random) -> Path:
    """One file in one of the layouts that the reader knows."""
    match random.randrange(8):
        case 0:
            path = folder / "log.csv"
            path.write_bytes(text_of(table, ","))
        case 1:
            path = folder / random.choice(("log.tsv", "log.inter", "LOG.TSV"))
            path.write_bytes(text_of(table, "\t"))
        case 2:
            path = folder / "log.csv.gz"
            path.write_bytes(gzip.compress(text_of(table, ",")))
        case 3:
            path = folder / "log.csv"
            encoded = text_of(table, ",").decode().encode(random.choice(("utf-16", "latin-1", "utf-8-sig")), "replace")
            path.write_bytes(encoded)
        case 4:
            path = folder / random.choice(("log.json", "log.inter.json"))
            tree: Any = {str(user): [random.randrange(9) for _ in range(5)] for user in range(4)}
            for _ in range(random.randrange(4)):
                damage_tree(tree, random)
            path.write_text(json.dumps(tree))
        case 5:
            path = folder / random.choice(("log.txt", "log.dat"))
            lines = [[random.randrange(9) for _ in range(random.choice((2, 2, 5, 1)))] for _ in range(9)]
            path.write_text("".join(f"{' '.join(map(str, line))}\n" for line in lines))
        case _:
            path = folder / "log.parquet"
            pq.write_table(table, path)
    return path


def damaged_log(random: Random, folder: Path) -> Sequence[Call]:
    table = a_table(random)
    if random.random() < 0.3:
        table = table.drop_columns(["history"])
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        table = damage_table(table, random) if table.num_columns else table
    (folder / "log").mkdir()
    path = write_log(table, folder / "log", random)
    if random.random() < 0.3:
        damage_bytes(path, random)
    if random.random() < 0.1:
        write_log(table, folder / "log", random)
    options: dict[str, Any] = {"path": str(random.choice((path, folder / "log")))}
    options |= dict(random.choice(ODD_OPTIONS) for _ in range(random.randrange(3)))

    def read() -> Interactions:
        return Interactions(**bound_values(Interactions, options, "dataset"))

    return reading(read, folder / "cache")


def test_a_damaged_log_is_read_or_refused(tmp_path: Path) -> None:
    assert try_inputs(damaged_log, tmp_path, 300) >= 300
