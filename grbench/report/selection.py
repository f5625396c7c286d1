"""What a command's option chooses of a table or a picture: names in an order, each with a label or without one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grbench.errors import RunError, cut
from grbench.output import printable

REST = "*"
"""In place of a name: all that the others do not name, in their own order."""

_PART = re.compile(r"\\.|[^\\]", re.DOTALL)
_OPENING, _CLOSING = ("[", "("), ("]", ")")


@dataclass(frozen=True)
class Pick:
    """name: what is chosen, or REST; label: what it is called instead, None for its own name."""

    name: str
    label: str | None = None

    @property
    def shown(self) -> str:
        """What it is called."""
        return self.name if self.label is None else self.label


def picks(texts: Iterable[str], option: str) -> tuple[Pick, ...]:
    r"""The names and labels of an option that may be repeated, each time as `NAME[=LABEL],NAME[=LABEL],...`.

    Commas and equals signs within brackets belong to the name, as in `logq[logq=yi]`; elsewhere, a backslash before
    them says so. option: such as --rows, for messages. Raises RunError where a name or a label is empty, or occurs
    twice.
    """
    found = []
    for text in texts:
        for part in _split(text, ","):
            name, *label = (_unescaped(piece) for piece in _split(part, "=", most=1))
            if not name or label == [""] or (label and name == REST):
                raise RunError(f"{option} {cut(repr(text))}: write NAME or NAME=LABEL, with commas between them")
            found.append(Pick(name, printable(label[0]) if label else None))
    _refuse_repeated([pick.name for pick in found], option, "is named twice")
    _refuse_repeated([pick.label for pick in found if pick.label is not None], option, "is the label of two")
    return tuple(found)


def chosen(wanted: Sequence[Pick], known: Sequence[Sequence[str]]) -> list[tuple[int, str | None]]:
    """(place, label) of each thing that is chosen, in the order of `wanted`; all of them where that is empty. known: of
    each thing, the names that it may be called by. What is wanted and not known is left out: `check_picks` says
    so."""
    if not wanted:
        return [(place, None) for place in range(len(known))]
    named = {pick: place for pick in wanted if (place := _place(pick, known)) is not None}
    found: list[tuple[int, str | None]] = []
    for pick in wanted:
        if pick.name == REST:
            found += [(place, None) for place in range(len(known)) if place not in named.values()]
        elif pick in named:
            found.append((named[pick], pick.label))
    return found


def check_picks(wanted: Iterable[Pick], known: Sequence[Sequence[str]], option: str) -> None:
    """Raises RunError with the names that nothing is called by, and all that there are (the first name of each, and
    its second one in brackets), or with two names of one thing."""
    named = [(pick.name, _place(pick, known)) for pick in wanted if pick.name != REST]
    if unknown := [name for name, place in named if place is None]:
        there = dict.fromkeys(names[0] + (f" ({names[1]})" if len(names) > 1 else "") for names in known)
        raise RunError(
            f"{option}: there is no {' and no '.join(cut(repr(name)) for name in unknown)}; "
            f"there are: {cut(printable(', '.join(there)), 4_000)}"
        )
    for position, (name, place) in enumerate(named):
        for earlier, same in named[:position]:
            if place == same:
                raise RunError(f"{option}: {cut(repr(earlier))} and {cut(repr(name))} are the same")


def _place(pick: Pick, known: Sequence[Sequence[str]]) -> int | None:
    """The first thing whose own name it is, else the first that may be called so."""
    own = (place for place, names in enumerate(known) if names[0] == pick.name)
    other = (place for place, names in enumerate(known) if pick.name in names)
    return next(own, next(other, None))


def _split(text: str, at: str, most: int | None = None) -> list[str]:
    """The parts of the text between the signs `at` that are neither in brackets nor behind a backslash."""
    parts, depth = [""], 0
    for sign in _PART.findall(text):
        depth += (sign in _OPENING) - (sign in _CLOSING and depth > 0)
        if sign == at and depth == 0 and (most is None or len(parts) <= most):
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\\,=\[\]()])", r"\1", text.strip())


def _refuse_repeated(names: Sequence[str], option: str, why: str) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise RunError(f"{option}: {cut(repr(name))} {why}")
