"""What trainers by reward share: the clipped objective, the distance from a frozen reference policy, and their options.

Group-relative advantages, the clipped ratio and the estimate of the distance are those of GRPO (arXiv 2402.03300).

Shapes: B users, G samples of a user, L decisions of a sample: its codes, or its steps of denoising.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from grbench.distributed.ranks import averaged
from grbench.errors import SuiteError
from grbench.interfaces import Trainer
from grbench.registry.option_types import Count, OptionGroup
from grbench.training.state import TrainState
from grbench.types import FIRST_ACTION, Batch
from grbench_reference.trainers.advantages import AdvantageScale
from grbench_reference.trainers.supervised import sum_of, weighted_terms


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
    kl: NonNegativeFloat = 1e-3
    scale: AdvantageScale = "group"
    action_weights: dict[str, NonNegativeFloat] | None = None
    temperature: Annotated[float, Field(gt=0)] = 1.0


class PolicyTrainer(Trainer):
    """A trainer by reward. reference: the policy as the stage found it, which learns nothing; None where the distance
    from it has no weight. It is part of a checkpoint."""

    def __init__(self, options: PolicyOptions) -> None:
        self.options = options
        self.reference: nn.Module | None = None

    def freeze(self, encoder: nn.Module) -> None:
        """Copies the encoder, but not what it never saves as it never changes, such as the items' features."""
        if self.options.kl:
            saved = encoder.state_dict().keys()
            constant = {id(buffer): buffer for name, buffer in encoder.named_buffers() if name not in saved}
            self.reference = copy.deepcopy(encoder, constant).eval().requires_grad_(False)

    def improve(
        self,
        state: TrainState,
        batch: Batch,
        decisions: Callable[[], tuple[Tensor, Tensor | None]],
        advantages: Tensor,
        shares: Tensor,
    ) -> dict[str, Tensor]:
        """Updates the model by decisions that were drawn from it, and by the stage's losses.

        decisions: -> (the model's log probabilities of them [B, G, L], their distance from the reference [B, G, L] or
        None); advantages: [B, G, L]; shares: [B], as `shares_of` gives them.
        -> of the last update: `loss`, the terms of the stage's losses, `kl`, `clipped`, the share of decisions by which
        it gained nothing.
        """
        old: Tensor | None = None
        for _ in range(self.options.updates):
            terms = losses_of_stage(state, batch)
            with state.autocast():
                new, apart = decisions()
                away = torch.zeros_like(new) if apart is None else apart
                old = new.detach() if old is None else old
                ratio = (new - old).exp()
                gained = clipped_objective(ratio, advantages, self.options.clip)
                objective = mean_over_users((gained - self.options.kl * away).sum(2), shares)
                loss = sum_of({**terms, "policy": -objective})
            state.backward(loss)
            state.update()
        clipped = (gained.detach() < ratio.detach() * advantages).float()
        return {
            "loss": loss,
            **terms,
            "kl": mean_over_users(away.detach().sum(2), shares),
            "clipped": mean_over_users(clipped, shares),
        }

    def state_dict(self) -> dict[str, Any]:
        """The frozen reference; empty where there is none."""
        return {} if self.reference is None else {"reference": self.reference.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restores the reference, which is frozen already."""
        if self.reference is not None:
            self.reference.load_state_dict(saved["reference"])


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
