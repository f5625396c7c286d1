"""The names that a suite gives its cells, in plans and in the records that there are."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from grbench.errors import RunError
from grbench.results.claims import Claim, claim
from grbench.results.places import at_places, places_of
from grbench.results.record import Record
from grbench.results.record_files import finish_write, read_record, record_path, replace_record

if TYPE_CHECKING:
    from grbench.run.plan import PlannedCell
    from grbench.suite.suite import Suite


def at_all_places(cells: Sequence[PlannedCell], suite: Suite) -> list[PlannedCell]:
    """The cells with blank records that have all places of their experiment: those of these cells, and those that its
    former record has of other methods of the suite, which are not planned this time."""
    planned = {each.cell.method.name for each in cells}
    order = {method: position for position, method in enumerate(suite.methods)}
    blanks: dict[str, list[Record]] = {}
    for each in cells:
        if not each.awaits_tuning:
            blanks.setdefault(each.blank.digest, []).append(each.blank)
    placed = []
    for each in cells:
        if each.awaits_tuning:
            placed.append(each)
            continue
        places = [place for blank in blanks[each.blank.digest] for place in places_of(blank)]
        for place in [] if each.former is None else places_of(each.former):
            if place["method"] in order and place["method"] not in planned:
                places.append({**place, "order": order[place["method"]]})
        placed.append(replace(each, blank=at_places(each.blank, places)))
    return placed


def as_planned(planned: PlannedCell, record: Record) -> Record:
    """The record of a cell at this cell's place alone, with what the suite says of it, and with the suite's metrics
    only."""
    blank = planned.blank
    record = replace(
        at_places(record, places_of(blank)[:1]), suite=blank.suite, title=blank.title, baseline=blank.baseline
    )
    if not blank.metrics:  # a plug-in is broken
        return record
    metrics = {name: record.metrics[name] for name in blank.metrics if name in record.metrics}
    scores = {name: record.scores[name] for name in blank.metrics if name in record.scores}
    return replace(record, metrics=metrics, scores=scores)


def with_present_places(folder: Path, blank: Record, former: Record) -> Record:
    """A finished record at the places that the suite gives its cell now, on disk too: by them, tables of the folder
    have its rows, and know which of a grid is chosen. A record of another suite, one that another process has claimed,
    and one that cannot be written, stay as they are on disk."""
    places = places_of(blank)
    if former.suite != blank.suite or places_of(former) == places_of(at_places(former, places)):
        return former
    with contextlib.suppress(OSError, RunError):
        got = claim(folder, former.digest)
        if isinstance(got, Claim):
            with got:
                finish_write(folder, former.digest)
                replace_record(folder, at_places(read_record(record_path(folder, former.digest)), places))
    return at_places(former, places)
