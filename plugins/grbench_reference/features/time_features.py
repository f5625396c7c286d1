"""Features of an event's time: its date, the gap before it, its request, session and day (paper, section 7: the
first place's hierarchy of absolute time, relative gaps, request, session and cross-day structures, with Fourier terms).

All times are UTC. The paper gives no buckets; where noted they are OnePiece's (shuoyang2/OnePiece, dataset.py), the
others are choices made here. A feature depends on the event and those before it only; counts of events or days start at
the oldest event in the batch.

Shapes: B users, T history length, C columns of buckets, P tokens, F periods, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import tau
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.types import Batch
from grbench_reference.features.bucket_table import BucketTable
from grbench_reference.features.parts import TABLE_SPREAD, on_device

TimeFeature = Literal["hour", "weekday", "day", "gap", "request", "session", "cross_day", "fourier"]

HOUR, DAY, WEEK = 3600, 86_400, 604_800
SESSION_GAP = 30 * 60
"""Seconds without an event after which the next one opens a session: web analytics' custom."""
GAP_BUCKETS = 27
"""Doublings of a second, up to two years."""
DAYS_APART = 32
"""Days since the last active one have a bucket each below this, as in OnePiece (time_diff_day)."""
PLACES = 128
"""Events of a request or session, sessions and active days have a bucket each below this."""
PERIODS = (HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, WEEK // 2, WEEK, 2 * WEEK, 2_629_800, 7_889_400, 31_557_600)
"""Seconds of the Fourier terms; the last three are a month, a quarter and a year of 365.25 days."""


def check_has_times(data: TrainingData, option: str) -> None:
    """Raises SuiteError where the dataset has no times; option: of the encoder, for the message."""
    if not data.catalogue.has_times:
        raise SuiteError(
            f"encoder.{option}: this dataset has no times, so it has no such feature; leave the option out, or "
            "name the dataset's column of times"
        )


def training_days(data: TrainingData, option: str) -> tuple[int, int]:
    """The first and the last day of a training event, counted from 1970-01-01; raises SuiteError without times."""
    check_has_times(data, option)
    ends = [(events.times.min(), events.times.max()) for events in data.stream() if len(events.times)]
    if not ends:
        return 0, 0
    return int(min(first for first, _ in ends) // DAY), int(max(last for _, last in ends) // DAY)


class TimeFeatures(nn.Module):
    """The sum of the embeddings of each event's chosen features: a batch of histories -> one vector a token.

    features:
        hour, weekday: of the event's time.
        day: since the first training event; before it the first, after the last training event the last. (OnePiece cuts
            the whole period into 8,192 equal buckets.)
        gap: since the event before, in seconds, a bucket a doubling; 0 and `no event before` apart. (OnePiece gives
            days up to 31, hours and minutes a table each.)
        request: events of one time are one request; the event's place in it.
        session: its number, and the event's place in it.
        cross_day: days since the last day with an event, none apart, and the number of the active day.
        fourier: sine and cosine of the time in PERIODS, through a linear layer.
    dropout: share of buckets (of events, for fourier) hidden while training, each with a learnt row in its place.

    Raises SuiteError where the dataset has no times.
    """

    doublings: Tensor

    def __init__(
        self, data: TrainingData, features: Sequence[TimeFeature], width: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first_day, last_day = training_days(data, "time_features")
        self.num_days, self.dropout = last_day - self.first_day + 1, dropout
        self.features = tuple(dict.fromkeys(features))
        on_device(self, "doublings", 1 << np.arange(GAP_BUCKETS - 1, dtype=np.int64))
        sizes = [size for size, _ in self._columns()]
        self.buckets = BucketTable(sizes, width, dropout=dropout) if sizes else None
        self.waves = nn.Linear(2 * len(PERIODS), width, bias=False) if "fourier" in features else None
        if self.waves is not None:
            nn.init.normal_(self.waves.weight, std=TABLE_SPREAD)
        self.no_waves = nn.Parameter(torch.zeros(width)) if self.waves is not None and dropout else None

    def forward(self, batch: Batch, events: Tensor) -> Tensor:
        """events [P] of the flattened [B * T], -1 for a token that is none, which is zero -> [P, D]."""
        parts: list[Tensor] = []
        if self.buckets is not None:
            parts.append(self.buckets(self.bucketed(batch.times, batch.items), events))
        if self.waves is not None:
            parts.append(self._waves(batch.times.flatten()[events.clamp(min=0)], events))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def bucketed(self, times: Tensor, items: Tensor) -> Tensor:
        """times, items [B, T], left-padded -> [B, T, C] int64; columns before a row's first event are undefined."""
        moments = _Moments.of(times, items)
        return torch.stack([bucket(moments) for _, bucket in self._columns()], dim=2)

    def _columns(self) -> list[tuple[int, Callable[[_Moments], Tensor]]]:
        """[C] of the chosen features: (number of buckets, which one)."""
        known: dict[str, list[tuple[int, Callable[[_Moments], Tensor]]]] = {
            "hour": [(24, lambda moments: moments.times % DAY // HOUR)],
            "weekday": [(7, lambda moments: (moments.days + 3) % 7)],  # 1970-01-01 was a Thursday; Monday is 0
            "day": [(self.num_days, lambda moments: (moments.days - self.first_day).clamp(0, self.num_days - 1))],
            "gap": [(GAP_BUCKETS + 1, self._gap)],
            "request": [(PLACES, lambda moments: _place(moments.first | (moments.gaps != 0)))],
            "session": [
                (PLACES, lambda moments: _number(moments.session_starts)),
                (PLACES, lambda moments: _place(moments.session_starts)),
            ],
            "cross_day": [
                (DAYS_APART, _days_apart),
                (PLACES, lambda moments: _number(moments.day_starts)),
            ],
        }
        return [column for name in self.features for column in known.get(name, ())]

    def _gap(self, moments: _Moments) -> Tensor:
        """0 = no event before, 1 = no second passed, then one a doubling: 1; 2, 3; 4 .. 7; .."""
        return torch.where(moments.first, 0, torch.bucketize(moments.gaps, self.doublings, right=True) + 1)

    def _waves(self, times: Tensor, events: Tensor) -> Tensor:
        """times [P] -> [P, D]."""
        assert self.waves is not None
        # Whole seconds are divided before they become floats, which cannot tell today's seconds apart.
        angles = torch.stack([(times % period).float() * (tau / period) for period in PERIODS], dim=1)
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        vectors: Tensor = self.waves(waves.to(self.waves.weight.dtype))
        if self.training and self.no_waves is not None:
            hidden = torch.rand(times.shape, device=times.device) < self.dropout
            vectors = torch.where(hidden.unsqueeze(1), self.no_waves.to(vectors.dtype), vectors)
        return vectors.masked_fill((events < 0).unsqueeze(1), 0)


@dataclass(frozen=True)
class _Moments:
    """A batch's times, [B, T] each. gaps, days_apart: since the event before; first: there is none before.

    Before a row's first event no session and no day starts.
    """

    times: Tensor
    days: Tensor
    gaps: Tensor
    days_apart: Tensor
    first: Tensor

    @classmethod
    def of(cls, times: Tensor, items: Tensor) -> _Moments:
        real = (items != 0).int().cummax(1).values  # as layout.py: all behind the first event are events
        days = times // DAY
        return cls(times, days, _steps(times), _steps(days), _steps(real, first=real[:, :1]) > 0)

    @property
    def session_starts(self) -> Tensor:
        return self.first | (self.gaps > SESSION_GAP)

    @property
    def day_starts(self) -> Tensor:
        return self.first | (self.days_apart != 0)


def _steps(column: Tensor, first: Tensor | float = 0) -> Tensor:
    """column [B, T] -> [B, T], each less the one before it; `first` where there is none."""
    steps = torch.zeros_like(column)
    steps[:, :1] = first
    steps[:, 1:] = column[:, 1:] - column[:, :-1]
    return steps


def _days_apart(moments: _Moments) -> Tensor:
    """0 = no active day before, else the days since it, the same for all events of a day."""
    apart = moments.days_apart.clamp(1, DAYS_APART - 1)
    return torch.where(moments.first, 0, apart).gather(1, _latest(moments.day_starts))


def _latest(starts: Tensor) -> Tensor:
    """starts [B, T] bool -> [B, T] the column of the newest start up to each one; 0 where there is none."""
    column = torch.arange(starts.shape[1], device=starts.device)
    return torch.where(starts, column, 0).cummax(1).values


def _place(starts: Tensor) -> Tensor:
    """starts [B, T] bool -> [B, T] events since the newest start, at most PLACES - 1."""
    column = torch.arange(starts.shape[1], device=starts.device)
    return (column - _latest(starts)).clamp(max=PLACES - 1)


def _number(starts: Tensor) -> Tensor:
    """starts [B, T] bool -> [B, T] earlier starts, at most PLACES - 1."""
    return (starts.cumsum(1) - 1).clamp(0, PLACES - 1)
