"""Formatting of names and numbers in tables, plans and progress lines."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

GIB = 2**30

LARGEST = 1e15
"""No score, cost or count is so large; a record that says so is shown without the value."""


def _is_shown(value: float | None) -> TypeGuard[float]:
    """Whether it is a number of a size that can be true; NaN is none."""
    return value is not None and -LARGEST < value < LARGEST


def label_of(metric: str) -> str:
    """Abbreviates a metric's name as in papers: `hit_rate@10` -> HR@10, `ndcg@10` -> NDCG@10, `score` -> Score."""
    name, at, k = metric.partition("@")
    words = name.split("_")

    def short(word: str) -> bool:
        return len(word) <= 3 or not set(word) & set("aeiou")

    if len(words) == 1:
        return (name.upper() if short(name) else name.capitalize()) + at + k
    return "".join(word.upper() if not set(word) & set("aeiou") else word[0].upper() for word in words) + at + k


def number(value: float | None) -> str:
    """A score with four decimals, without a leading zero, as in papers: .0637, -.0012, 1.2500; — where there is none
    that can be shown."""
    if not _is_shown(value):
        return "—"
    text = f"{value:.4f}"
    return text.replace("0.", ".", 1) if abs(round(value, 4)) < 1 else text


def significant(value: float | None, digits: int = 3) -> str:
    """A cost with about `digits` significant digits: 0.042, 1.25, 81.3, 1,520; — where there is none that can be
    shown."""
    if not _is_shown(value):
        return "—"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 4)}f}"


def count(value: float | None) -> str:
    """A count in K, M or B: 640, 12.3 K, 1.40 B; — where there is none that can be shown."""
    if not _is_shown(value):
        return "—"
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{significant(value / size)} {unit}"
    return f"{value:,.0f}"


def counted(amount: int, noun: str) -> str:
    """An amount with its noun in the right number: `1 cell`, `2 cells`."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def plain(value: Any) -> str:
    """A YAML value on one line: `[1, 2]`, `none`, `true`."""
    if isinstance(value, list):
        return "[" + ", ".join(map(plain, value)) + "]"
    return {"None": "none", "True": "true", "False": "false"}.get(str(value), str(value))


def duration(seconds: float | None) -> str:
    """Seconds as `42 s`, `3 min 05 s` or `2 h 10 min`; None is `?`."""
    if not _is_shown(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size_text(size: int) -> str:
    """Bytes in GiB or MiB."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.0f} MiB"
