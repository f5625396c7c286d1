"""Prediction of the next item by several tasks, from exposure to value (OneRanker, arXiv 2603.02999)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.data.training_data import TrainingData
from grbench.distributed.ranks import averaged
from grbench.errors import SuiteError
from grbench.interfaces import Loss
from grbench.types import FIRST_ACTION, Batch, Codes
from grbench_reference.kernels.cross_entropy import cross_entropy
from grbench_reference.kernels.embedding import distinct_rows
from grbench_reference.layers.interfaces import TaskPredictor
from grbench_reference.losses.action_values import Values, values_by_token
from grbench_reference.losses.infonce import DEFAULT_NEGATIVES, NegativeCounts
from grbench_reference.losses.negatives import LogQ, NegativeSampler, positive_among


class TaskPrediction(nn.Module, Loss):
    """The sum over tasks of -log softmax of the target among it and the negatives, which all tasks share.

    The task of an action learns from targets with this action or a later one of the dataset's: a conversion is a click
    and an exposure too. The task of value learns from all targets, weighted by the value of their action. Each is a
    mean over its targets. A target without an action counts for the first task alone, and 1 for value.

    Args:
        values: what an action is worth; null = exposure 0, click 1, conversion 2.5 (the metric's weights), others 1.
        action_weight: of the terms of the actions' tasks, beside that of value.
        negatives: as of the loss infonce: uniform, popularity, in_batch, bank.
        logq: likewise.
        temperature: logits are divided by it.
    """

    needs: ClassVar[tuple[type, ...]] = (TaskPredictor,)
    values: Tensor

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - the targets are items, not codes
        *,
        values: Values | None = None,
        action_weight: Annotated[float, Field(ge=0)] = 1.0,
        negatives: NegativeCounts = DEFAULT_NEGATIVES,
        logq: LogQ = "none",
        temperature: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__()
        if not any(negatives.get(source) for source in ("uniform", "popularity", "in_batch")):
            raise SuiteError("loss.negatives: none in the first step; set uniform, popularity or in_batch")
        self.actions, self.action_weight, self.temperature = data.catalogue.actions, action_weight, temperature
        self.hard = negatives.get("hard", 0) or None
        self.register_buffer("values", values_by_token(data, values), persistent=False)
        self.sampler = NegativeSampler(
            data,
            uniform=negatives.get("uniform", 0),
            popularity=negatives.get("popularity", 0),
            in_batch=negatives.get("in_batch", False),
            bank=negatives.get("bank", 0),
            logq=logq,
            pool="trained",
        )

    def grow(self) -> None:
        """Fills the memory bank, as it is late in training, for the memory forecast."""
        self.sampler.fill_bank()

    def weight(self, batch: Batch) -> Tensor:
        """The same on each of several devices: each task is divided by its targets in the whole batch."""
        return torch.ones((), device=batch.items.device)

    def forward(self, encoder: TaskPredictor, batch: Batch) -> Mapping[str, Tensor]:
        """-> a term for each task, `task_` and the action's name or `value`."""
        flat = batch.all_targets.reshape(-1)
        indices = flat.nonzero().squeeze(1)
        targets, tokens = flat[indices], batch.all_next_actions.reshape(-1)[indices]
        negatives = self.sampler(targets)
        states, vectors = encoder.task_states(batch, torch.cat([targets, negatives.items]))
        positives, negative_vectors = torch.split(vectors, [len(targets), len(negatives.items)])
        copies, places = positive_among(targets, negatives.items), batch.rows_of(states, indices)
        weights_of_tasks = torch.stack([*self._weights_of_actions(tokens), self.values[tokens]])
        divisors = averaged(weights_of_tasks.sum(1)).clamp(min=1e-6)
        terms = {}
        for task, (name, weights) in enumerate(zip((*self.actions, "value"), weights_of_tasks, strict=True)):
            scale = self.action_weight if task < len(self.actions) else 1.0
            some = weights.nonzero().squeeze(1)  # conversions are few
            total = cross_entropy(
                distinct_rows(states[:, :, task].flatten(0, 1), places[some]),
                positives[some],
                negative_vectors,
                copies[some],
                weights=weights[some],
                log_weights=negatives.log_weights,
                positive_log_weights=_some(negatives.positive_log_weights, some),
                temperature=self.temperature,
                hardest=self.hard,
            )
            if negatives.repetitions is not None:
                total = total + (weights * negatives.repetitions).sum()
            terms[f"task_{name}"] = scale * total / divisors[task]
        return terms

    def _weights_of_actions(self, tokens: Tensor) -> list[Tensor]:
        """tokens [P] of the targets -> for each action [P] float32, 1 where its task learns from the target."""
        return [(tokens >= (FIRST_ACTION + task if task else 0)).float() for task in range(len(self.actions))]


def _some(values: Tensor | None, some: Tensor) -> Tensor | None:
    return None if values is None else values[some]
