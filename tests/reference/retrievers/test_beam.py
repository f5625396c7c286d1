"""Beam search against scoring every candidate, by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from code_worlds import BATCH, ITEMS, TableDecoder, codes_of, decoder, log_probabilities, world
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from worlds import batch_of

from grbench.errors import RunError, SuiteError
from grbench.interfaces import Decoder, Retriever
from grbench.types import Codes
from grbench_reference.codes.prefix_trie import PrefixTrie
from grbench_reference.losses.next_code import NextCode
from grbench_reference.optimizers.adam import adam
from grbench_reference.retrievers.beam import Beam
from grbench_reference.retrievers.exact import Exact

ROWS = torch.arange(4).unsqueeze(1)


def users(count):
    return batch_of(*[[1]] * count)


def brute_force(scores, candidates, k):
    """The k best of scores [B, P], the lower item first among equals."""
    order = scores.sort(dim=1, descending=True, stable=True)
    return candidates[order.indices[:, :k]], order.values[:, :k]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    count=st.integers(1, 30),
    k=st.integers(1, 35),
    softmax=st.sampled_from(["level", "tree"]),
)
def test_as_wide_as_the_pool_it_equals_scoring_every_candidate(seed, sizes, count, k, softmax):
    rng = np.random.default_rng(seed)
    table = np.stack([rng.integers(0, size, 41) for size in sizes], 1)
    codes = Codes(torch.from_numpy(table), tuple(sizes))
    candidates = torch.from_numpy(np.sort(rng.permutation(40)[:count] + 1))
    encoder = TableDecoder(sizes, 3, seed)
    beam = Beam(width=count, softmax=softmax)
    beam.index(encoder, candidates, codes)
    found = beam.search(encoder, users(3), k)
    existing = [table[item].tolist() for item in candidates] if softmax == "tree" else None
    expected = torch.tensor(
        [[encoder.log_probability(user, table[item].tolist(), existing) for item in candidates] for user in range(3)]
    )
    held = min(k, count)
    torch.testing.assert_close(found.scores[:, :held], brute_force(expected, candidates, k)[1])
    for user in range(3):
        own = dict(zip(candidates.tolist(), expected[user].tolist(), strict=True))
        listed = found.items[user, :held].tolist()
        assert len(set(listed)) == held
        torch.testing.assert_close(torch.tensor([own[item] for item in listed]), found.scores[user, :held])
    assert (found.items[:, held:] == 0).all()
    assert found.scores[:, held:].isneginf().all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 12),
    at_once=st.sampled_from([None, 1, 2]),
    softmax=st.sampled_from(["level", "tree"]),
)
def test_a_narrow_beam_equals_a_plain_one(seed, width, at_once, softmax):
    """Kept level by level: the best prefixes that a candidate continues, of those that were kept before."""
    rng = np.random.default_rng(seed)
    sizes = (3, 4, 5)
    table = np.stack([rng.integers(0, size, 41) for size in sizes], 1)
    candidates = torch.from_numpy(np.sort(rng.permutation(40)[:25] + 1))
    encoder = TableDecoder(sizes, 3, seed)
    beam = Beam(width=width, users_at_once=at_once, softmax=softmax)
    beam.index(encoder, candidates, Codes(torch.from_numpy(table), sizes))
    found = beam.search(encoder, users(3), 25)
    existing = [table[item].tolist() for item in candidates] if softmax == "tree" else None
    for user in range(3):
        kept = [()]
        for level in range(3):
            allowed = {tuple(table[item][: level + 1]) for item in candidates.tolist()}
            grown = [code for code in allowed if code[:level] in kept]
            kept = sorted(grown, key=lambda code: -encoder.log_probability(user, code, existing))[:width]
        expected = {item for item in candidates.tolist() if tuple(table[item]) in kept}
        assert {item for item in found.items[user].tolist() if item} == expected
    assert encoder.rows <= 3 * width  # what is decoded follows the beam, not the candidates


@pytest.mark.parametrize("width", [25, 4])
def test_probabilities_of_the_tree_add_up_to_one(width):
    """However narrow the beam: what is given out below a prefix is what the prefix has."""
    rng = np.random.default_rng(3)
    table = np.stack([rng.integers(0, 4, 26) for _ in range(3)], 1)
    beam = Beam(width=width, softmax="tree")
    beam.index(TableDecoder((4, 4, 4), 2), torch.arange(1, 26), Codes(torch.from_numpy(table), (4, 4, 4)))
    _, leaves, scores = next(iter(beam._beams.search(TableDecoder((4, 4, 4), 2), users(2))))
    totals = scores.exp().sum(1)
    assert (totals <= 1 + 1e-6).all()
    if width == 25:
        torch.testing.assert_close(totals, torch.ones(2))
    assert leaves.shape == (2, min(width, beam._beams.trie.num_leaves))


def test_logits_of_the_tree_may_lie_far_below_those_of_codes_that_no_item_has():
    """Item 1 is (0, 0), item 2 (0, 1): a logit of 1000 for the code 2 behind them leaves them their shares."""
    encoder = TableDecoder((1, 3), 1)
    encoder.logits = [torch.zeros(1, 1), torch.tensor([[[0.0, 1.0, 1000.0]]])]
    beam = Beam(softmax="tree")
    beam.index(encoder, torch.tensor([1, 2]), Codes(torch.tensor([[0, 0], [0, 0], [0, 1]]), (1, 3)))
    found = beam.search(encoder, users(1), 2)
    assert found.items.tolist() == [[2, 1]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.0, 1.0]]).log_softmax(1).flip(1))


def test_by_hand():
    """Two users, two levels. Items 1 and 2 share code (0, 0), item 3 is (0, 1), item 4 is (1, 1); 5 is no candidate."""
    table = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1], [1, 1], [1, 0]])
    encoder = TableDecoder((2, 2), 2)
    shares = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    encoder.logits = [shares.log(), torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log().expand(2, 2, 2)]
    beam = Beam(width=2)
    beam.index(encoder, torch.tensor([1, 2, 3, 4]), Codes(table, (2, 2)))
    found = beam.search(encoder, users(2), 3)
    assert found.items.tolist() == [[1, 2, 3], [1, 2, 3]]
    torch.testing.assert_close(found.scores.exp(), torch.tensor([[0.375, 0.375, 0.375], [0.25, 0.25, 0.25]]))
    assert beam.search(encoder, users(2), 5).items.tolist() == [[1, 2, 3, 0, 0]] * 2  # code (1, 1) fell off the beam
    wide = Beam(width=3)
    wide.index(encoder, torch.tensor([1, 2, 3, 4]), Codes(table, (2, 2)))
    found = wide.search(encoder, users(2), 5)
    assert found.items.tolist() == [[1, 2, 3, 4, 0]] * 2
    torch.testing.assert_close(found.scores[:, 3].exp(), torch.tensor([0.025, 0.05]))
    assert found.scores[:, 4].isneginf().all()
    assert (found.items.dtype, found.scores.dtype) == (torch.int64, torch.float32)


def test_a_list_shorter_than_the_items_of_a_code_is_cut_in_the_middle():
    encoder = TableDecoder((1,), 2)
    beam = Beam(width=1)
    beam.index(encoder, torch.tensor([2, 5, 6]), Codes(torch.zeros((7, 1), dtype=torch.int64), (1,)))
    assert beam.search(encoder, users(2), 2).items.tolist() == [[2, 5]] * 2


@pytest.mark.parametrize("history", ["items", "codes"])
@pytest.mark.parametrize("tokenizer", ["ids", "three"])
def test_the_sid_decoder_searched_and_scored_exhaustively(tmp_path, history, tokenizer):
    data = world(tmp_path)
    codes = codes_of(data, tokenizer)
    encoder = decoder(data, codes, history=history, next_action=True)
    candidates = torch.tensor([1, 2, 4, 5, 7, 8, 9])
    beam = Beam(width=7)
    beam.index(encoder, candidates, codes)
    found = beam.search(encoder, BATCH, 7)
    scores = log_probabilities(encoder, BATCH, codes, candidates)
    torch.testing.assert_close(found.scores, brute_force(scores, candidates, 7)[1])
    own = torch.zeros(4, 10).index_copy(1, candidates, scores)
    torch.testing.assert_close(own.gather(1, found.items), found.scores)
    assert all(sorted(row) == candidates.tolist() for row in found.items.tolist())


class Dense(nn.Module):
    """The decoder over `ids` seen as two sides of a product."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def embed_histories(self, batch):
        inputs, _ = self.encoder.history.start(batch)
        return self.encoder.code_decoder(inputs.unsqueeze(1))[:, 0]

    def embed_items(self, items):
        return self.encoder.head.codes_out[0][items]


@pytest.mark.parametrize("width", [5, 9])
def test_with_ids_it_is_exact_search(tmp_path, width):
    """`ids` + next_code + beam is full softmax + exact top-k; test_next_code has the loss's half."""
    data = world(tmp_path)
    codes = codes_of(data, "ids")
    encoder = decoder(data, codes)
    beam, exact = Beam(width=width), Exact()
    beam.index(encoder, ITEMS, codes)
    exact.index(Dense(encoder), ITEMS, codes)
    one, other = beam.search(encoder, BATCH, 5), exact.search(Dense(encoder), BATCH, 5)
    assert one.items.tolist() == other.items.tolist()
    normaliser = encoder.start(BATCH)[0].logsumexp(1, keepdim=True)
    torch.testing.assert_close(one.scores, other.scores - normaliser)


def test_children_are_ranges():
    """Codes 00, 01, 01, 20, 22: one prefix a level and number."""
    codes = Codes(torch.tensor([[0, 0], [2, 0], [0, 1], [0, 0], [2, 2], [0, 1], [1, 1]]), (3, 3))
    trie = PrefixTrie(torch.tensor([1, 2, 3, 4, 5]), codes)
    assert [level.tolist() for level in trie.codes] == [[0, 2], [0, 1, 0, 2]]
    beams, children = trie.children(1, torch.tensor([[1, -1], [0, 1]]))
    assert children.tolist() == [[2, 3, -1, -1], [0, 1, 2, 3]]
    assert beams[1].tolist() == [0, 0, 1, 1]
    beams, places = trie.items(torch.tensor([[1, 0]]), 4)
    assert (beams.tolist(), places.tolist()) == ([[0, 0, 1, 1]], [[1, 4, 2, -1]])
    assert (trie.num_leaves, trie.bytes > 0) == (4, True)


def test_many_levels_do_not_overflow():
    sizes = (65_536,) * 8  # 2^128 codes
    rows = torch.randint(65_536, (50, 8), generator=torch.Generator().manual_seed(0))
    trie = PrefixTrie(torch.arange(1, 51), Codes(torch.cat([torch.zeros(1, 8, dtype=torch.int64), rows]), sizes))
    assert trie.num_leaves == 50
    order = sorted(range(50), key=lambda row: rows[row].tolist())
    assert trie.positions.tolist() == order


def test_widths_that_do_not_fit():
    codes = Codes(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), (2, 2))
    encoder = TableDecoder((2, 2), 1)
    with pytest.raises(SuiteError, match=r"retriever\.width: a beam of 4 is wider than the pool of 3 candidates"):
        Beam(width=4).index(encoder, torch.tensor([1, 2, 3]), codes)
    with pytest.raises(SuiteError, match=r"retriever\.width: 3 widths for codes of 2 levels"):
        Beam(width=[1, 1, 1]).index(encoder, torch.tensor([1, 2, 3]), codes)
    whole = Beam()  # fifty, or all
    whole.index(encoder, torch.tensor([1, 2, 3]), codes)
    assert sorted(whole.search(encoder, users(1), 3).items[0].tolist()) == [1, 2, 3]
    each = Beam(width=[1, 2])
    each.index(encoder, torch.tensor([1, 2, 3]), codes)
    assert each.report()["width"] == [1, 2]
    assert {"candidates": 3, "codes": 3}.items() <= each.report().items()
    assert (isinstance(each, Retriever), Beam.needs) == (True, (Decoder,))


def test_logits_that_are_no_numbers_name_the_user():
    encoder = TableDecoder((2, 2), 3)
    encoder.logits[1][2, 0] = torch.nan
    beam = Beam(users_at_once=1)
    beam.index(encoder, torch.tensor([1, 2, 3]), Codes(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), (2, 2)))
    with pytest.raises(RunError, match="user row 2 are not finite"):
        beam.search(encoder, users(3), 2)


def test_no_user_at_all(tmp_path):
    data = world(tmp_path)
    beam = Beam()
    beam.index(decoder(data, codes_of(data)), ITEMS, codes_of(data))
    nobody = type(BATCH)(*(getattr(BATCH, name)[:0] for name in BATCH.__dataclass_fields__))
    assert beam.search(decoder(data, codes_of(data)), nobody, 3).items.shape == (0, 3)


@pytest.mark.parametrize("options", [{}, {"history": "codes", "experts": 2, "active_experts": 1}])
def test_what_was_learnt_by_heart_is_found(tmp_path, options):
    data = world(tmp_path)
    codes = codes_of(data)
    torch.manual_seed(0)
    encoder = type(decoder(data, codes))(data, codes, width=16, heads=2, history_length=4, dropout=0.0, **options)
    loss = NextCode(data, codes)
    (optimizer,) = adam(encoder, lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        value = sum(loss(encoder, BATCH).values())
        value.backward()
        optimizer.step()
    assert value < 0.1
    beam = Beam(width=3)
    beam.index(encoder.eval(), ITEMS, codes)
    with torch.no_grad():
        found = beam.search(encoder, BATCH, 2)
    assert found.items[:, 0].tolist() == [5, 7, 7, 9]
    assert found.items[2].tolist() == found.items[1].tolist() == [7, 8]  # which share their code
    assert found.scores[1, 0] == found.scores[1, 1]
