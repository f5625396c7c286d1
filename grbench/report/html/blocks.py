"""What a report is made of: chapters of sections, sections of blocks, which the template turns into HTML.

All texts are plain: the template escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Tone = Literal["", "good", "bad", "unsure"]
"""What an entry says at a glance; in colour and never in colour alone."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Notes:
    """A list of short lines. title: folded below it where there is one."""

    kind: ClassVar[str] = "notes"
    lines: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class CodeText:
    """Text to be copied, such as a suite or commands. title: folded below it where there is one."""

    kind: ClassVar[str] = "listing"
    text: str
    label: str
    title: str = ""


@dataclass(frozen=True)
class Heading:
    """The heading of a column. part: columns of one part are shown and hidden together; empty = always shown."""

    title: str
    numeric: bool = True
    part: str = ""


@dataclass(frozen=True)
class Entry:
    """A table's entry. order: the number that the column is sorted by, None = by the text; spread: half the width of
    its interval; best: whether it is shown in bold; more: a line below."""

    text: str
    order: float | None = None
    spread: str = ""
    mark: str = ""
    best: bool = False
    tone: Tone = ""
    more: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. filters: whether a reader can search its rows and choose its columns; title: folded below it where there
    is one."""

    kind: ClassVar[str] = "grid"
    caption: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Entry]]
    filters: bool = False
    title: str = ""

    @property
    def parts(self) -> list[str]:
        """The parts of the columns, in order."""
        return list(dict.fromkeys(heading.part for heading in self.headings if heading.part))

    @property
    def ranked(self) -> bool:
        """Whether there are entries in bold and others."""
        best = [any(entry.best for entry in row) for row in self.rows]
        return any(best) and not all(best)


@dataclass(frozen=True)
class ChartView:
    """One of a chart's pictures, of which a reader chooses. label: its name in the choice; figure: as
    `plotly.graph_objects.Figure.to_json` has it; alt: what it shows, for who cannot see it."""

    label: str
    figure: dict[str, Any]
    alt: str


@dataclass(frozen=True)
class Chart:
    """A picture drawn by Plotly. name: unique on the page; choice: what the views differ in; keyed: whether it has a
    list of its series, in which each can be shown and hidden."""

    kind: ClassVar[str] = "chart"
    name: str
    caption: str
    views: Sequence[ChartView]
    choice: str = ""
    keyed: bool = False
    title: str = ""

    @property
    def pictures(self) -> list[dict[str, Any]]:
        """What the page draws, by the places of the views."""
        return [{**view.figure, "alt": view.alt} for view in self.views]


Block = Paragraph | Notes | CodeText | Grid | Chart


@dataclass(frozen=True)
class Section:
    """A part of a chapter. lead: what a reader sees in it; absent: in place of blocks, what would fill it;
    side_by_side: whether blocks stand beside each other where there is room."""

    name: str
    title: str
    lead: str = ""
    blocks: Sequence[Block] = field(default_factory=tuple)
    absent: str = ""
    side_by_side: bool = False


@dataclass(frozen=True)
class Chapter:
    """All that a report says of records that can be compared. facts: (what, value) above the sections."""

    name: str
    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    @property
    def filled(self) -> list[Section]:
        """The sections that there is something to show in."""
        return [section for section in self.sections if section.blocks]

    @property
    def empty(self) -> list[Section]:
        """The others."""
        return [section for section in self.sections if not section.blocks]
