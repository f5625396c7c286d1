"""DiffuReason's stage by reward: densities, gradients and ranks worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from code_worlds import BATCH, codes_of, world
from training import state_of
from worlds import away_from_the_start, made_with

from grbench.errors import SuiteError
from grbench.testing.checks.other_device import OTHER, OtherDevice
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainState
from grbench_reference.encoders.causal_transformer import CausalTransformer, TransformerOptions
from grbench_reference.encoders.diffu_reason import DiffuReason
from grbench_reference.encoders.history_encoder import HistoryOptions
from grbench_reference.layers.intent_diffusion import Hypotheses, IntentDiffusion, Move, directions
from grbench_reference.losses.denoising import Denoising
from grbench_reference.trainers.diffuse import Diffuse, divergence, log_density
from grbench_reference.trainers.policy import PolicyOptions
from grbench_reference.trainers.rewards import RANK_REWARDS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return world(tmp_path_factory.mktemp("diffuse"))


def encoder_of(data, **options):
    torch.manual_seed(0)
    small = {"width": 8, "blocks": 1, "dropout": 0.2, "history_length": 4}
    return away_from_the_start(made_with(DiffuReason, data, codes_of(data), **{**small, **options}))


def begun(encoder, data, trainer, optimizers=()):
    state = state_of(encoder, [], optimizers, TrainingOptions(), data=data, codes=codes_of(data), trainer=trainer)
    state.begin()
    state.step = state.steps = 1
    return state


# --- the diffusion


def test_noise_keeps_the_mean_square_and_stays_below_the_largest_angle():
    torch.manual_seed(0)
    denoiser = IntentDiffusion(16, steps=3, noise=0.6, hidden=8)
    noisy, angles = denoiser.noised(directions(torch.randn(4000, 16)))
    assert noisy.square().mean().item() == pytest.approx(1, abs=0.02)
    assert 0 < float(angles.min()) <= float(angles.max()) <= math.asin(0.6)


def test_denoising_of_a_known_clean_intent_has_the_right_distribution_at_every_step():
    """A denoiser that knows the clean vector, as it does at the start: drawn through all steps, an intent has the mean
    and the deviation of the clean vector with the noise of the last angle."""
    torch.manual_seed(0)
    denoiser = IntentDiffusion(4, steps=3, noise=0.8, hidden=8)
    clean = directions(torch.tensor([1.0, -2, 0.5, 1]))
    hypotheses = Hypotheses(clean.expand(20000, 4), clean.expand(20000, 4))
    noisy = torch.empty(0)
    for number in range(4):
        move = denoiser.start(hypotheses) if number == 0 else denoiser.move(number - 1, noisy, hypotheses)
        noisy = (move.mean + move.deviation * torch.randn_like(move.mean)).detach()
        angle = math.asin(0.8) * (4 - number) / 4
        torch.testing.assert_close(noisy.mean(0), math.cos(angle) * clean, atol=0.02, rtol=0)
        assert noisy.std(0).tolist() == pytest.approx([math.sin(angle)] * 4, abs=0.02)


def test_without_noise_it_goes_to_what_the_denoiser_expects():
    denoiser = IntentDiffusion(4, steps=3, noise=0.8, hidden=8)
    clean = torch.tensor([1.0, -2, 0.5, 1])
    found = denoiser.refined(Hypotheses(clean, clean))
    torch.testing.assert_close(found, directions(clean))


def test_densities_and_divergences_are_those_of_normal_distributions():
    mean, other, drawn = torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 1.5]]), torch.tensor([[1.0, 0.0]])
    normal = torch.distributions.Normal(mean, 0.3)
    torch.testing.assert_close(log_density(drawn, Move(mean, 0.3)), normal.log_prob(drawn).sum(1))
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(other, 0.3)).sum(1)
    torch.testing.assert_close(divergence(Move(mean, 0.3), Move(other, 0.3)), expected)


# --- the encoder


def test_without_thinking_and_steps_it_is_the_causal_transformer(data):
    plain = encoder_of(data, thinking=0, steps=0).eval()
    options = TransformerOptions(
        width=8,
        blocks=1,
        heads=2,
        dropout=0.2,
        history_length=4,
        activation="swiglu",
        norm="rmsnorm",
        norm_placement="pre",
        positions="rotary",
    )
    other = CausalTransformer(data, codes_of(data), transformer=options, history=HistoryOptions(similarity="cosine"))
    other.load_state_dict(plain.state_dict())
    items = torch.arange(1, 10)
    for mine, theirs in zip(plain.embed(BATCH, items), other.eval().embed(BATCH, items), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("next_action", [False, True])
def test_the_newest_intent_is_the_last_of_all(data, next_action):
    encoder = encoder_of(data, next_action=next_action).eval()
    states, _ = encoder.embed(BATCH, torch.arange(1, 10))
    torch.testing.assert_close(encoder.embed_histories(BATCH), states[:, -1])
    every, newest = encoder.hypotheses(BATCH), encoder.newest_hypotheses(BATCH)
    for mine, theirs in zip(every, newest, strict=True):
        torch.testing.assert_close(mine[:, -1], theirs)


def test_a_later_event_changes_no_thought_before_it(data):
    encoder = encoder_of(data, thinking=3).eval()
    before = encoder.hypotheses(BATCH).intents
    items = BATCH.items.clone()
    items[:, -1] = 4
    after = encoder.hypotheses(dataclasses.replace(BATCH, items=items)).intents
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_losses_share_one_pass(data):
    encoder, loss = encoder_of(data).eval(), Denoising(data, codes_of(data))
    with encoder.one_pass():
        encoder.embed(BATCH, torch.arange(1, 10))
        kept = encoder.hypotheses(BATCH)
        assert encoder.hypotheses(BATCH) is kept
        torch.manual_seed(1)
        shared = loss(encoder, BATCH)["denoising"]
    torch.manual_seed(1)
    torch.testing.assert_close(loss(encoder, BATCH)["denoising"], shared)
    assert encoder.hypotheses(BATCH) is not kept


# --- the trainer


def test_ranks_are_those_of_all_items_where_there_are_few(data):
    trainer = Diffuse(policy=PolicyOptions(samples=3))
    state = begun(encoder_of(data), data, trainer)
    intents, targets = torch.randn(4, 3, 8), torch.tensor([5, 6, 8, 7])
    vectors = state.encoder.embed_items(torch.arange(1, 9))  # item 9 has no training event
    scores = intents @ vectors.T
    expected = [
        [1 + int((row > row[target - 1]).sum()) for row in user]
        for user, target in zip(scores, targets.tolist(), strict=True)
    ]
    assert trainer._ranks(state.encoder, intents, targets).tolist() == expected
    assert RANK_REWARDS["rank_gain"](torch.tensor([1.0, 3])).tolist() == [1, 0.5]
    assert RANK_REWARDS["hit"](torch.tensor([10.0, 11])).tolist() == [1, 0]


class TwoItems:
    """Items 1 and 2, whose scores of the intent below are 256.5 and 256.25: equal in half precision."""

    def embed_items(self, items):
        return torch.stack([256 + 0.5 / items, torch.ones(len(items))], 1)


def test_ranks_in_half_precision_tell_close_scores_apart(data):
    trainer = Diffuse(policy=PolicyOptions(samples=2))
    trainer.items = torch.tensor([1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ranks = trainer._ranks(TwoItems(), torch.tensor([[[1.0, 0]], [[1.0, 0]]]), torch.tensor([1, 2]))
    assert ranks.tolist() == [[1], [2]]


def test_a_step_makes_what_did_better_more_probable_by_the_exact_gradient(data):
    """On the policy that drew the samples, the gradient is that of the advantages times the log densities."""
    trainer = Diffuse(policy=PolicyOptions(samples=4, kl=0, scale="none"))
    encoder = encoder_of(data)
    state = begun(encoder, data, trainer)
    torch.manual_seed(3)
    values = trainer.step(state, BATCH)
    found = {name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None}
    torch.manual_seed(3)
    encoder.eval().zero_grad()
    with torch.no_grad():
        drawn = trainer._draw(encoder, BATCH)
        ranks = trainer._ranks(encoder, drawn[-1], BATCH.targets[:, -1])
    rewards = 1 / torch.log2(ranks + 1)
    assert values["reward"].item() == pytest.approx(rewards.mean().item())
    total = torch.zeros(4, 4)
    for intents, move in zip(drawn, trainer._moves(encoder, BATCH, drawn), strict=True):
        total = total + torch.distributions.Normal(move.mean, move.deviation).log_prob(intents).sum(2)
    (-((rewards - rewards.mean(1, keepdim=True)) * total).mean()).backward()
    assert any(each.any() for each in found.values())
    for name, each in encoder.named_parameters():
        if each.grad is not None:
            torch.testing.assert_close(found[name], each.grad, rtol=1e-4, atol=1e-6)


def test_the_distance_is_taken_from_the_model_as_the_stage_found_it(data):
    trainer = Diffuse(policy=PolicyOptions(samples=2, kl=1.0))
    encoder = encoder_of(data)
    state = begun(encoder, data, trainer, [torch.optim.SGD(encoder.parameters(), lr=0.05)])
    first, second = (trainer.step(state, BATCH)["kl"].item() for _ in range(2))
    assert first == 0
    assert second > 0


def test_an_encoder_without_steps_is_refused(data):
    with pytest.raises(SuiteError, match=r"encoder.steps"):
        begun(encoder_of(data, steps=0), data, Diffuse())
    with pytest.raises(SuiteError, match=r"encoder.steps"):
        Denoising(data, codes_of(data))(encoder_of(data, steps=0), BATCH)
    with pytest.raises(SuiteError, match=r"encoder.similarity"):
        encoder_of(data, similarity="dot")


def test_a_step_runs_on_another_device(data):
    encoder = encoder_of(data)
    with OtherDevice():
        parts = encoder.to(OTHER), [], Diffuse(policy=PolicyOptions(samples=3)), lambda _: [], TrainingOptions()
        state = TrainState(*parts, data=data, codes=codes_of(data), device=OTHER, seed=0)
        state.begin()
        state.step = state.steps = 1
        values = state.trainer.step(state, BATCH.to(OTHER))
        assert 0 < float(values["reward"].cpu()) <= 1
