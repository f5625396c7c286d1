"""`result.json` of the Tencent Advertising Algorithm Challenge 2025: {"user": [...], "top10s": [[...], ...]}, in which
user i has list i. What else the file holds, such as the contest's `time`, is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grbench.errors import RunError, first_line
from grbench.ranking_files.formats import TIED_BEYOND
from grbench.ranking_files.given_lists import GivenLists, ListCollector
from grbench.ranking_files.id_rows import IdRows
from grbench.ranking_files.list_rows import append_lists
from grbench.types import Progress

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = (1 << 31) - 2
"""Bytes that arrow parses as one value."""

SHAPE = 'it should be {"user": [id, ...], "top10s": [[item, ...], ...]}'


def read_contest_json(path: Path, users: IdRows, items: IdRows, report: Progress) -> GivenLists:
    """Also reads `scores`, [[number, ...], ...], and `tied_beyond`, [true, ...], which `grbench export` writes."""
    size = path.stat().st_size
    if size > LARGEST:
        raise RunError(f"{path}: is larger than 2 GiB, which is more than is read of a JSON file; write it as parquet")
    report(f"reading {path.name}", 0, size)
    content = _content(path)
    columns = {"user": content["user"], "items": content["top10s"]}
    columns |= {name: content[name] for name in ("scores", TIED_BEYOND) if name in content}
    numbers = {name: len(column) for name, column in columns.items()}
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{count:,} of {'top10s' if name == 'items' else name}" for name, count in numbers.items())
        raise RunError(f"{path}: each user needs one entry of each key, and there are {said}")
    lists = ListCollector()
    append_lists(lists, columns, path, users, items, zero_is_none=True)
    report(f"reading {path.name}", size, size)
    return lists.lists(have_scores="scores" in columns)


def _content(path: Path) -> dict[str, Any]:
    """{key: arrow array} of the file's one mapping."""
    import pyarrow as pa

    try:
        table = _table(path, {})
        # Arrow takes text that looks like a time for one.
        times = [field.name for field in table.schema if _holds_times(field.type)]
        if times:
            table = _table(path, {name: _as_text(table.schema.field(name).type) for name in times})
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        said = first_line(error)
        if "changed from" in said:
            raise RunError(f"{path}: mixes types, such as numbers and text ({said}); {SHAPE}") from error
        raise RunError(f"{path}: is not JSON of ranked lists ({said}); {SHAPE}") from error
    if table.num_rows != 1 or not {"user", "top10s"} <= set(table.column_names):
        raise RunError(f"{path}: is not JSON of ranked lists; {SHAPE}")
    known = [name for name in ("user", "top10s", "scores", TIED_BEYOND) if name in table.column_names]
    content = {}
    for name in known:
        column = table[name].combine_chunks()
        if not pa.types.is_list(column.type) or column.null_count:
            raise RunError(f"{path}: {name} should be a list; {SHAPE}")
        content[name] = column.flatten()
    return content


def _table(path: Path, kinds: dict[str, pa.DataType]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    return json.read_json(
        path,
        json.ReadOptions(use_threads=False, block_size=max(path.stat().st_size + 1, 1 << 10)),
        json.ParseOptions(
            explicit_schema=pa.schema(kinds.items()) if kinds else None,
            newlines_in_values=True,
            unexpected_field_behavior="infer",
        ),
    )


def _holds_times(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or (pa.types.is_list(kind) and _holds_times(kind.value_type)))


def _as_text(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(_as_text(kind.value_type)) if pa.types.is_list(kind) else pa.string()
