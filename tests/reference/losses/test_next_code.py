"""Next-code cross entropy against torch's own, and against the full softmax where a code is an item."""

import pytest
import torch
from code_worlds import BATCH, codes_of, decoder, world
from torch import nn
from torch.nn import functional
from worlds import batch_of

from grbench.errors import SuiteError
from grbench.interfaces import Decoder, Embedder
from grbench_reference.layers.interfaces import CodeScorer
from grbench_reference.losses.full_softmax import FullSoftmax
from grbench_reference.losses.next_code import NextCode


@pytest.fixture
def data(tmp_path):
    return world(tmp_path)


def gradients(value, encoder):
    return torch.autograd.grad(value, list(encoder.parameters()), allow_unused=True, materialize_grads=True)


def assert_same(one, other, encoder):
    torch.testing.assert_close(one, other)
    for left, right in zip(gradients(one, encoder), gradients(other, encoder), strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


def plain(encoder, batch, codes, by_action, level_weights):
    """The same with torch's cross entropy, position by position weighted."""
    places = batch.targets.reshape(-1).nonzero().squeeze(1)
    weights = torch.tensor([by_action.get(token, 1.0) for token in batch.next_actions.reshape(-1)[places].tolist()])
    targets = codes.table[batch.targets.reshape(-1)[places]]
    total = 0.0
    for level, (logits, factor) in enumerate(zip(encoder.code_logits(batch), level_weights, strict=True)):
        each = functional.cross_entropy(logits, targets[:, level], reduction="none")
        total = total + factor * (weights * each).sum() / weights.sum()
    return total


@pytest.mark.parametrize("tokenizer", ["ids", "three"])
@pytest.mark.parametrize("history", ["items", "codes"])
@pytest.mark.parametrize("chunk", [2, None])
def test_equals_torch(data, tokenizer, history, chunk):
    codes = codes_of(data, tokenizer)
    encoder = decoder(data, codes, history=history)
    batch = batch_of([1, 2, 3], [4, 2], targets=[[2, 3, 1], [2, 0]])
    batch.next_actions[0, 1] = 3
    factors = [1.0, 0.5, 2.0][: len(codes.sizes)]
    loss = NextCode(data, codes, action_weights={"click": 2.5, "exposure": 0.5}, level_weights=factors, chunk=chunk)
    terms = loss(encoder, batch)
    assert list(terms) == [f"next_code_{level}" for level in range(1, len(codes.sizes) + 1)]
    assert_same(sum(terms.values()), plain(encoder, batch, codes, {2: 0.5, 3: 2.5}, factors), encoder)


@pytest.mark.parametrize("chunk", [2, None])
@pytest.mark.parametrize("logits_only", [False, True])
def test_in_the_tree_a_code_competes_with_those_behind_its_prefix(data, chunk, logits_only):
    codes = codes_of(data)
    encoder = decoder(data, codes)
    loss = NextCode(data, codes, softmax="tree", chunk=chunk)
    items = codes.table[1:].tolist()
    targets = BATCH.targets[BATCH.targets > 0]
    expected = 0.0
    for level, logits in enumerate(encoder.code_logits(BATCH)):
        for row, own in zip(logits, codes.table[targets].tolist(), strict=True):
            others = sorted({item[level] for item in items if item[:level] == own[:level]})
            expected = expected + (row[others].logsumexp(0) - row[own[level]]) / len(targets)
    found = sum(loss(LogitsOnly(encoder) if logits_only else encoder, BATCH).values())
    assert_same(found, expected, encoder)


def test_in_the_tree_a_code_without_rival_costs_nothing(data):
    """Items 3 and 9 alone begin with (0, 2) and (1, 2): their third code is certain."""
    codes = codes_of(data)
    encoder = decoder(data, codes)
    terms = NextCode(data, codes, softmax="tree")(encoder, batch_of([1, 2], [4], targets=[[0, 3], [9]]))
    assert terms["next_code_3"].item() == pytest.approx(0, abs=1e-6)
    assert terms["next_code_1"].item() > 0


class LogitsOnly(nn.Module):
    """The interface Decoder alone: what a stranger's encoder may show."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def code_logits(self, batch):
        return self.encoder.code_logits(batch)


def test_any_decoder_will_do(data):
    codes = codes_of(data)
    encoder = decoder(data, codes)
    stranger = LogitsOnly(encoder)
    assert not isinstance(stranger, CodeScorer)
    loss = NextCode(data, codes, action_weights={"click": 3.0})
    assert_same(sum(loss(stranger, BATCH).values()), sum(loss(encoder, BATCH).values()), encoder)


class Dense(nn.Module):
    """The decoder over `ids` seen as two sides of a product: the state before its only code, and each code's vector."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def embed(self, batch, items):
        (level,) = self.encoder.code_states(batch)
        grid = level.states.new_zeros(batch.targets.numel(), level.states.shape[1])
        grid = grid.index_copy(0, batch.targets.reshape(-1).nonzero().squeeze(1), level.states)
        return grid.view(*batch.targets.shape, -1), level.vectors[items - 1]


@pytest.mark.parametrize("options", [{}, {"history": "codes"}, {"tie_codes": True, "similarity": "cosine"}])
def test_with_ids_it_is_the_full_softmax(data, options):
    codes = codes_of(data, "ids")
    encoder = decoder(data, codes, **options)
    weights = {"click": 2.5}
    found = NextCode(data, codes, action_weights=weights)(encoder, BATCH)["next_code_1"]
    expected = FullSoftmax(data, codes, action_weights=weights)(Dense(encoder), BATCH)["full_softmax"]
    assert_same(found, expected, encoder)


@pytest.mark.parametrize("history", ["items", "codes"])
def test_a_batch_without_target_costs_nothing(data, history):
    codes = codes_of(data)
    encoder = decoder(data, codes, history=history)
    value = sum(NextCode(data, codes)(encoder, batch_of([1, 2], targets=[[0, 0]])).values())
    assert value.item() == 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients(value, encoder))


@pytest.mark.parametrize("options", [{}, {"history": "codes", "item_features": True}, {"experts": 2, "id_width": 4}])
def test_half_precision(data, options):
    codes = codes_of(data)
    encoder = decoder(data, codes, **options).train()
    loss = NextCode(data, codes)
    with torch.autocast("cpu", torch.bfloat16):
        value = sum(loss(encoder, BATCH).values())
    assert value.dtype == torch.float32
    assert all(torch.isfinite(gradient).all() for gradient in gradients(value, encoder))


def test_options_that_do_not_fit(data):
    with pytest.raises(SuiteError, match=r"loss\.level_weights: 2 weights for codes of 3 levels"):
        NextCode(data, codes_of(data), level_weights=[1.0, 1.0])
    with pytest.raises(SuiteError, match="no action 'like'"):
        NextCode(data, codes_of(data), action_weights={"like": 1.0})
    assert NextCode.needs == (Decoder,)
    assert Embedder not in NextCode.needs
