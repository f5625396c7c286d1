"""What an event's token has beside its item and action: when it happened, and how popular its item was then."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.types import Batch
from grbench_reference.features.popularity import PopularityFeature
from grbench_reference.features.time_features import TimeFeature, TimeFeatures


class EventContext(nn.Module):
    """The sum of its parts."""

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


def event_context(
    data: TrainingData,
    *,
    width: int,
    time_features: Sequence[TimeFeature],
    popularity_windows: Sequence[int],
    context_dropout: float,
) -> EventContext | None:
    """None where nothing is asked for. Raises SuiteError where the dataset has no times."""
    parts: list[TimeFeatures | PopularityFeature] = []
    if time_features:
        parts.append(TimeFeatures(data, time_features, width, dropout=context_dropout))
    if popularity_windows:
        parts.append(PopularityFeature(data, popularity_windows, width, dropout=context_dropout))
    return EventContext(parts) if parts else None
