"""The places of a record in its suite.

A cell's digest knows no names: methods with the same options, such as a row of a grid and a method beside it, are one
experiment, which is run once and has one record. The record has the names of all of them, and tables a row for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from grbench.results.record import Record

KEYS = ("method", "order", "tuning", "grid", "published")
"""What a record says of a place: these fields of its own, and each entry of `also`."""


def places_of(record: Record) -> list[dict[str, Any]]:
    """All its places, each with all KEYS; its own first."""
    own = {key: getattr(record, key) for key in KEYS}
    return [own, *({key: place[key] for key in KEYS} for place in record.also)]


def at_places(record: Record, places: Iterable[Mapping[str, Any]]) -> Record:
    """The record at these places alone. Its own is that of its method, or else the first in the suite's order. Of two
    places of one method, the first that is given counts."""
    by_method: dict[str, Mapping[str, Any]] = {}
    for place in places:
        by_method.setdefault(place["method"], place)
    ordered = sorted(by_method.values(), key=lambda place: (place["method"] != record.method, place["order"]))
    own, *others = ({key: place[key] for key in KEYS} for place in ordered)
    return replace(record, **own, also=others)


def at_each_place(record: Record) -> list[Record]:
    """A record for each of its places, which has no other."""
    return [replace(record, **place, also=[]) for place in places_of(record)] if record.also else [record]


def shows_scores(record: Record) -> bool:
    """Whether a cell's test scores may be shown by themselves: not those of a trial, or of a row of a grid that is
    chosen from and no other method."""
    chosen_from = all(place["grid"] is not None and not place["grid"]["ablation"] for place in places_of(record))
    return record.trial is None and not (chosen_from and record.validation)
