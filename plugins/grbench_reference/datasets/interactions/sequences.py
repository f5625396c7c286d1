"""Logs that hold each user's items as one list, oldest first: JSON and lines of text."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from grbench.errors import DataError, cut, first_line
from grbench_reference.datasets.interactions.options import LogLayout
from grbench_reference.datasets.interactions.tables import TextOpener
from grbench_reference.datasets.parquet_parts import readable

_LONGEST_LINE = 1 << 26
_NO_FIELD = "\x1f"  # a character of no text, so that lines are not split


@dataclass(frozen=True)
class ItemLists:
    """users: arrow ids of L lists; lengths: [L] items of each; items: arrow ids of all of them, list by list."""

    users: Any
    lengths: np.ndarray
    items: Any


def read_json(path: Path, text: bytes) -> ItemLists:
    """Reads {user: [item, ...]}; raises DataError where the text is anything else, or has a user twice."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            names = [name for name, _ in pairs]
            again = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{path}: user {cut(repr(again))} occurs twice")
        return content

    try:
        content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({first_line(error)}); it should be {{user: [item, ...]}}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: is a JSON {type(content).__name__}; it should be an object {{user: [item, ...]}}")
    for user, items in content.items():
        if not isinstance(items, list):
            raise DataError(
                f"{path}: user {cut(repr(user))} has {str(items)[:40]!r}; it should be a list of items, oldest first"
            )
    lengths = np.fromiter(map(len, content.values()), np.int64, len(content))
    items = list(itertools.chain.from_iterable(content.values()))
    return ItemLists(pa.array(list(content), pa.large_string()), lengths, _json_ids(items, path))


def read_lines(path: Path, opened: TextOpener, layout: LogLayout) -> ItemLists:
    """Reads `user item` (layout pairs) or `user item item ...` (histories) a line, separated by white space; raises
    DataError naming the line that is not so."""
    with readable(path, "CSV"):
        lines = pyarrow.csv.read_csv(
            opened(),
            pyarrow.csv.ReadOptions(column_names=["line"], block_size=_LONGEST_LINE),
            pyarrow.csv.ParseOptions(delimiter=_NO_FIELD, quote_char=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(column_types={"line": pa.large_string()}),
        )["line"].combine_chunks()
    fields = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines))
    ids, starts = fields.values, np.asarray(fields.offsets)[:-1]
    lengths = np.diff(np.asarray(fields.offsets)) - 1
    blank = np.asarray(pc.equal(ids.take(pa.array(starts)), ""))
    number = np.flatnonzero(~blank)
    if layout == "pairs" and (wrong := number[lengths[number] != 1]).size:
        raise DataError(
            f"{path}, line {wrong[0] + 1}: has {lengths[wrong[0]] + 1} fields; in the layout pairs each line is a user "
            "and an item. Lines with all items of a user are layout: histories; more columns are layout: table"
        )
    users = ids.take(pa.array(starts[number]))
    if layout == "histories" and len(users.unique()) < len(users):
        rows = users.dictionary_encode().indices.to_numpy()
        _, first = np.unique(rows, return_index=True)
        again = int(np.setdiff1d(np.arange(len(rows)), first)[0])
        raise DataError(
            f"{path}, line {number[again] + 1}: user {cut(users[again].as_py())} occurs twice; in the layout histories "
            "a line has all items of a user. One item a line is layout: pairs"
        )
    is_item = np.ones(len(ids), np.bool_)
    is_item[starts] = False
    return ItemLists(users, lengths[number], ids.filter(pa.array(is_item)))


def _json_ids(items: list[Any], path: Path) -> Any:
    """Arrow ids of Python's numbers or texts; whole numbers larger than arrow's become text."""
    try:
        if items and all(type(item) is int for item in items):
            try:
                return pa.array(items, pa.int64())
            except OverflowError:
                return pa.array(list(map(str, items)), pa.large_string())
        return pa.array(items)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise DataError(f"{path}: items should be all numbers or all text ({first_line(error)})") from error
