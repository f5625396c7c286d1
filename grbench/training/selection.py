"""The encoder's best state in a stage, by validation score."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from grbench.errors import SuiteError


class BestState:
    """The encoder's state with the best validation score so far, on the host.

    epoch, score: of that state, None before the first validation; since: validations since then.
    """

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.score: float | None = None
        self.since = 0
        self.encoder: dict[str, Tensor] = {}

    def see(
        self, epoch: int, scores: Mapping[str, float], encoder: nn.Module, *, select: str, higher_is_better: bool
    ) -> None:
        """Keeps the encoder's state if its score is the best so far; the first of equals stays.

        Raises SuiteError where the metric to `select` by is not among the scores.
        """
        if select not in scores:
            raise SuiteError(f"training.select: no metric {select!r} is validated; there are {', '.join(scores)}")
        score, sign = scores[select], 1 if higher_is_better else -1
        self.since += 1
        if self.score is None or sign * score > sign * self.score:
            self.epoch, self.score, self.since = epoch, score, 0
            self.encoder = {name: value.to("cpu", copy=True) for name, value in encoder.state_dict().items()}

    def is_stale(self, patience: int | None) -> bool:
        """Whether `patience` validations in a row brought nothing better."""
        return patience is not None and self.since >= patience

    def restore(self, encoder: nn.Module) -> None:
        """Puts the best state back; leaves the last one where nothing was validated."""
        if self.encoder:
            encoder.load_state_dict(self.encoder)
