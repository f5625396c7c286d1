"""InfoNCE over shared sampled negatives: the paper's training objective (section 4.1), with its usual corrections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from typing_extensions import TypedDict

from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Embedder
from grbench.types import Batch, Codes
from grbench_reference.kernels.cross_entropy import cross_entropy
from grbench_reference.kernels.embedding import distinct_rows
from grbench_reference.losses.negatives import ActionWeights, Sampler, copies_of_positive


class NegativeCounts(TypedDict, total=False):
    """uniform, popularity: drawn a step; in_batch: the step's other targets; bank: targets of earlier steps; hard: how
    many of all these each position keeps, those it scores highest; 0 = all."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    uniform: Annotated[int, Field(ge=0)]
    popularity: Annotated[int, Field(ge=0)]
    in_batch: bool
    bank: Annotated[int, Field(ge=0)]
    hard: Annotated[int, Field(ge=0)]


SOME: NegativeCounts = {"uniform": 128, "in_batch": False}


class InfoNCE(nn.Module):
    """-log softmax of the positive among the negatives, averaged over positions by their action's weight.

    Every copy of a position's positive among its negatives is masked. Memory does not grow with positions x negatives.

    Args:
        negatives: any of, all shared by a step's positions: uniform = how many are drawn a step; popularity = how many
            are drawn in proportion to training events; in_batch = the targets of the step's other positions; bank = how
            many targets of earlier steps stay negatives. hard = how many of these each position keeps: those with the
            highest logits, corrected and masked ones, as TensorFlow Recommenders' num_hard_negatives; 0 = all.
        popularity_power: of the training events that popularity draws by; 1 = as in the data, .75 = word2vec's, between
            that and uniform.
        logq: weight each negative by its inverse chance of being one, so that popular items are not pushed down for
            being popular (formula and sources: negatives.Sampler). With hard no longer an unbiased estimate.
        temperature: logits are divided by it (with cosine similarity; .02 to .07 are usual).
        action_weights: what a position counts by its target's action (paper, second round); 1 where not named.
        pool: uniform negatives come from the items with a training event (trained), or from all.
        chunk: positions whose logits exist at once; null = what fits in 32 MiB (GPU: 1 GiB).
    """

    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,  # noqa: ARG002 - items as such
        *,
        negatives: NegativeCounts = SOME,
        popularity_power: Annotated[float, Field(ge=0)] = 1.0,
        logq: bool = False,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        pool: Literal["trained", "all"] = "trained",
        chunk: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        self.hard = negatives.get("hard", 0)
        if not any(number for source, number in negatives.items() if source != "hard"):
            raise SuiteError(
                "loss.negatives: no negatives; set uniform, popularity or bank to a number above 0, or in_batch to true"
            )
        self.temperature, self.chunk = temperature, chunk
        self.sample = Sampler(
            data,
            uniform=negatives.get("uniform", 0),
            popularity=negatives.get("popularity", 0),
            popularity_power=popularity_power,
            in_batch=negatives.get("in_batch", False),
            bank=negatives.get("bank", 0),
            logq=logq,
            pool=pool,
        )
        self.positions = ActionWeights(data, action_weights or {}, "loss")

    def grow(self) -> None:
        """Fills the bank: memory is planned for a step late in training."""
        self.sample.fill()

    def forward(self, encoder: Embedder, batch: Batch) -> Mapping[str, Tensor]:
        positions = self.positions(batch)
        negatives = self.sample(positions.targets)
        histories, vectors = encoder.embed(batch, torch.cat([positions.targets, negatives.items]))
        positives, others = torch.split(vectors, [len(positions.targets), len(negatives.items)])
        total = cross_entropy(
            distinct_rows(histories.reshape(-1, histories.shape[-1]), positions.places),
            positives,
            others,
            copies_of_positive(positions.targets, negatives.items),
            weights=positions.weights,
            log_weights=negatives.log_weights,
            temperature=self.temperature,
            hardest=self.hard or None,
            chunk=self.chunk,
        )
        return {"infonce": total / positions.weights.sum().clamp(min=1e-6)}
