"""InfoNCE against a plain rendering of its formula, with every option."""

import pytest
import torch
from worlds import after_events, batch_of, featured, made_with

from grbench.errors import SuiteError
from grbench.registry.options import bind
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.losses.full_softmax import FullSoftmax
from grbench_reference.losses.infonce import InfoNCE
from grbench_reference.tokenizers.ids import Ids

BATCH = batch_of([1, 2, 3], [4, 2], [3], targets=[[2, 3, 1], [2, 0], [1]])


@pytest.fixture
def data(tmp_path):
    return featured(tmp_path)


def encoder_of(data, **options):
    torch.manual_seed(0)
    encoder = made_with(
        CausalTransformer, data, Ids().fit(data), width=8, history_length=3, similarity="cosine", **options
    )
    return encoder.eval()


def plain(encoder, batch, drawn, temperature, weights):
    """Position by position, negative by negative; `drawn` may hold an item twice."""
    states, vectors = encoder.embed(batch, torch.arange(7))
    states = after_events(states, batch)
    total = 0.0
    for user, place in batch.targets.nonzero().tolist():
        target = int(batch.targets[user, place])
        scores = vectors @ states[user, place] / temperature
        others = sum(scores[item].exp() for item in drawn if item != target)
        loss = -(scores[target].exp() / (scores[target].exp() + others)).log()
        total = total + weights[int(batch.next_actions[user, place])] * loss
    norm = sum(weights[int(batch.next_actions[user, place])] for user, place in batch.targets.nonzero().tolist())
    return total / norm


def gradients(value, encoder):
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    return torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_uniform_with_duplicates_and_copies_of_the_positive(data, chunk):
    encoder = encoder_of(data)
    loss = InfoNCE(data, Ids().fit(data), negatives={"uniform": 9}, temperature=0.5, chunk=chunk)
    torch.manual_seed(3)
    found = loss(encoder, BATCH)["infonce"]
    torch.manual_seed(3)
    drawn = loss.sampler.pool[torch.randint(len(loss.sampler.pool), (9,))].tolist()
    assert len(set(drawn)) < 9  # item 2 is a target: at least one copy is masked somewhere
    expected = plain(encoder, BATCH, drawn, 0.5, {2: 1.0})
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, encoder), gradients(expected, encoder), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_in_batch_and_both(data):
    encoder = encoder_of(data)
    codes = Ids().fit(data)
    found = InfoNCE(data, codes, negatives={"in_batch": True})(encoder, BATCH)["infonce"]
    torch.testing.assert_close(found, plain(encoder, BATCH, [1, 2, 3], 1.0, {2: 1.0}))
    both = InfoNCE(data, codes, negatives={"in_batch": True, "uniform": 5})
    torch.manual_seed(5)
    found = both(encoder, BATCH)["infonce"]
    torch.manual_seed(5)
    drawn = both.sampler.pool[torch.randint(4, (5,))].tolist()
    torch.testing.assert_close(found, plain(encoder, BATCH, [*drawn, 1, 2, 3], 1.0, {2: 1.0}))


def test_every_source_and_every_copy_of_the_positive(data):
    """Targets come twice in the batch, in the bank and among what is drawn; none is its own position's negative."""
    encoder, codes = encoder_of(data), Ids().fit(data)
    batch = batch_of([1, 2, 3], [4, 3], [2], targets=[[2, 3, 1], [3, 2], [3]])
    loss = InfoNCE(data, codes, negatives={"in_batch": True, "uniform": 6, "popularity": 7, "bank": 4}, temperature=0.7)
    loss(encoder, batch)  # the bank holds the newest four of its targets
    assert loss.sampler.bank.tolist() == [1, 3, 2, 3]
    torch.manual_seed(5)
    found = loss(encoder, batch)["infonce"]
    torch.manual_seed(5)
    drawn = loss.sampler.pool[torch.randint(4, (6,))].tolist() + loss.sampler.distribution.draw((7,)).tolist()
    torch.testing.assert_close(found, plain(encoder, batch, [*drawn, 1, 2, 3, 1, 3, 2, 3], 0.7, {2: 1.0}))


@pytest.mark.parametrize("chunk", [1, None])
def test_hard_by_hand(data, chunk):
    """Of the distinct in-batch negatives each position keeps the two that it scores highest, its own left out."""
    encoder = encoder_of(data)
    batch = batch_of([1, 2, 3], [4, 2], targets=[[2, 3, 1], [4, 3]])
    loss = InfoNCE(data, Ids().fit(data), negatives={"in_batch": True, "hard": 2}, temperature=0.3, chunk=chunk)
    states, vectors = encoder.embed(batch, torch.arange(7))
    states = after_events(states, batch)
    expected = 0.0
    for user, place in batch.targets.nonzero().tolist():
        target = int(batch.targets[user, place])
        scores = vectors @ states[user, place] / 0.3
        others = sorted((scores[item] for item in (1, 2, 3, 4) if item != target), reverse=True)[:2]
        expected = expected - (scores[target] - torch.stack([scores[target], *others]).logsumexp(0)) / 5
    found = loss(encoder, batch)["infonce"]
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, encoder), gradients(expected, encoder), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_action_weights(data):
    encoder = encoder_of(data)
    batch = batch_of([1, 2, 3], [4, 2], targets=[[2, 3, 1], [2, 0]])
    batch.next_actions[0, 1] = 3
    loss = InfoNCE(data, Ids().fit(data), negatives={"in_batch": True}, action_weights={"click": 2.5, "exposure": 0.5})
    torch.testing.assert_close(loss(encoder, batch)["infonce"], plain(encoder, batch, [1, 2, 3], 1.0, {2: 0.5, 3: 2.5}))


def test_logq_with_very_many_negatives_is_the_full_softmax(data):
    encoder, codes = encoder_of(data), Ids().fit(data)
    sampled = InfoNCE(data, codes, negatives={"uniform": 200_000}, logq="negatives", pool="all")(encoder, BATCH)[
        "infonce"
    ]
    full = FullSoftmax(data, codes)(encoder, BATCH)["full_softmax"]
    torch.testing.assert_close(sampled, full, atol=2e-3, rtol=0)


REPEATED = batch_of([1, 2, 3], [4, 3], [2], targets=[[2, 3, 1], [3, 2], [3]])


def states_and_targets(encoder, batch, temperature):
    """-> ([P, 7] logits of all items at the positions with a target, [P] the targets)."""
    states, vectors = encoder.embed(batch, torch.arange(7))
    places = batch.targets > 0
    return after_events(states, batch)[places] @ vectors.T / temperature, batch.targets[places]


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_onepiece_s_logq_is_its_cross_entropy_over_the_batch(data, chunk):
    """Every position against the targets of all positions as they are: 2, 3, 1, 3, 2, 3, each less the logarithm of its
    share of the training events."""
    encoder = encoder_of(data)
    loss = InfoNCE(data, Ids().fit(data), negatives={"in_batch": True}, logq="onepiece", temperature=0.3, chunk=chunk)
    found = loss(encoder, REPEATED)["infonce"]
    logits, targets = states_and_targets(encoder, REPEATED, 0.3)
    shares = torch.tensor([0.2, 0.3, 0.3, 0.2])  # of items 1 to 4, by hand in test_negatives
    table = logits[:, targets] - shares[targets - 1].log()
    expected = torch.nn.functional.cross_entropy(table, torch.arange(6))
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, encoder), gradients(expected, encoder), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_yi_s_logq_corrects_the_positive_too(data, chunk):
    """Distinct targets 1, 2, 3; the chance that item i is among six targets is 1 - (1 - p_i)^6."""
    encoder = encoder_of(data)
    loss = InfoNCE(data, Ids().fit(data), negatives={"in_batch": True}, logq="yi", temperature=0.3, chunk=chunk)
    found = loss(encoder, REPEATED)["infonce"]
    logits, targets = states_and_targets(encoder, REPEATED, 0.3)
    chances = 1 - (1 - torch.tensor([0.2, 0.3, 0.3])) ** 6
    expected = torch.nn.functional.cross_entropy(logits[:, 1:4] - chances.log(), targets - 1)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, encoder), gradients(expected, encoder), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("variant", ["negatives", "yi", "onepiece"])
def test_every_source_in_each_variant_of_logq(data, variant):
    """Copy by copy: the step's targets, two draws by each distribution, and a bank of four."""
    encoder, codes = encoder_of(data), Ids().fit(data)
    sources = {"in_batch": True, "uniform": 6, "popularity": 7, "bank": 4}
    loss = InfoNCE(data, codes, negatives=sources, logq=variant, temperature=0.7, action_weights={"exposure": 2.0})
    loss(encoder, REPEATED)  # the bank holds the newest four of its targets
    torch.manual_seed(5)
    found = loss(encoder, REPEATED)["infonce"]
    torch.manual_seed(5)
    drawn = loss.sampler.pool[torch.randint(4, (6,))].tolist() + loss.sampler.distribution.draw((7,)).tolist()
    bank = [1, 3, 2, 3]
    shares = {1: 0.2, 2: 0.3, 3: 0.3, 4: 0.2}
    logits, targets = states_and_targets(encoder, REPEATED, 0.7)

    def expected_copies(item):
        in_batch = 6 * shares[item] if variant == "onepiece" else 1 - (1 - shares[item]) ** 6
        return 6 / 4 + 7 * shares[item] + in_batch + 4 * shares[item]

    losses = []
    for position, target in enumerate(targets.tolist()):
        scores = logits[position]
        if variant == "onepiece":
            others = [each for place, each in enumerate(targets.tolist()) if place != position] + drawn + bank
        else:
            others = [each for each in sorted({*targets.tolist()}) + drawn + bank if each != target]
        positive = scores[target].exp()
        if variant != "negatives":
            positive = positive / expected_copies(target)
        rest = sum(scores[each].exp() / expected_copies(each) for each in others)
        losses.append(-(positive / (positive + rest)).log())
    torch.testing.assert_close(found, torch.stack(losses).mean())


@pytest.mark.parametrize("flag", [True, False])
def test_a_flag_is_refused_with_the_variants(flag):
    with pytest.raises(SuiteError, match=r"loss\.logq: should be 'none', 'negatives', 'yi' or 'onepiece', got"):
        bind(InfoNCE, {"logq": flag}, "loss")


@pytest.mark.parametrize("variant", ["none", "negatives", "yi", "onepiece"])
def test_a_batch_without_target_costs_nothing(data, variant):
    encoder = encoder_of(data)
    loss = InfoNCE(data, Ids().fit(data), negatives={"in_batch": True, "uniform": 2}, logq=variant)
    value = loss(encoder, batch_of([1, 2], targets=[[0, 0]]))["infonce"]
    assert value.item() == 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients(value, encoder))


@pytest.mark.parametrize("negatives", [{"uniform": 0, "hard": 5}, {"bank": 64, "in_batch": False}])
def test_no_negatives_is_refused(data, negatives):
    """A bank alone has none in a stage's first step, which may be its only one."""
    with pytest.raises(SuiteError, match="no negatives in the first step of a stage"):
        InfoNCE(data, Ids().fit(data), negatives=negatives)
