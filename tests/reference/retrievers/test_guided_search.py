"""Beam search that a verifier or a value head guides, with heads whose judgements are written down by hand."""

import pytest
import torch
from code_worlds import BATCH, ITEMS, TableDecoder, codes_of, decoder, world
from worlds import batch_of, made_with

from grbench.errors import SuiteError
from grbench.types import Codes
from grbench_reference.retrievers.beam import Beam

# Item i + 1 has code (i // 3, i % 3): all nine of two levels.
CODES = Codes(torch.tensor([[0, 0], *([i // 3, i % 3] for i in range(9))]), (3, 3))
POOL = torch.arange(1, 10)


class Judged(TableDecoder):
    """A table decoder whose paths have the scores, and whose prefixes the values, that a function gives."""

    def __init__(self, judge, users=1, seed=0):
        super().__init__((3, 3), users, seed)
        self.judge = judge

    def verifies_paths(self):
        return True

    def path_context(self, batch):
        return batch.users

    def path_scores(self, paths, context, ends=None):
        assert (ends, len(context)) == (None, len(paths))
        return self._judged(paths.flatten(0, 1)).view(paths.shape[:2])

    def values_paths(self):
        return True

    def path_values(self, batch, paths):
        raise NotImplementedError

    def values(self, state):
        return self._judged(state.generated)

    def _judged(self, paths):
        return torch.tensor([float(self.judge(tuple(path))) for path in paths.tolist()])


def of_probabilities(judge, *levels):
    encoder = Judged(judge)
    encoder.logits = [torch.tensor([level]).log() for level in levels]
    return encoder


def search(encoder, count=1, k=9, **options):
    beam = made_with(Beam, **options)
    beam.check_encoder(encoder)
    beam.index(encoder, POOL, CODES)
    return beam.search(encoder, batch_of(*[[1]] * count), k)


@pytest.mark.parametrize("width", [2, [2, 5], 9])
@pytest.mark.parametrize("softmax", ["level", "tree"])
def test_a_verifier_of_constant_score_changes_nothing(width, softmax):
    encoder = Judged(lambda path: 3.0, users=20)
    guided = search(encoder, 20, width=width, softmax=softmax, verify=9)
    plain = search(encoder, 20, width=width, softmax=softmax)
    assert torch.equal(guided.items, plain.items)
    assert torch.equal(guided.scores, plain.scores)
    shifted = search(encoder, 20, width=width, softmax=softmax, verify=9, rank_weight=2.0)
    assert torch.equal(shifted.items, plain.items)
    torch.testing.assert_close(shifted.scores, plain.scores + 6.0)


def test_a_verifier_by_hand():
    """The verifier likes (2) of first codes and (2, 0) and (2, 1) of codes, but sees only the two most probable."""
    liked = {(2,): 5, (0,): 1, (1,): 2, (2, 0): 2, (2, 1): 1, (1, 1): 1.5}
    shares = [0.5, 0.3, 0.2]
    encoder = of_probabilities(lambda path: liked.get(path, 0), shares, [[0.6, 0.3, 0.1]] * 3)
    assert search(encoder, width=1, verify=[2, 1]).items[0, :2].tolist() == [4, 0]  # (1), then its most probable
    assert search(encoder, width=1, verify=[2, 3]).items[0, :2].tolist() == [5, 0]  # (1), then (1, 1)
    assert search(encoder, width=1, verify=3).items[0, :2].tolist() == [7, 0]  # (2), then (2, 0)
    two = search(encoder, width=2, verify=[3, 6])
    assert two.items[0, :3].tolist() == [7, 5, 0]  # of (1) and (2): .12 and .09
    torch.testing.assert_close(two.scores[0, :2].exp(), torch.tensor([0.12, 0.09]))
    ranked = search(encoder, width=2, verify=[3, 6], rank_weight=-torch.tensor(0.75).log().item() / 0.5 - 0.01)
    assert ranked.items[0, :2].tolist() == [7, 5]
    all_of_them = search(encoder, width=9, verify=9)
    assert torch.equal(all_of_them.items, search(encoder, width=9).items)


def test_the_verifiers_score_may_rank():
    """Of all nine, log probability + 10 * score: (1, 1) before (0, 0), which is .3 and not .09."""
    encoder = of_probabilities(lambda path: path == (1, 1), [0.5, 0.3, 0.2], [[0.6, 0.3, 0.1]] * 3)
    found = search(encoder, k=3, width=9, verify=9, rank_weight=10.0)
    assert found.items.tolist() == [[5, 1, 4]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.09, 0.3, 0.18]]).log() + torch.tensor([[10.0, 0, 0]]))


def test_a_value_of_no_weight_changes_nothing():
    encoder = Judged(sum, users=20)
    for width in (2, [1, 4], 9):
        guided, plain = search(encoder, 20, width=width, value_weight=0.0), search(encoder, 20, width=width)
        assert torch.equal(guided.items, plain.items)
        assert torch.equal(guided.scores, plain.scores)


def test_values_and_uncertainty_by_hand():
    """First codes 0 and 1 are kept (.5, .3). Of their children two are kept: (0, 0) .25 and (0, 1) .15 are the most
    probable; (1, 0), (1, 1), (1, 2) have .1 each. Prefix 1 is worth 1 more and its next code is uncertain to the full,
    that of prefix 0 to H = entropy(.5, .3, .2) / log 3 = .937."""
    encoder = of_probabilities(lambda path: path == (1,), [0.5, 0.3, 0.2], [[0.5, 0.3, 0.2], [1 / 3] * 3, [1 / 3] * 3])
    assert search(encoder, k=2, width=2).items.tolist() == [[1, 2]]
    # (1, 0) passes (0, 1) where weight * (1 + exploration * (1 - H)) > log(.15 / .1) = .405.
    assert search(encoder, k=2, width=2, value_weight=0.40, exploration=0.0).items.tolist() == [[1, 2]]
    assert search(encoder, k=2, width=2, value_weight=0.41, exploration=0.0).items.tolist() == [[1, 4]]
    assert search(encoder, k=2, width=2, value_weight=0.37, exploration=1.0).items.tolist() == [[1, 2]]
    assert search(encoder, k=2, width=2, value_weight=0.39, exploration=1.0).items.tolist() == [[1, 4]]
    found = search(encoder, k=2, width=2, value_weight=0.41, exploration=0.0)
    torch.testing.assert_close(found.scores.exp(), torch.tensor([[0.25, 0.1]]))  # ranked by probability all the same


@pytest.mark.parametrize("history", ["items", "codes"])
@pytest.mark.parametrize("options", [{"verify": 9}, {"value_weight": 0.1}])
def test_as_wide_as_the_pool_guided_search_is_exhaustive(tmp_path, history, options):
    data = world(tmp_path)
    codes = codes_of(data)
    encoder = decoder(data, codes, history=history, verifier=True, value_head=True).eval()
    plain, guided = Beam(width=9), made_with(Beam, width=9, **options)
    for beam in (plain, guided):
        beam.check_encoder(encoder)
        beam.index(encoder, ITEMS, codes)
    one, other = plain.search(encoder, BATCH, 9), guided.search(encoder, BATCH, 9)
    assert torch.equal(one.items, other.items)
    torch.testing.assert_close(one.scores, other.scores)


def test_what_does_not_fit(tmp_path):
    data = world(tmp_path)
    encoder = decoder(data, codes_of(data))
    for options in ({"verify": 9}, {"value_weight": 0.1}):
        (name,) = options
        with pytest.raises(SuiteError, match=rf"retriever\.{name}: the encoder has no .* sid_decoder has one with"):
            made_with(Beam, width=9, **options).check_encoder(encoder)
    judged = Judged(lambda path: 0)
    with pytest.raises(SuiteError, match=r"retriever\.verify: of 3 beams that are scored, 4 cannot be kept"):
        search(judged, width=[2, 4], verify=3)
    with pytest.raises(SuiteError, match=r"retriever\.verify: 3 numbers for codes of 2 levels"):
        search(judged, width=2, verify=[3, 3, 3])
    with pytest.raises(SuiteError, match=r"retriever\.verify: it excludes value_weight"):
        search(judged, width=2, verify=3, value_weight=0.1)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"rank_weight": 0.5}, "verify"),
        ({"exploration": 0.5, "verify": 3}, "value_weight"),
        ({"group_penalty": 1.0}, "groups"),
        ({"seed": 1}, "temperature"),
    ],
)
def test_an_option_without_effect_is_refused(options, needed):
    (name, *_) = options
    with pytest.raises(SuiteError, match=rf"retriever\.{name}: it has no effect without {needed}"):
        made_with(Beam, width=2, **options).check(9, CODES)


def test_widths_are_checked_before_codes_are_known():
    made_with(Beam, width=2, verify=[3, 4, 5]).check(9, None)
    made_with(Beam, width=[2, 3], verify=[3, 4]).check(9, None)
    with pytest.raises(SuiteError, match=r"retriever\.verify: 3 numbers for codes of 2 levels"):
        made_with(Beam, width=[2, 3], verify=[3, 4, 5]).check(9, None)
    with pytest.raises(SuiteError, match=r"retriever\.verify: of 1 beams that are scored, 2 cannot be kept"):
        made_with(Beam, width=2, verify=[1, 4]).check(9, None)
