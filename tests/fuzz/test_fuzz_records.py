"""Damaged folders of results, made into tables and a data frame, and damaged files of lists, made into rankings."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import Call, damage_bytes, damage_table, damage_tree, try_inputs
from rich.console import Console

from grbench.data.histories import Histories
from grbench.data.split import Queries, Split
from grbench.data.training_data import TrainingData
from grbench.report.frame import load_results
from grbench.report.render import FORMATS, print_tables, render
from grbench.report.table import tables
from grbench.results.lists import lists_table, rankings_from, read_lists
from grbench.results.record_files import read_records
from grbench.testing import tiny_store
from grbench.types import Ranking

ROOT = Path(__file__).parents[2]
SAMPLES = [ROOT / "results" / "sample" / "quickstart", ROOT / "tests" / "results" / "version_1"]


def damage_content(path: Path, random: Random) -> None:
    """Changes some fields of a record, by preference those near its top, and writes it as Python writes JSON."""
    tree: Any = json.loads(path.read_text())
    for _ in range(random.choice((1, 1, 2, 8))):
        inside = tree.get(random.choice(list(tree)))
        damage_tree(random.choice((tree, {"": 0} if not isinstance(inside, dict | list) else inside)) or tree, random)
    path.write_text(json.dumps(tree))


def damage_place(path: Path, random: Random) -> None:
    """The record or its lists are missing, renamed, repeated, a folder, or among other JSON files."""
    lists = path.with_suffix(".parquet")
    match random.randrange(7):
        case 0:
            lists.unlink()
        case 1:
            path.rename(path.with_name(random.choice(("x.json", "é.json", "0123456789abcdef.json", "a.b.json"))))
        case 2:
            shutil.copytree(path.parent, path.parent / "copy")
        case 3:
            path.unlink()
            path.mkdir()
        case 4:
            path.with_name("stray.json").write_text(random.choice(("", "{}", "[[", '{"schema": 2}', '{"schema": "2"}')))
        case 5:
            path.with_name("broken.json").symlink_to("nowhere")
        case _:
            path.with_suffix(".d").mkdir()
            path.rename(path.with_suffix(".d") / path.name)


def damaged_results(random: Random, folder: Path) -> Sequence[Call]:
    results = shutil.copytree(random.choice((SAMPLES[0], SAMPLES[0], SAMPLES[1])), folder / "results")
    path = random.choice(sorted(results.glob("*.json")))
    kinds = (damage_content, damage_content, damage_content, damage_bytes, damage_place)
    random.choice(kinds)(path, random)

    def show() -> None:
        made = tables(read_records([results]))
        for form in FORMATS:
            render(made, form)
        print_tables(made, Console(file=io.StringIO(), force_terminal=True, width=random.choice((20, 80, 200))))

    return show, lambda: load_results(results)


def a_split(folder: Path) -> tuple[Split, pa.Table]:
    """Two queries and the lists that were ranked for them."""
    store = tiny_store(folder, [[(2, 0, 1)], [(1, 1, 1), (3, 1, 2)]], num_items=4)
    users = np.array([1, 0])
    histories = Histories(store, users, store.offsets[users], store.offsets[users + 1])
    queries = Queries(histories, np.array([[3, 0], [1, 2]]), np.array([[3, 0], [2, 1]]), next_action=3)
    training = TrainingData(store.catalogue, histories)
    scored = Ranking(
        users=users,
        items=np.array([[3, 1], [2, 0]]),
        scores=np.array([[0.5, 0.25], [1.0, -np.inf]], np.float32),
        targets=queries.targets,
        target_actions=queries.target_actions,
        ranks=np.array([[1, 0], [0, 1]]),
        actions=("exposure", "click"),
        pool=3,
        history_lengths=histories.lengths,
        training=training,
    )
    lists = lists_table(scored, store.catalogue.user_ids, store.catalogue.item_ids, scored)
    return Split(training, None, queries, np.array([1, 2, 3])), lists


def test_a_damaged_folder_of_results_is_shown_or_refused(tmp_path: Path) -> None:
    assert try_inputs(damaged_results, tmp_path, 100) >= 100


def test_a_damaged_file_of_lists_is_read_or_refused(tmp_path: Path) -> None:
    split, lists = a_split(tmp_path / "store")

    def damaged_lists(random: Random, folder: Path) -> Sequence[Call]:
        table, path = lists, folder / "lists.parquet"
        if random.random() < 0.3:
            metadata = json.loads(table.schema.metadata[b"grbench"])
            damage_tree(metadata, random)
            table = table.replace_schema_metadata({"grbench": json.dumps(metadata)})
        elif random.random() < 0.7:
            table = damage_table(table, random)
        pq.write_table(table, path)
        if random.random() < 0.3:
            damage_bytes(path, random)
        return [lambda: rankings_from(read_lists(path), split, path)]

    assert try_inputs(damaged_lists, tmp_path, 250) >= 250
