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
from grbench.protocols import Embedder
from grbench.types import Batch, Codes
from grbench_reference.kernels import distinct_rows
from grbench_reference.losses.cross_entropy import cross_entropy
from grbench_reference.losses.negatives import ActionWeights, Sampler, copies_of_positive


class NegativeCounts(TypedDict, total=False):
    """uniform: drawn a step; in_batch: the step's other targets."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    uniform: Annotated[int, Field(ge=0)]
    in_batch: bool


SOME: NegativeCounts = {"uniform": 128, "in_batch": False}


class InfoNCE(nn.Module):
    """-log softmax of the positive among the negatives, averaged over positions by their action's weight.

    Every copy of a position's positive among its negatives is masked. Memory does not grow with positions x negatives.

    Args:
        negatives: uniform = how many are drawn a step, shared by all its positions; in_batch = the targets of the
            step's other positions; either or both.
        logq: weight each negative by its inverse chance of being one, so that popular items are not pushed down for
            being popular (formula and sources: negatives.Sampler).
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
        logq: bool = False,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        action_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None,
        pool: Literal["trained", "all"] = "trained",
        chunk: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__()
        uniform, in_batch = negatives.get("uniform", 0), negatives.get("in_batch", False)
        if not uniform and not in_batch:
            raise SuiteError("loss.negatives: no negatives; set uniform to a number above 0, in_batch to true, or both")
        self.temperature, self.chunk = temperature, chunk
        self.sample = Sampler(data, uniform=uniform, in_batch=in_batch, logq=logq, pool=pool)
        self.positions = ActionWeights(data, action_weights or {}, "loss")

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
            chunk=self.chunk,
        )
        return {"infonce": total / positions.weights.sum().clamp(min=1e-6)}
