"""What trainers by reward share: the clipped objective, the distance from a frozen reference policy, and their options.

Group-relative advantages, the clipped ratio and the estimate of the distance are those of GRPO (arXiv 2402.03300).

Shapes: B users, G samples of a user, L decisions of a sample: its codes, or its steps of denoising.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from grbench.distributed.ranks import averaged
from grbench.errors import SuiteError
from grbench.registry.option_types import Count, OptionGroup
from grbench.training.state import TrainState
from grbench.types import FIRST_ACTION, Batch
from grbench_reference.trainers.advantages import AdvantageScale
from grbench_reference.trainers.supervised import weighted_terms

NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class PolicyOptions(OptionGroup):
    """Options of training by reward.

    Args:
        samples: drawn for each user, the group (V-STAR: 16).
        updates: of the model by the same samples. From the second on the ratio is no longer 1.
        clip: the ratio of new and old probability counts from 1 - clip to 1 + clip (GRPO: 0.2).
        kl: weight of the distance from the reference, the model as the stage found it (V-STAR: 0.001); 0 = none is
            kept.
        scale: what advantages are divided by: group = the deviation of the rewards that are compared (GRPO); batch =
            the deviation over the batch; none (Dr. GRPO, arXiv 2503.20783).
        action_weights: weight of a user's samples by the action of the target, such as {click: 1, conversion: 2.5}; 1
            for actions not named. Without `scale` it is the same as weighted rewards, which `scale: group` would undo.
        temperature: logits of codes are divided, or deviations of denoising steps multiplied, by it, wherever the
            policy is sampled or its probabilities are computed.
    """

    samples: Annotated[int, Field(ge=2)] = 16
    updates: Count = 1
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    kl: NotNegative = 1e-3
    scale: AdvantageScale = "group"
    action_weights: dict[str, NotNegative] | None = None
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Reference:
    """The policy as a stage of training found it; it learns nothing. Part of a checkpoint."""

    def __init__(self) -> None:
        self.policy: nn.Module | None = None

    def freeze(self, encoder: nn.Module) -> None:
        """Copies the encoder."""
        self.policy = copy.deepcopy(encoder).eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """Empty where there is none."""
        return {} if self.policy is None else {"reference": self.policy.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Of a reference that is frozen already."""
        if self.policy is not None:
            self.policy.load_state_dict(saved["reference"])


def check_options(state: TrainState, trainer: str) -> None:
    """Raises SuiteError for training options that a trainer by reward has no use for."""
    for key, value, usual in (("accumulate", state.options.accumulate, 1), ("compile", state.options.compile, False)):
        if value != usual:
            raise SuiteError(
                f"trainer {trainer}: training.{key} is {value} and has no effect here; set it to {str(usual).lower()} "
                "in this stage"
            )


def weight_of_tokens(actions: Sequence[str], weights: Mapping[str, float] | None, trainer: str) -> Tensor:
    """[A + 2] float32, by action token; raises SuiteError for an action that the dataset does not have."""
    named = weights or {}
    if unknown := [name for name in named if name not in actions]:
        raise SuiteError(
            f"trainer {trainer}: action_weights: no action {unknown[0]!r} in this dataset; it has {', '.join(actions)}"
        )
    return torch.tensor([1.0] * FIRST_ACTION + [named.get(name, 1.0) for name in actions])


def newest_targets_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """-> (the item that follows each user's newest event [B], 0 where nothing is learnt from it; its action token)."""
    return batch.targets[:, -1], batch.next_actions[:, -1]


def losses_of_stage(state: TrainState, batch: Batch) -> dict[str, Tensor]:
    """-> {term: weighted scalar} of the stage's losses, computed in training mode; empty where it has none."""
    if not state.losses:
        return {}
    state.encoder.train()
    with state.autocast():
        terms = weighted_terms(state.encoder, state.weighted_losses(batch), batch)
    state.encoder.eval()
    return terms


def clipped_objective(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """ratio, advantages [B, G, L] -> [B, G, L]: what an update may gain, which is maximised. Beyond 1 +- clip a ratio
    that went where the advantage points to gains nothing more."""
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def distance(new: Tensor, reference: Tensor) -> Tensor:
    """Log probabilities [B, G, L] of the same decisions -> [B, G, L], GRPO's estimate of the distance, never below 0.

    Over samples of the new policy its mean is KL(new || reference). Its gradient, with the samples held fixed, is in
    the mean that of KL(reference || new).
    """
    away = reference - new
    return away.exp() - away - 1


def shares_of(real: Tensor) -> Tensor:
    """real [B] bool -> [B] float32, what a user counts in a mean over the users that count; 0 for the others. On
    several devices the mean of their means is that over the whole batch's users."""
    counted = real.float()
    return counted / averaged(counted.sum()).clamp(min=1e-6)


def mean_over_users(values: Tensor, shares: Tensor) -> Tensor:
    """values [B, ...], shares [B] -> the mean over users of their values' mean."""
    return (values.float().unsqueeze(1).flatten(1).mean(1) * shares).sum()
