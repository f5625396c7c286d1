"""Writes ranked lists in each of the formats that `formats` describes, and targets as TREC qrels.

Shapes: L lists, E entries of all lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from grbench.errors import RunError, cut, first_line
from grbench.ranking_files.formats import TIED_BEYOND
from grbench.temporary import beside
from grbench.types import Progress

if TYPE_CHECKING:
    import pyarrow as pa

LISTS_AT_ONCE = 1 << 14
TAG = "grbench"


@dataclass(frozen=True)
class ListsToWrite:
    """users: arrow [L], ids in the source; items, scores, targets: arrow lists [L]; tied_beyond: [L] bool, whether a
    tie of the last score goes on beyond the list."""

    users: pa.Array
    items: pa.Array
    scores: pa.Array
    targets: pa.Array
    tied_beyond: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


def write_lists(lists: ListsToWrite, path: Path, form: str, report: Progress) -> None:
    """Writes the lists to `path`, which is there only once it is complete. Raises RunError where it cannot be written,
    or an id does not go into the format."""
    writers = {"parquet": _write_parquet, "trec": _write_trec, "json": _write_json, "csv": _write_csv}

    def write(file: IO[bytes]) -> None:
        writers[form](lists, file, "\t" if path.suffix.lower() == ".tsv" else ",", report)

    _atomically(path, write)


def write_qrels(lists: ListsToWrite, path: Path) -> None:
    """The targets as TREC qrels: `user 0 item 1`."""
    import pyarrow as pa

    owners, _ = _entries(lists.targets)
    targets = lists.targets.flatten()
    one = np.ones(len(owners), np.int8)
    columns = {"user": lists.users.take(owners), "zero": pa.array(one - 1), "item": targets, "relevance": pa.array(one)}

    _atomically(path, lambda file: _write_text(pa.table(columns), file, " ", "TREC qrels"))


def _write_parquet(lists: ListsToWrite, file: IO[bytes], delimiter: str, report: Progress) -> None:  # noqa: ARG001
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"user": lists.users, "items": lists.items, "scores": lists.scores, TIED_BEYOND: lists.tied_beyond}
    pq.write_table(pa.table(columns), file, compression="zstd", write_page_checksum=True)


def _write_trec(lists: ListsToWrite, file: IO[bytes], delimiter: str, report: Progress) -> None:  # noqa: ARG001
    import pyarrow as pa

    for part, owners, places in _parts(lists, report):
        tags = np.where(part.tied_beyond, f"{TAG}:{TIED_BEYOND}", TAG).astype(object)
        columns = {
            "user": part.users.take(owners),
            "Q0": pa.array(["Q0"] * len(places)),
            "item": part.items.flatten(),
            "rank": pa.array(places + 1),
            "score": part.scores.flatten(),
            "tag": pa.array(tags, pa.string()).take(owners),
        }
        _write_text(pa.table(columns), file, " ", "a TREC run")


def _write_csv(lists: ListsToWrite, file: IO[bytes], delimiter: str, report: Progress) -> None:
    import pyarrow as pa

    file.write(delimiter.join(["user", "item", "rank", "score", TIED_BEYOND]).encode() + b"\n")
    for part, owners, places in _parts(lists, report):
        columns = {
            "user": part.users.take(owners),
            "item": part.items.flatten(),
            "rank": pa.array(places + 1),
            "score": part.scores.flatten(),
            TIED_BEYOND: pa.array(part.tied_beyond.astype(np.int8)).take(owners),
        }
        _write_text(pa.table(columns), file, delimiter, "CSV", quoted=True)


def _write_json(lists: ListsToWrite, file: IO[bytes], delimiter: str, report: Progress) -> None:  # noqa: ARG001
    """Key by key, block by block, so that no more than a block is in memory as text."""
    import pyarrow as pa

    columns = {
        "user": lists.users,
        "top10s": lists.items,
        "scores": lists.scores,
        TIED_BEYOND: pa.array(lists.tied_beyond),
    }
    for number, (key, column) in enumerate(columns.items()):
        file.write(f'{"," if number else "{"}\n"{key}": ['.encode())
        for first in range(0, len(column), LISTS_AT_ONCE):
            text = json.dumps(column.slice(first, LISTS_AT_ONCE).to_pylist(), separators=(",", ":"), ensure_ascii=False)
            file.write((", " * bool(first) + text[1:-1]).encode())
            report("writing", number * len(column) + first, len(columns) * len(column))
        file.write(b"]")
    file.write(b"\n}\n")


def _parts(lists: ListsToWrite, report: Progress) -> Iterator[tuple[ListsToWrite, pa.Array, np.ndarray]]:
    """(some of the lists, the list of each entry, the place of each entry from 0)."""
    for first in range(0, len(lists), LISTS_AT_ONCE):
        part = ListsToWrite(
            users=lists.users.slice(first, LISTS_AT_ONCE),
            items=lists.items.slice(first, LISTS_AT_ONCE),
            scores=lists.scores.slice(first, LISTS_AT_ONCE),
            targets=lists.targets.slice(first, LISTS_AT_ONCE),
            tied_beyond=lists.tied_beyond[first : first + LISTS_AT_ONCE],
        )
        owners, places = _entries(part.items)
        yield part, owners, places
        report("writing", first + len(part), len(lists))


def _entries(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """(the list of each entry [E], the place of each entry from 0 [E])."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    owners = np.repeat(np.arange(len(lengths)), lengths)
    return pa.array(owners), np.arange(len(owners)) - starts[owners]


def _write_text(table: pa.Table, file: IO[bytes], delimiter: str, what: str, *, quoted: bool = False) -> None:
    """Writes rows without a header. Raises RunError for ids that the format cannot hold."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    for name in ("user", "item"):
        if not quoted and pa.types.is_string(table[name].type) | pa.types.is_large_string(table[name].type):
            odd = pc.match_substring_regex(table[name], r"\s|^$")
            if (count := pc.sum(odd).as_py() or 0) > 0:
                first = table[name].filter(odd)[0].as_py()
                raise RunError(
                    f"{count:,} {name} ids have spaces, which {what} cannot hold, the first is {cut(first)!r}; use "
                    "another format"
                )
    style = "needed" if quoted else "none"
    try:
        csv.write_csv(table, file, csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style=style))
    except pa.ArrowException as error:
        raise RunError(f"an id cannot be written as {what} ({first_line(error)}); use another format") from error


def _atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Calls `write` with a temporary file beside `path`, which becomes `path` once it is complete."""
    try:
        with beside(path) as partial:
            with partial.open("wb") as file:
                write(file)
            partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
