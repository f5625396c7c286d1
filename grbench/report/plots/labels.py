"""Names beside points of a figure, where they cover neither each other nor a point.

Places are boxes [n, 4] in inches on the paper: left, bottom, right, top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grbench.report.plots.style import SMALL, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 72.0
"""Of an inch."""
HEIGHT = SMALL * 1.15 / 72
"""Inches of a line of text."""
MARKER = 0.04
"""Inches from a point's centre to where its marker ends."""
DISTANCES = (0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.37, 0.44, 0.52, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Inches from a point to its label, the nearest tried first; from the second on, a line joins them."""
DIRECTIONS = np.deg2rad([*range(0, 360, 90), *range(45, 360, 90), *(way for way in range(0, 360, 15) if way % 45)])
CROSSED = 0.15
"""Inches of further distance that are as bad as a label across an interval."""


COVERED, THROUGH = 100.0, 1.0
"""The same for a label across another one or a point, and for a line through these."""
TRIED = 48
"""Places of a label for which it is found out what its line crosses: the best ones by all else."""
APART = np.array([-0.018, 0.0, 0.018, 0.0])
"""Inches that stay free beside a label."""


@dataclass(frozen=True)
class Label:
    """left, bottom: of its box, inches; text; joined: whether a line joins it with its point; covers: whether it covers
    a point or another label."""

    left: float
    bottom: float
    text: str
    joined: bool = False
    covers: bool = False


def place_labels(
    points: np.ndarray,
    texts: Sequence[str],
    area: np.ndarray,
    *,
    filled: np.ndarray,
    crossed: np.ndarray,
    far: float,
    every: bool = False,
) -> list[Label | None]:
    """A place for each label within the area, the first labels before later ones; None where there is none.

    points: [n, 2], inches, of the labels; filled: boxes [m, 4] that no label covers, such as all points; crossed: boxes
    [k, 4] of lines that labels cover only where they would else be far away; far: inches that none is farther from its
    point; every: where there is no free place, a label gets the one where it covers the least. The lines that join
    labels with their points cross neither labels nor other points.
    """
    taken = filled
    found: list[Label | None] = []
    for point, text in zip(points, texts, strict=True):
        boxes, distances, near = _candidates(point, text_width(text), far)
        inside = np.all((boxes[:, :2] >= area[:2]) & (boxes[:, 2:] <= area[2:]), axis=1)
        covered = _overlap(boxes + APART, taken).sum(axis=1)
        allowed = inside if every else inside & (covered == 0)
        costs = distances + CROSSED * _overlap(boxes, crossed).sum(axis=1) + COVERED * covered
        tried = np.argsort(np.where(allowed, costs, np.inf), kind="stable")[: min(TRIED, int(allowed.sum()))]
        lines = _line_boxes(point, near[tried])
        joined = distances[tried] > DISTANCES[0]
        hit: np.ndarray = np.any(_overlap(lines.reshape(-1, 4), taken), axis=1)
        through = joined & np.any(hit.reshape(lines.shape[:2]), axis=1)
        if not len(tried) or (not every and through.all()):
            found.append(None)
            continue
        chosen = int(np.argmin(costs[tried] + THROUGH * through))
        best, joins = tried[chosen], bool(joined[chosen])
        taken = np.vstack([taken, boxes[best], *([lines[chosen]] if joins else [])])
        found.append(Label(float(boxes[best, 0]), float(boxes[best, 1]), text, joins, bool(covered[best])))
    return found


def _candidates(point: np.ndarray, width: float, far: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(boxes [c, 4] around a point [2], their distances [c], what of each is nearest to the point [c, 2]): an edge's
    middle or a corner."""
    reached = [distance for distance in DISTANCES if distance <= far]
    distance, angle = (each.ravel() for each in np.meshgrid(reached, DIRECTIONS, indexing="ij"))
    way = np.round(np.stack([np.cos(angle), np.sin(angle)], axis=1), 6)
    near = point + distance[:, None] * way
    start = near + np.array([width, HEIGHT]) * (np.sign(way) - 1) / 2
    return np.hstack([start, start + np.array([width, HEIGHT])]), distance, near


def _line_boxes(point: np.ndarray, near: np.ndarray) -> np.ndarray:
    """[2], [c, 2] -> [c, 16, 4], small boxes along the line from beyond the marker at a point to each label."""
    way = near - point
    length = np.linalg.norm(way, axis=1)[:, None, None]
    steps = np.linspace(0, 1, 16)[None, :, None]
    begin = (1.5 * MARKER) / np.maximum(length, 1e-9)
    at = point + way[:, None] * (begin + (0.95 - begin) * steps)
    return np.concatenate([at - 0.004, at + 0.004], axis=2)


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[c, 4], [m, 4] -> [c, m], whether they overlap."""
    one, other = boxes[:, None], others[None]
    found: np.ndarray = np.all((one[..., :2] < other[..., 2:]) & (other[..., :2] < one[..., 2:]), axis=-1)
    return found


def on_paper(axes: Axes, points: np.ndarray) -> np.ndarray:
    """points: [n, 2] in the axes' data -> [n, 2] in inches, once the figure is laid out."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return np.asarray(axes.transData.transform(points)) / figure.dpi


def area_of(axes: Axes) -> np.ndarray:
    """The axes' box [4] in inches, once the figure is laid out."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return np.asarray(axes.get_window_extent().extents) / figure.dpi


def around(points: np.ndarray, reach: float = MARKER) -> np.ndarray:
    """Boxes of the markers at points [n, 2] in inches."""
    return np.hstack([points - reach, points + reach])


def write_label(axes: Axes, label: Label, point: np.ndarray, colour: str) -> None:
    """point: [2], inches."""
    centre = (label.left + text_width(label.text) / 2, label.bottom + HEIGHT / 2)
    axes.annotate(
        label.text,
        xy=(float(point[0]) * POINTS, float(point[1]) * POINTS),
        xycoords="figure points",
        xytext=(centre[0] * POINTS, centre[1] * POINTS),
        textcoords="figure points",
        ha="center",
        va="center",
        size=SMALL,
        color=colour,
        arrowprops={"arrowstyle": "-", "linewidth": 0.4, "linestyle": (0, (2, 1.5)), "color": colour, "shrinkB": 2}
        if label.joined
        else None,
        zorder=4,
    )
