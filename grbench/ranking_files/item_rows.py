"""Files with one line per entry of a list: TREC runs and CSV. They are read in blocks of whole lines."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grbench.errors import RunError, cut, first_line
from grbench.ranking_files.formats import TIED_BEYOND
from grbench.ranking_files.given_lists import EntryCollector, GivenLists
from grbench.ranking_files.id_rows import IdRows
from grbench.types import Progress

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 25
LONGEST_HEADER = 10_000
TRUE = ("1", "true", "True")
TREC_COLUMNS = ("user", "Q0", "item", "rank", "score", "tag")


def read_trec(path: Path, users: IdRows, items: IdRows, report: Progress) -> GivenLists:
    """A TREC run: `user Q0 item rank score tag`. As for trec_eval, the scores order the list and ranks are not used."""
    import pyarrow as pa
    import pyarrow.compute as pc

    entries = EntryCollector()
    kinds = {"user": pa.string(), "item": pa.string(), "score": pa.float64(), "tag": pa.string()}
    for line, block in _blocks(path, report):
        plain = re.sub(rb"[ \t]+", b" ", block)
        plain = re.sub(rb" ?\r?\n ?", b"\n", plain).strip(b" ")
        table = _parsed(path, line, plain, TREC_COLUMNS, kinds, delimiter=" ", quoted=False)
        _append_ids(entries, table, path, users, items)
        entries.tied_beyond.append(pc.ends_with(table["tag"], f":{TIED_BEYOND}").to_numpy())
        entries.scores.append(_scores(table["score"], path, line))
    return entries.lists()


def read_csv(path: Path, users: IdRows, items: IdRows, report: Progress) -> GivenLists:
    """A header, and one row per entry: `user,item,score`, `user,item,rank` or both, of which the scores count; ranks
    are from 1, equal ones are ties. Other columns are not read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    entries, columns = EntryCollector(), list[str]()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    for first, block in _blocks(path, report):
        line, content = first, block
        if not columns:
            header, _, content = block.partition(b"\n")
            columns, line = _header(path, header, delimiter), 2
        by_rank = "score" not in columns
        kinds = {"user": pa.string(), "item": pa.string(), "rank" if by_rank else "score": pa.float64()}
        if TIED_BEYOND in columns:
            kinds[TIED_BEYOND] = pa.string()
        table = _parsed(path, line, content, columns, kinds, delimiter=delimiter, quoted=True)
        tied = pc.is_in(table[TIED_BEYOND], value_set=pa.array(TRUE)) if TIED_BEYOND in columns else None
        _append_ids(entries, table, path, users, items)
        entries.tied_beyond.append(np.zeros(len(table), bool) if tied is None else tied.to_numpy())
        scores = _scores(table["rank" if by_rank else "score"], path, line)
        if by_rank and (wrong := (scores < 1) | (scores != np.floor(scores))).any():
            raise RunError(f"{path}: line {line + int(wrong.argmax())}: rank should be a whole number from 1")
        entries.scores.append(-scores if by_rank else scores)
    return entries.lists()


def _append_ids(entries: EntryCollector, table: pa.Table, path: Path, users: IdRows, items: IdRows) -> None:
    entries.users.append(users.find(table["user"].combine_chunks(), path))
    entries.items.append(items.find(table["item"].combine_chunks(), path))


def _scores(column: pa.ChunkedArray, path: Path, line: int) -> np.ndarray:
    values = np.asarray(column.to_numpy(), np.float64)
    if (wrong := ~np.isfinite(values)).any():
        raise RunError(f"{path}: line {line + int(wrong.argmax())}: a score is missing, NaN or infinite")
    return values


def _blocks(path: Path, report: Progress) -> Iterator[tuple[int, bytes]]:
    """(number of its first line, bytes) of blocks of whole lines."""
    size, done, line, rest = path.stat().st_size, 0, 1, b""
    try:
        with path.open("rb") as file:
            while read := file.read(BLOCK_BYTES):
                done += len(read)
                block, newline, after = (rest + read).rpartition(b"\n")
                rest = after
                if newline:
                    block = block.removeprefix(b"\xef\xbb\xbf") if line == 1 else block
                    yield line, block + newline
                    line += block.count(b"\n") + 1
                    report(f"reading {path.name}", done, size)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    if rest:
        yield line, (rest.removeprefix(b"\xef\xbb\xbf") if line == 1 else rest) + b"\n"
    elif line == 1:
        raise RunError(f"{path}: is empty")


def _header(path: Path, header: bytes, delimiter: str) -> list[str]:
    try:
        columns = next(csv.reader([header[:LONGEST_HEADER].decode().strip("\r")], delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path}: is not a text file in UTF-8 with a header ({first_line(error)})") from error
    needed = {"user", "item"} <= set(columns) and {"score", "rank"} & set(columns)
    if not needed or len(set(columns)) < len(columns):
        raise RunError(
            f"{path}: the first line should name the columns, user,item,score or user,item,rank, each once; it is "
            f"{cut(delimiter.join(columns))!r}"
        )
    return columns


def _parsed(
    path: Path,
    line: int,
    block: bytes,
    columns: Sequence[str],
    kinds: dict[str, pa.DataType],
    *,
    delimiter: str,
    quoted: bool,
) -> pa.Table:
    """The columns of `kinds` of some lines; raises RunError, naming the line, where they cannot be parsed."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if not block.strip():
        return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})

    def parse(*, threads: bool) -> pa.Table:
        return arrow_csv.read_csv(
            pa.BufferReader(block),
            arrow_csv.ReadOptions(column_names=list(columns), block_size=len(block), use_threads=threads),
            arrow_csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False),
            arrow_csv.ConvertOptions(
                column_types=kinds, include_columns=list(kinds), strings_can_be_null=False, null_values=[]
            ),
        )

    try:
        with contextlib.suppress(pa.ArrowException):
            return parse(threads=True)
        return parse(threads=False)  # whose messages have the row
    except (pa.ArrowException, OSError) as error:
        said = first_line(error)
        if found := re.search(r"Row #(\d+): ", said):
            said = f"line {line + int(found[1]) - 1}: {said[found.end() :]}"
        else:
            said = f"from line {line} on: {said}"
        raise RunError(f"{path}: {cut(said, 300)}; a line should be {delimiter.join(columns)}") from error
