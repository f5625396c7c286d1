"""The formats of files of ranked lists, and which one a file has.

parquet: one row per user: `user`, `items` (best first), and where there are scores `scores`. The file of lists beside a
         record is one.
trec:    a TREC run: `user Q0 item rank score tag`, separated by spaces or tabs; the scores order the list.
json:    `result.json` of the Tencent Advertising Algorithm Challenge 2025: {"user": [...], "top10s": [[...], ...]}, and
         where there are scores `scores`, a list per user. Item 0 at the end of a list means that there is none.
csv:     a header, and one row per item: `user,item,score` or `user,item,rank`; .tsv has tabs.

Whether a tie of the last score goes on beyond the list, so that the rank of a target in it is beyond the list too, is
said by the column `tied_beyond` (parquet, csv: 1), the key `tied_beyond` (json), or a tag that ends in `:tied_beyond`
(trec). `grbench export` writes it, so that scoring its files gives the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.errors import RunError
from grbench.types import Progress

if TYPE_CHECKING:
    from grbench.ranking_files.given_lists import GivenLists
    from grbench.ranking_files.id_rows import IdRows

FORMATS = ("parquet", "trec", "json", "csv")
FORMAT_OF_SUFFIX = {
    ".parquet": "parquet",
    ".trec": "trec",
    ".run": "trec",
    ".txt": "trec",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
}

TIED_BEYOND = "tied_beyond"


def format_of(path: Path, form: str | None) -> str:
    """`form`, or without it the format that the file's suffix stands for; raises RunError where that is none."""
    if form is not None:
        return form
    if (known := FORMAT_OF_SUFFIX.get(path.suffix.lower())) is None:
        raise RunError(
            f"{path}: its suffix stands for no format of lists; give --format {'|'.join(FORMATS)}, or one of the "
            f"suffixes {', '.join(FORMAT_OF_SUFFIX)}"
        )
    return known


def read_given_lists(path: Path, form: str, users: IdRows, items: IdRows, report: Progress) -> GivenLists:
    """The lists of a file in one of FORMATS. users, items: find rows of the store by the source's ids.

    Raises RunError, naming the file and, where it can be known, the line, for anything that is not such a file, and for
    users or items that the dataset does not have.
    """
    from grbench.ranking_files.contest_json import read_contest_json
    from grbench.ranking_files.item_rows import read_csv, read_trec
    from grbench.ranking_files.list_rows import read_parquet

    readers: dict[str, Callable[[Path, IdRows, IdRows, Progress], GivenLists]] = {
        "parquet": read_parquet,
        "trec": read_trec,
        "json": read_contest_json,
        "csv": read_csv,
    }
    if not path.is_file():
        raise RunError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give a file of ranked lists")
    given = readers[form](path, users, items, report)
    for ids in (users, items):
        ids.raise_unknown(path)
    if not len(given.users):
        raise RunError(f"{path}: holds no lists")
    return given
