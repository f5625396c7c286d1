"""Policy-gradient training of a decoder: group-relative policy optimisation, GRPO (arXiv 2402.03300), of sampled items.

Shapes: B users, G samples of a user, L code levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor

from grbench.data.examples import Examples, all_prefixes, newest_targets
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Decoder
from grbench.training.state import TrainState
from grbench.types import Batch
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.kernels.keyed_noise import seed_of
from grbench_reference.layers.interfaces import CodeLearner
from grbench_reference.layers.path_sampling import path_log_probabilities, sample_paths
from grbench_reference.trainers.advantages import group_advantages, sibling_advantages
from grbench_reference.trainers.policy import (
    PolicyOptions,
    PolicyTrainer,
    check_options,
    distance,
    mean_over_users,
    newest_targets_of,
    shares_of,
    weight_of_tokens,
)
from grbench_reference.trainers.rewards import REWARDS, Samples


class GRPO(PolicyTrainer):
    """Draws items from the decoder, rewards those that are the target, and makes what did better than its group more
    probable. For a stage after supervised training, with a small learning rate (V-STAR: 1e-5).

    The policy writes codes that some item has: after each prefix, a softmax over the codes that may follow (search with
    `softmax: tree`). Each user's newest event is the state that is sampled from, and the training event after it the
    target. Codes are those of the items as the stage begins; items that share the target's codes are rewarded too.
    Dropout is off while the policy is sampled and compared. Losses of the stage are added to the objective; `loss: []`
    trains by reward alone.

    Args:
        reward: of a sample: hit = 1 for the target; prefix = the share of leading codes that are the target's;
            rank_gain = what the sample adds to the NDCG of the user's different samples, ordered by probability.
        advantage: what a sample's reward is compared with: group = all samples of the user (GRPO); siblings = for each
            code, the samples with the same prefix before it (V-STAR, arXiv 2602.10699).
        examples: what an epoch samples from: newest = each user once, before its newest event that may be a target;
            prefixes = before each such event.
    """

    needs = (Decoder,)

    def __init__(
        self,
        *,
        reward: Literal["hit", "prefix", "rank_gain"] = "hit",
        advantage: Literal["group", "siblings"] = "group",
        examples: Literal["newest", "prefixes"] = "newest",
        policy: PolicyOptions = PolicyOptions(),
    ) -> None:
        super().__init__(policy)
        self.reward, self.siblings = REWARDS[reward], advantage == "siblings"
        self.newest = examples == "newest"

    def start(self, state: TrainState) -> None:
        """Freezes the reference, and builds the trie of all items' codes. Raises SuiteError for options that do not fit
        the data or the training options, and where codes would change in the stage."""
        check_options(state, "grpo")
        if (
            isinstance(state.encoder, CodeLearner)
            and state.encoder.learns_codes()
            and (state.losses or not state.stage)
        ):
            raise SuiteError(
                "trainer grpo: items keep the codes that they have as the stage begins; with `encoder.learn_codes` it "
                "needs a stage before it, and `loss: []`"
            )
        items = torch.arange(1, state.data.catalogue.num_items + 1, device=state.device)
        self.trie, self.codes = PrefixTrie(items, state.codes), state.codes.table.to(state.device)
        actions = state.data.catalogue.actions
        self.weights = weight_of_tokens(actions, self.options.action_weights, "grpo").to(state.device)
        self.freeze(state.encoder)

    def step(self, state: TrainState, batch: Batch) -> Mapping[str, Tensor]:
        """-> `loss`, the terms of the stage's losses if there are any, and: reward, of the mean sample; found, the
        share of users with the target among their samples; distinct, the share of samples that differ from the user's
        others before them; kl, the estimated distance from the reference; clipped, the share of codes that the last
        update gained nothing by."""
        targets, actions = newest_targets_of(batch)
        real, options, policy = targets > 0, self.options, cast(Decoder, state.encoder)
        shares = shares_of(real)
        state.encoder.eval()  # with dropout, two passes of one policy would give one sample two probabilities
        with state.autocast():
            paths = sample_paths(
                policy,
                batch,
                self.trie,
                options.samples,
                seed=seed_of(state.seed, state.total_steps),
                temperature=options.temperature,
            )
            samples = Samples(paths.prefixes, paths.codes, self.codes[targets], paths.log_probabilities.sum(2))
            rewards = self.reward(samples)
            advantages = self._advantages(rewards, paths.prefixes, real) * self.weights[actions][:, None, None]
            frozen = None
            if self.reference is not None:
                with torch.no_grad():
                    frozen = self._log_probabilities(cast(Decoder, self.reference), batch, paths.prefixes)

        def decisions() -> tuple[Tensor, Tensor | None]:
            new = self._log_probabilities(policy, batch, paths.prefixes)
            return new, None if frozen is None else distance(new, frozen)

        return {
            **self.improve(state, batch, decisions, advantages, shares),
            "reward": mean_over_users(rewards, shares),
            "found": mean_over_users(samples.hits.amax(1), shares),
            "distinct": mean_over_users(samples.distinct, shares),
        }

    def examples(self, data: TrainingData, history_length: int, seed: int, epoch: int) -> Examples | None:  # noqa: ARG002
        """See Trainer. A user's first event is no target here: nothing comes before it to decode from."""
        if self.newest:
            return newest_targets(data, seed=seed, epoch=epoch, least=2)
        found = all_prefixes(data, seed=seed, epoch=epoch)
        with_history = found.stops > 1
        return replace(found, rows=found.rows[with_history], stops=found.stops[with_history])

    def _advantages(self, rewards: Tensor, prefixes: Tensor, real: Tensor) -> Tensor:
        """rewards [B, G], prefixes [B, G, L] -> [B, G, L]."""
        if self.siblings:
            return sibling_advantages(rewards, prefixes, self.options.scale, real)
        return group_advantages(rewards, self.options.scale, real).unsqueeze(2).expand(prefixes.shape)

    def _log_probabilities(self, policy: Decoder, batch: Batch, prefixes: Tensor) -> Tensor:
        """prefixes [B, G, L] -> [B, G, L], of each code of these paths."""
        return path_log_probabilities(policy, batch, self.trie, prefixes, temperature=self.options.temperature)
