"""How figures look: sizes of a paper, fonts that are part of the file, and styles that stay apart without colour."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from grbench.errors import RunError, cut
from grbench.output import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

WIDTHS = {"column": 3.33, "page": 7.0}
"""Inches: a column and the text of a page in the two-column layout of ACM's proceedings."""
NARROWEST, WIDEST = 2.0, 20.0
"""Inches that a width may have."""

TEXT, SMALL = 8, 7
"""Points: axis labels, and names and ticks."""
FONT = "DejaVu Sans"
"""It comes with matplotlib, so that a file is the same on every machine."""
LINE = 0.8
"""Points of a line of data."""

TITLE_LINE = TEXT * 1.5 / 72
"""Inches of a line of a title."""

INK, FAINT, LIGHT = "#222222", "#777777", "#cccccc"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette for all kinds of colour vision (Color Universal Design, 2008), without its yellow, which is
too light for lines on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "p", "<", ">")
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))

_BREAKS = re.compile(r"(?<=[\s_,=/-])|(?=[\[(])")
"""Where a name may be broken: behind signs that part words, and before brackets."""

RC = {
    "font.family": FONT,
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "legend.fontsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": False,
    "grid.color": LIGHT,
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.4,
    "legend.borderaxespad": 0.2,
    "text.parse_math": False,  # names are shown as they are, dollars and all
    "pdf.fonttype": 42,  # TrueType: publishers refuse the default, Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "path",  # labels keep their places and widths whatever fonts the reader has
    "svg.hashsalt": "grbench",  # ids inside the file do not change from run to run
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class LineStyle:
    """One row's colour, marker and dashes. No two of 63 rows have the same colour and marker."""

    colour: str
    marker: str
    dashes: str | tuple[float, tuple[float, ...]]


def line_styles(count: int) -> list[LineStyle]:
    """A style for each of `count` rows."""
    return [
        LineStyle(
            COLOURS[place % len(COLOURS)],
            MARKERS[(place + place // (len(COLOURS) * len(MARKERS))) % len(MARKERS)],
            DASHES[(place + place // len(COLOURS)) % len(DASHES)],
        )
        for place in range(count)
    ]


def inches(width: str) -> float:
    """The width that `column`, `page` or a number of inches stands for. Raises RunError for others."""
    try:
        size = WIDTHS[width] if width in WIDTHS else float(width)
    except ValueError:
        size = float("nan")
    if not NARROWEST <= size <= WIDEST:
        raise RunError(
            f"--width {cut(width)}: write column ({WIDTHS['column']} inches), page ({WIDTHS['page']} inches), or "
            f"a number of inches from {NARROWEST:g} to {WIDEST:g}"
        )
    return size


@contextmanager
def paper_style() -> Iterator[None]:
    """matplotlib's own defaults with RC, whatever the user's settings are."""
    try:
        import matplotlib.style
    except ImportError as error:
        raise RunError("pictures for papers need matplotlib: pip install 'grbench[plots]'") from error
    with matplotlib.style.context(["default", RC], after_reset=True):
        yield


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on. width: inches; title: above it, empty for none."""

    width: float
    title: str = ""

    @property
    def title_lines(self) -> str:
        """The title on lines that fit the width."""
        return wrapped(self.title, 0.95 * self.width, TEXT) if self.title else ""

    @property
    def above(self) -> float:
        """Inches that the title takes."""
        return TITLE_LINE * (self.title_lines.count("\n") + 1) if self.title else 0.0


def new_figure(sheet: Sheet, height: float, *, below: float = 0.0, beside: float = 0.0) -> Figure:
    """An empty figure with the sheet's title, of `height` inches without that, which makes room for what is around its
    axes. below, beside: inches at its lower and its right end that stay free. Without pyplot: nothing is kept outside
    of it."""
    from matplotlib.figure import Figure

    whole = height + sheet.above
    figure = Figure(figsize=(sheet.width, whole), layout="constrained")
    free = (0, below / whole, 1 - beside / sheet.width, (height - below) / whole)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, rect=free)
    if sheet.title:
        top = 1 - 0.25 * TITLE_LINE / whole
        figure.text(0.5, top, sheet.title_lines, ha="center", va="top", size=TEXT, in_layout=False)
    return figure


def legend_above(figure: Figure, sheet: Sheet, *, columns: int, samples: Sequence[Artist] | None = None) -> None:
    """A legend between the title and the axes, where it covers no data. samples: of what, None = all with a label."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    below_title = 1 - sheet.above / float(figure.get_size_inches()[1])
    legend = figure.legend(handles=samples, loc="upper center", ncols=columns, bbox_to_anchor=(0, 0, 1, below_title))
    left, bottom, width, height = engine.get()["rect"]
    engine.set(rect=(left, bottom, width, height - legend.get_window_extent().height / figure.bbox.height))
    legend.set_in_layout(False)


def laid_out(figure: Figure) -> None:
    """Computes the layout and keeps it, so that places on the paper can be computed from it."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def text_width(text: str, size: float = SMALL) -> float:
    """Inches that the widest line of a text takes."""
    return max(_advance(line, size) for line in text.split("\n"))


@cache
def _advance(line: str, size: float) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=FONT, size=size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font lacks; writing the figure says so
        width, _, _ = text_to_path.get_text_width_height_descent(line, font, ismath=False)
    return float(width) / 72


def wrapped(name: str, width: float, size: float = SMALL) -> str:
    """A name on lines of at most `width` inches, broken behind signs that part words, where it has any."""
    lines = [""]
    for piece in re.split(_BREAKS, printable(name)):
        if lines[-1] and text_width(lines[-1] + piece.rstrip(), size) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def clean(name: str) -> str:
    """A name or a title of somebody else's on one line, without characters that are not shown."""
    return printable(name)
