"""InfoNCE with sampled negatives that all positions share: the challenge paper's training objective (section 4.1), with
logQ correction, a memory bank and hard negatives as options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from typing_extensions import TypedDict

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Embedder, Loss
from grbench.types import Batch, Codes
from grbench_reference.kernels.cross_entropy import cross_entropy
from grbench_reference.losses.negatives import LogQ, NegativeSampler, TargetSelector, positive_among


class NegativeCounts(TypedDict, total=False):
    """uniform, popularity: number drawn per step; in_batch: the step's other targets; bank: size of the memory bank of
    earlier targets; hard: number of these that each position keeps, those with the highest logits; 0 = all."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    uniform: Annotated[int, Field(ge=0)]
    popularity: Annotated[int, Field(ge=0)]
    in_batch: bool
    bank: Annotated[int, Field(ge=0)]
    hard: Annotated[int, Field(ge=0)]


DEFAULT_NEGATIVES: NegativeCounts = {"uniform": 128, "in_batch": False}


class InfoNCE(nn.Module, Loss):
    """-log softmax of the positive among the positive and the negatives, a mean over positions weighted by the target's
    action.

    Copies of a position's positive among the negatives are masked for that position (unless `logq` is onepiece). Logits
    are computed in chunks, so memory does not grow with positions x negatives.

    Args:
        negatives: one or more sources, shared by all positions of a step: uniform = number drawn uniformly; popularity
            = number drawn in proportion to training events; in_batch = the targets of the step's other positions; bank
            = size of a memory bank of earlier steps' targets, beside another source, because each stage begins with
            none. Besides, hard = number of these that each position keeps, those with the highest logits after
            correction and masking, like num_hard_negatives of TensorFlow Recommenders; 0 = all.
        popularity_power: exponent of the training events that popularity draws by; 1 = as in the data, .75 = word2vec,
            between that and uniform.
        logq: logQ correction, so that popular items are not penalised for being sampled often: subtract from a logit
            the logarithm of how often its item is sampled. none; negatives = from the negatives' logits; yi = from the
            positive's too (Yi et al., RecSys 2019); onepiece = as yi, with the other positions' targets as they are:
            repeated items count repeatedly, and those equal to the positive are not masked. Formulas and sources:
            negatives.NegativeSampler. Together with hard the estimate is biased.
        temperature: logits are divided by it (with cosine similarity .02 to .07 are usual).
        action_weights: weight of a position, by the action of its target (paper, second round); 1 for actions not
            named.
        pool: uniform negatives are drawn from the items with a training event (trained), or from all items.
        chunk: positions whose logits are in memory at once; null = as many as fit in 32 MiB (GPU: 1 GiB).
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - the targets are items, not codes
        *,
        negatives: NegativeCounts = DEFAULT_NEGATIVES,
        popularity_power: Annotated[float, Field(ge=0)] = 1.0,
        logq: LogQ = "none",
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        pool: Literal["trained", "all"] = "trained",
        chunk: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.hard = negatives.get("hard", 0)
        if not any(negatives.get(source) for source in ("uniform", "popularity", "in_batch")):
            raise SuiteError(
                "loss.negatives: no negatives in the first step of a stage, when a memory bank is empty; set uniform "
                "or popularity to a number above 0, or in_batch to true"
            )
        self.temperature, self.chunk = temperature, chunk
        self.sampler = NegativeSampler(
            data,
            uniform=negatives.get("uniform", 0),
            popularity=negatives.get("popularity", 0),
            popularity_power=popularity_power,
            in_batch=negatives.get("in_batch", False),
            bank=negatives.get("bank", 0),
            logq=logq,
            pool=pool,
        )
        self.select_targets = TargetSelector(data, action_weights)

    def grow(self) -> None:
        """Fills the memory bank, as it is late in training, for the memory forecast."""
        self.sampler.fill_bank()

    def weight(self, batch: Batch) -> Tensor:
        """Of the positions, by their targets' actions."""
        return self.select_targets.total_weight(batch)

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.select_targets(batch)
        negatives = self.sampler(positions.targets)
        histories, vectors = encoder.embed(batch, torch.cat([positions.targets, negatives.items]))
        positives, negative_vectors = torch.split(vectors, [len(positions.targets), len(negatives.items)])
        total = cross_entropy(
            positions.states(histories),
            positives,
            negative_vectors,
            positive_among(positions.targets, negatives.items),
            weights=positions.weights,
            log_weights=negatives.log_weights,
            positive_log_weights=negatives.positive_log_weights,
            temperature=self.temperature,
            hardest=self.hard or None,
            chunk=self.chunk,
        )
        if negatives.repetitions is not None:
            total = total + (positions.weights * negatives.repetitions).sum()
        return {"infonce": total / positions.weights.sum().clamp(min=1e-6)}
