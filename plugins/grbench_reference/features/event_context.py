"""The context of an event, added to its token: when it happened, and how popular its item was at that time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.registry.option_types import Count, OptionGroup, Share
from grbench.types import Batch
from grbench_reference.features.popularity import PopularityFeature
from grbench_reference.features.time_features import TimeFeature, TimeFeatures


@dataclass(frozen=True, kw_only=True)
class EventContextOptions(OptionGroup):
    """The context features of events.

    Args:
        time_features: what an event's time (UTC) adds to its token: hour, weekday, day (since the first training
            event), gap (since the event before), request (events of one time), session (half an hour without an event
            ends it), cross_day (days since the last active one), fourier (periods from an hour to a year).
        popularity_windows: days; how many training events an event's item had in so many whole days before the event's
            own adds to its token, in buckets that double.
        context_dropout: share of time and popularity buckets hidden in a training step (OnePiece: 0.5).
    """

    time_features: tuple[TimeFeature, ...] = ()
    popularity_windows: tuple[Count, ...] = ()
    context_dropout: Share = 0.0


class EventContext(nn.Module):
    """The sum of time features and popularity: a batch of histories -> one vector a token."""

    def __init__(self, parts: Sequence[TimeFeatures | PopularityFeature]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, batch: Batch, events: Tensor) -> Tensor:
        """events [P] of the flattened [B * T], -1 for a token that is none, which is zero -> [P, D]."""
        first, *others = self.parts
        vectors: Tensor = first(batch, events)
        for part in others:
            vectors = vectors + part(batch, events)
        return vectors


def event_context(data: TrainingData, options: EventContextOptions, *, width: int) -> EventContext | None:
    """None where the options name nothing. Raises SuiteError where the dataset has no times."""
    parts: list[TimeFeatures | PopularityFeature] = []
    if options.time_features:
        parts.append(TimeFeatures(data, options.time_features, width, dropout=options.context_dropout))
    if options.popularity_windows:
        parts.append(PopularityFeature(data, options.popularity_windows, width, dropout=options.context_dropout))
    return EventContext(parts) if parts else None
