"""GRPO against policy gradients that are worked out over all items of a tiny catalogue."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import nullcontext

import pytest
import torch
from code_worlds import BATCH, ITEMS, codes_of, decoder, world
from training import state_of

from grbench.distributed import ranks
from grbench.errors import SuiteError
from grbench.testing.checks.other_device import OTHER, OtherDevice
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainState
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.layers.path_sampling import SampledPaths, path_log_probabilities
from grbench_reference.losses.next_code import NextCode
from grbench_reference.trainers import grpo
from grbench_reference.trainers.grpo import GRPO
from grbench_reference.trainers.policy import PolicyOptions, clipped_objective, distance

TARGET = 5  # of the user below: the only item of code [3, 2, 2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return world(tmp_path_factory.mktemp("grpo"))


@pytest.fixture
def policy(data):
    return decoder(data, codes_of(data), dropout=0.3, blocks=1)


@pytest.fixture
def trie(data):
    return PrefixTrie(ITEMS, codes_of(data))


ONE_USER = dataclasses.replace(
    BATCH, **{field.name: getattr(BATCH, field.name)[:1] for field in dataclasses.fields(BATCH)}
)


def all_paths(trie):
    """[1, leaves, L], the prefixes of every item's code."""
    leaves = [trie_path(trie, leaf) for leaf in range(trie.num_leaves)]
    return torch.tensor([leaves])


def trie_path(trie, leaf):
    item = ITEMS[trie.items(torch.tensor([[leaf]]), 1)[1][0, 0]]
    of_item = torch.tensor([[0]])
    numbers = []
    for level, code in enumerate(codes_of(None).table[item].tolist()):
        children = torch.arange(len(trie.codes[0])) if level == 0 else trie.children(level, of_item)[1][0]
        of_item = children[trie.codes[level][children] == code].view(1, 1)
        numbers.append(int(of_item))
    return numbers


def dense_chances(policy, trie):
    """[leaves]: each item's probability after the user's history, from code logits of teacher forcing, where what no
    item has is left out. Nothing of the trainer or the sampler."""
    table = torch.unique(codes_of(None).table[1:], dim=0)
    total = torch.zeros(len(table))
    for row, path in enumerate(table.tolist()):
        item = int((codes_of(None).table == table[row]).all(1).nonzero()[-1])
        targets = torch.zeros_like(ONE_USER.targets)
        targets[:, -1] = item
        levels = policy.code_logits(dataclasses.replace(ONE_USER, targets=targets))
        for level, logits in enumerate(levels):
            allowed = torch.unique(table[(table[:, :level] == torch.tensor(path[:level])).all(1)][:, level])
            shares = logits[0, allowed].log_softmax(0)
            total[row] = total[row] + shares[allowed == path[level]][0]
    return total.exp()


def flat(gradients):
    return torch.cat([torch.zeros(1) if each is None else each.flatten() for each in gradients])


def gradient(value, policy):
    return flat(torch.autograd.grad(value, list(policy.parameters()), retain_graph=True, allow_unused=True))


def step_gradient(policy, data, trainer, chosen, monkeypatch):
    """The gradient of a step in which the given leaves are drawn, and the values that it returns."""
    trainer_state = state_of(policy, [], [], TrainingOptions(), data=data, codes=codes_of(data), trainer=trainer)
    trainer_state.begin()
    every = all_paths(trainer.trie)
    prefixes = every[:, list(chosen)]
    codes = torch.stack([trainer.trie.codes[level][prefixes[:, :, level]] for level in range(3)], 2)

    def drawn(policy, batch, trie, count, **_):
        assert count == len(chosen)
        chances = path_log_probabilities(policy, batch, trie, prefixes).detach()
        return SampledPaths(codes=codes, prefixes=prefixes, items=prefixes[:, :, 0], log_probabilities=chances)

    monkeypatch.setattr(grpo, "sample_paths", drawn)
    policy.zero_grad()
    values = trainer.step(trainer_state, one_target())
    return -flat([each.grad for each in policy.parameters()]), values  # of what is maximised


def one_target():
    targets = ONE_USER.targets.clone()
    targets[:, -1] = TARGET
    return dataclasses.replace(ONE_USER, targets=targets)


def test_the_sampled_probabilities_are_those_of_the_codes_that_items_have(policy, trie):
    policy.eval()
    dense = dense_chances(policy, trie)
    assert dense.sum().item() == pytest.approx(1, abs=1e-5)
    found = path_log_probabilities(policy, ONE_USER, trie, all_paths(trie)).sum(2)[0].exp()
    torch.testing.assert_close(found, dense)


def test_the_mean_policy_gradient_is_the_gradient_of_the_expected_reward(policy, data, monkeypatch):
    """Over all pairs of items that could be drawn, each with its probability; a group's own mean takes 1/G of it."""
    policy.eval()
    table = torch.unique(codes_of(None).table[1:], dim=0)
    worth = (table == codes_of(None).table[TARGET]).float().cumprod(1).mean(1)  # the share of leading codes
    chances = dense_chances(policy, PrefixTrie(ITEMS, codes_of(data)))
    expected = gradient((chances * worth).sum(), policy)
    chances = chances.detach()
    mean = torch.zeros_like(expected)
    for drawn in itertools.product(range(len(table)), repeat=2):
        trainer = GRPO(reward="prefix", policy=PolicyOptions(samples=2, kl=0, scale="none"))
        found, _ = step_gradient(policy, data, trainer, drawn, monkeypatch)
        mean += chances[list(drawn)].prod() * found
    torch.testing.assert_close(mean, (1 - 1 / 2) * expected, rtol=1e-3, atol=1e-6)
    assert expected.abs().max() > 1e-3


def test_the_mean_gradient_of_the_distance_is_that_of_the_reverse_divergence(policy, data, monkeypatch):
    """Level by level: the divergence of the reference from the policy at each prefix, weighted by its probability."""
    trainer = GRPO(policy=PolicyOptions(samples=2, kl=0.5, scale="none"))
    reference = decoder(data, codes_of(data), dropout=0.3, blocks=1).eval()
    with torch.no_grad():
        for each in reference.parameters():
            each.add_(0.2 * torch.randn(each.shape, generator=torch.Generator().manual_seed(1)))
    monkeypatch.setattr(trainer, "freeze", lambda _: setattr(trainer, "reference", reference))
    policy.eval()
    trie = PrefixTrie(ITEMS, codes_of(data))
    every = all_paths(trie)[0]
    new, old = (conditional(each, trie) for each in (policy, reference))
    expected = torch.zeros(())
    for level, (mine, theirs) in enumerate(zip(new, old, strict=True)):
        parents = torch.zeros(len(trie.codes[level]), dtype=torch.int64)
        if level:
            parents[every[:, level]] = every[:, level - 1]
        reached = torch.ones(1) if level == 0 else reached_of(new, every, level - 1).detach()
        expected = expected + (reached[parents] * theirs.exp() * (theirs - mine)).sum()
    expected = -0.5 * gradient(expected, policy)
    chances = dense_chances(policy, trie).detach()
    mean = torch.zeros_like(expected)
    for leaf, chance in enumerate(chances):  # both samples are the same leaf: no advantage, the distance alone
        mean += chance * step_gradient(policy, data, trainer, (leaf, leaf), monkeypatch)[0]
    torch.testing.assert_close(mean, expected, rtol=1e-3, atol=1e-6)
    assert expected.abs().max() > 1e-3


def conditional(policy, trie):
    """Per level [n_l], the log probability of each prefix given the one before it."""
    every = all_paths(trie)
    shares = path_log_probabilities(policy, ONE_USER, trie, every)[0]
    return [
        torch.stack([shares[(every[0, :, level] == number).nonzero()[0, 0], level] for number in range(len(codes))])
        for level, codes in enumerate(trie.codes)
    ]


def reached_of(new, every, level):
    """[n_l], the probability of each prefix of the level."""
    total = torch.zeros(len(new[level]))
    for path in every.tolist():
        total[path[level]] = sum(new[each][path[each]] for each in range(level + 1)).exp()
    return total


def test_the_clipped_objective_stops_at_what_the_advantage_points_to():
    ratio = torch.tensor([0.5, 0.5, 1.1, 1.5, 1.5], requires_grad=True)
    advantage = torch.tensor([1.0, -1, 1, 1, -1])
    gained = clipped_objective(ratio, advantage, 0.2)
    assert gained.tolist() == pytest.approx([0.5, -0.8, 1.1, 1.2, -1.5])
    gained.sum().backward()
    assert ratio.grad.tolist() == [1, 0, 1, 0, -1]


def test_the_distance_is_zero_at_the_reference_and_positive_elsewhere():
    new, reference = torch.tensor([0.5, 0.2]).log(), torch.tensor([0.5, 0.4]).log()
    assert distance(new, reference).tolist() == pytest.approx([0, 2 - 0.693147 - 1], abs=1e-5)


def test_ratio_counts_from_the_second_update(policy, data, monkeypatch):
    """With a clip so narrow that one update passes it, the second gains nothing more."""
    options = PolicyOptions(samples=2, kl=0, scale="none", updates=2, clip=1e-6)
    trainer = GRPO(policy=options)
    state = state_of(
        policy,
        [],
        [torch.optim.SGD(policy.parameters(), lr=0.1)],
        TrainingOptions(),
        data=data,
        codes=codes_of(data),
        trainer=trainer,
    )
    state.begin()
    state.step = state.steps = 1
    prefixes = all_paths(trainer.trie)
    hit = int((trainer.trie.codes[2][prefixes[0, :, 2]] == 2).nonzero()[0, 0])
    prefixes = prefixes[:, [hit, 0]]
    codes = torch.stack([trainer.trie.codes[level][prefixes[:, :, level]] for level in range(3)], 2)
    paths = SampledPaths(
        codes=codes, prefixes=prefixes, items=prefixes[:, :, 0], log_probabilities=torch.zeros(1, 2, 3)
    )
    monkeypatch.setattr(grpo, "sample_paths", lambda *_, **__: paths)
    before = path_log_probabilities(policy.eval(), one_target(), trainer.trie, prefixes).sum(2)[0, 0]
    values = trainer.step(state, one_target())
    after = path_log_probabilities(policy, one_target(), trainer.trie, prefixes).sum(2)[0, 0]
    assert after > before
    assert values["clipped"] > 0
    assert values["reward"] == 0.5
    assert values["found"] == 1


def test_only_the_newest_training_target_is_rewarded(policy, data):
    """A user whose newest event is no target, and a row without events, change nothing."""
    trainer = GRPO(policy=PolicyOptions(samples=4))
    state = state_of(policy, [], [], TrainingOptions(), data=data, codes=codes_of(data), trainer=trainer)
    state.begin()
    nothing = dataclasses.replace(BATCH, targets=torch.zeros_like(BATCH.targets))
    values = trainer.step(state, nothing)
    assert values["loss"].detach() == 0
    assert all(each.grad is None or not each.grad.any() for each in policy.parameters())


def test_examples_are_each_users_newest_target(data):
    clicks = data.with_targets(["click"], "here")
    found = GRPO().examples(clicks, 4, seed=0, epoch=1)
    assert found.last_only
    # Events by user: exposures and clicks alternate; users 0 to 3 click last at events 4, 3, 1 and 3; 1 has no history.
    assert dict(zip(found.rows.tolist(), found.stops.tolist(), strict=True)) == {0: 4, 1: 3, 3: 3}
    prefixes = GRPO(examples="prefixes").examples(clicks, 4, seed=0, epoch=1)
    pairs = sorted(zip(prefixes.rows.tolist(), prefixes.stops.tolist(), strict=True))
    assert pairs == [(0, 2), (0, 4), (1, 3), (3, 2), (3, 3)]


def test_unknown_actions_and_idle_options_are_refused(policy, data):
    for trainer, options, what in (
        (GRPO(policy=PolicyOptions(action_weights={"buy": 2.0})), {}, r"no action 'buy' .* it has exposure, click"),
        (GRPO(), {"accumulate": 2}, r"training.accumulate is 2 .* set it to 1"),
        (GRPO(), {"compile": True}, r"training.compile is True .* set it to false"),
    ):
        state = state_of(policy, [], [], TrainingOptions(**options), data=data, codes=codes_of(data), trainer=trainer)
        with pytest.raises(SuiteError, match=what):
            state.begin()


def sgd(module):
    return [torch.optim.SGD(module.parameters(), lr=0.1)]


def test_a_step_on_another_device_is_that_of_the_cpu(data):
    ends = []
    for place in ("cpu", OTHER):
        policy = decoder(data, codes_of(data), blocks=1)
        options = PolicyOptions(samples=4, action_weights={"click": 2.0})
        trainer = GRPO(reward="prefix", advantage="siblings", policy=options)
        with OtherDevice() if place == OTHER else nullcontext():
            parts = policy.to(place), [], trainer, sgd, TrainingOptions()
            state = TrainState(*parts, data=data, codes=codes_of(data), device=place, seed=0)
            state.begin()
            state.step = state.steps = 1
            values = trainer.step(state, BATCH.to(place))
            ends.append([float(each.detach().cpu()) for each in values.values()])
            ends[-1] += torch.cat([each.detach().cpu().flatten() for each in policy.parameters()]).tolist()
    assert ends[1] == pytest.approx(ends[0], rel=1e-5, abs=1e-7)


def test_the_reference_has_its_own_weights_and_shares_what_never_changes(policy, data):
    trainer = GRPO()
    state_of(policy, [], [], TrainingOptions(), data=data, codes=codes_of(data), trainer=trainer).begin()
    theirs = dict(trainer.reference.named_parameters())
    for name, own in policy.named_parameters():
        assert torch.equal(own, theirs[name])
        assert own.data_ptr() != theirs[name].data_ptr()
        assert own.requires_grad
        assert not theirs[name].requires_grad
    table = "history.items.codes.codes"
    assert trainer.reference.get_buffer(table) is policy.get_buffer(table)
    assert set(trainer.state_dict()["reference"]) == set(policy.state_dict())


class Devices:
    """Some of several devices, as a trainer sees them: sums over all of them are given in turn, or noted."""

    alone = False

    def __init__(self, size, totals=None):
        self.size, self.given, self.noted = size, totals, []

    def total(self, values):
        self.noted.append(values)
        return values if self.given is None else self.given[len(self.noted) - 1]


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_devices_of_unequal_parts_take_the_step_of_one(data, scale, monkeypatch):
    """Their gradients are averaged: a part with one user and a part with three count as the four of the batch."""
    gradients, whole = [], Devices(1)
    for rows, devices in ((slice(0, 4), whole), (slice(0, 1), None), (slice(1, 4), None)):
        encoder = decoder(data, codes_of(data), dropout=0.0, blocks=1)
        trainer = GRPO(reward="prefix", policy=PolicyOptions(samples=4, scale=scale))
        losses = [(NextCode(data, codes_of(data)), 0.5)]
        state = state_of(encoder, losses, [], TrainingOptions(), data=data, codes=codes_of(data), trainer=trainer)
        state.begin()
        state.ranks = devices or Devices(2, whole.noted)
        monkeypatch.setattr(ranks, "_current", state.ranks)
        part = {field.name: getattr(BATCH, field.name)[rows] for field in dataclasses.fields(BATCH)}
        trainer.step(state, dataclasses.replace(BATCH, **part))
        gradients.append(flat([each.grad for each in encoder.parameters()]))
    together, one, three = gradients
    torch.testing.assert_close((one + three) / 2, together, rtol=1e-4, atol=1e-6)
    assert together.abs().max() > 1e-3
