"""Attributes of plug-ins that the core reads, checked."""

from __future__ import annotations

from numbers import Integral

from grbench.errors import PluginError
from grbench.interfaces import Tracker


def history_length(encoder: object) -> int:
    """The encoder's `history_length`; raises PluginError, naming its class, where that is missing or no number of
    events."""
    length = getattr(encoder, "history_length", None)
    if not isinstance(length, Integral) or length < 1:
        raise PluginError(
            f"encoder {type(encoder).__name__}: history_length should be the number of newest events that it encodes, "
            f"a whole number from 1, {'and is missing' if length is None else f'got {length!r}'}"
        )
    return int(length)


def every_steps(tracker: object) -> int | None:
    """The tracker's `every_steps`, None where it has none; raises PluginError, naming its class, where that is not a
    number of steps."""
    every = getattr(tracker, "every_steps", Tracker.every_steps)
    if every is not None and (not isinstance(every, Integral) or every < 1):
        raise PluginError(
            f"tracker {type(tracker).__name__}: every_steps should be a whole number from 1, or None; got {every!r}"
        )
    return None if every is None else int(every)
