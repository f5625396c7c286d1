"""Damaged TencentGR releases, read by `data validate` and into a store."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import ODD_VALUES, Call, damage_bytes, damage_table, damage_tree, odd_column, reading, try_inputs
from tencentgr_release import write_release

from grbench_reference.datasets.tencentgr.dataset import TencentGR

FOLDERS = ("seq", "item_feat", "user_feat", "candidate", "mm_emb/emb_81_3_parquet")


def damage_indexer(path: Path, random: Random) -> None:
    """Changes what the pickle holds, or cuts it short. Its bytes are not flipped: Python's unpickler
    allocates an array as long as a memo index says, which a flipped byte can make 2^32."""
    if random.random() < 0.3:
        content = path.read_bytes()
        path.write_bytes(content[: random.randrange(len(content))])
        return
    tree: Any = {part: dict(values) for part, values in pickle.loads(path.read_bytes()).items()}
    for _ in range(random.choice((1, 1, 3))):
        damage_tree(tree, random, values=(*ODD_VALUES, (1, 2), 10**9))
    path.write_bytes(pickle.dumps(tree, protocol=random.choice((0, 2, 4))))


def damage_fields(table: pa.Table, random: Random) -> pa.Table:
    """Exchanges one field of a column of structs, or of lists of structs or values; other columns become odd ones."""
    place = random.randrange(table.num_columns)
    column = table.column(place).combine_chunks()
    lists = pa.types.is_list(column.type)
    values = column.values if lists else column
    if pa.types.is_struct(values.type):
        names = [field.name for field in values.type]
        fields = [values.field(name) for name in names]
        fields[random.randrange(len(fields))] = odd_column(len(values), random)
        if random.random() < 0.2:
            names[random.randrange(len(names))] = random.choice(("", "x", names[0]))
        values = pa.StructArray.from_arrays(fields, names=names)
    else:
        values = odd_column(len(values), random)
    changed = pa.ListArray.from_arrays(column.offsets, values) if lists else values
    return table.set_column(place, table.schema.names[place], changed)


def damage_layout(root: Path, random: Random) -> None:
    """A folder or file is missing, empty, of the other kind, or has something strange beside it."""
    path = root / random.choice((*FOLDERS, "mm_emb", "indexer.pkl"))
    match random.randrange(6):
        case 0:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        case 1 if path.is_dir():
            shutil.rmtree(path)
            path.touch()
        case 1:
            path.unlink()
            path.mkdir()
        case 2:
            (path if path.is_dir() else root).joinpath(random.choice(("x.parquet", "part-00001.parquet"))).touch()
        case 3:
            (path if path.is_dir() else root).joinpath("part-00001.parquet").mkdir()
        case 4:
            (root / "DOWNLOAD.json").write_text(json.dumps(random.choice(ODD_VALUES)))
        case _:
            path.rename(path.with_name(f"{path.name}x"))


def damaged_release(random: Random, folder: Path) -> Sequence[Call]:
    root = write_release(folder / "release")
    for name in random.sample((*FOLDERS, "indexer.pkl"), random.choice((1, 1, 2))):
        path = root / name
        part = path / "part-00000.parquet"
        if name == "indexer.pkl":
            damage_indexer(path, random)
        elif random.random() < 0.2:
            damage_bytes(part, random)
        else:
            table = random.choice((damage_table, damage_fields))(pq.read_table(part), random)
            pq.write_table(table, part.with_name("part-00001.parquet") if random.random() < 0.2 else part)
    if random.random() < 0.1:
        damage_layout(root, random)
    embeddings = random.choice(((81,), (81,), (81,), (), ("81_3",), (82,)))

    def read() -> TencentGR:
        return TencentGR(path=root, embeddings=embeddings, actions=random.choice((None, None, 2, 3)))

    return reading(read, folder / "cache")


def test_a_damaged_release_is_read_or_refused(tmp_path: Path) -> None:
    assert try_inputs(damaged_release, tmp_path, 100) >= 100
