"""The beam's items ranked anew by the dense score."""

import pytest
import torch
from code_worlds import BATCH, ITEMS, codes_of, decoder, world

from grbench.errors import RunError, SuiteError
from grbench.interfaces import Decoder, Embedder, Retriever
from grbench_reference.retrievers.beam import Beam
from grbench_reference.retrievers.beam_rerank import BeamRerank
from grbench_reference.retrievers.exact import Exact


@pytest.fixture
def data(tmp_path):
    return world(tmp_path)


@pytest.mark.parametrize("history", ["items", "codes"])
@pytest.mark.parametrize("similarity", ["dot", "cosine", "euclidean"])
@pytest.mark.parametrize("tokenizer", ["ids", "three"])
def test_with_every_candidate_in_the_beam_it_is_exact(data, history, similarity, tokenizer):
    codes = codes_of(data, tokenizer)
    encoder = decoder(data, codes, history=history, id_width=8)
    rerank, exact = BeamRerank(width=9, similarity=similarity), Exact(similarity=similarity)
    rerank.index(encoder, ITEMS, codes)
    exact.index(encoder, ITEMS, codes)
    one, other = rerank.search(encoder, BATCH, 9), exact.search(encoder, BATCH, 9)
    assert one.items.tolist() == other.items.tolist()
    torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_only_the_beams_items_are_ranked(data, at_once):
    codes = codes_of(data)
    encoder = decoder(data, codes, id_width=8)
    candidates = torch.tensor([1, 3, 4, 5, 6, 7, 8])
    beam, rerank = Beam(width=[2, 3, 3]), BeamRerank(width=[2, 3, 3], items=3, users_at_once=at_once)
    beam.index(encoder, candidates, codes)
    rerank.index(encoder, candidates, codes)
    found = rerank.search(encoder, BATCH, 5)
    assert found.items.shape == (4, 5)
    scores = (encoder.embed_histories(BATCH) @ encoder.embed_items(torch.arange(10)).T).detach()
    for user, items in enumerate(beam.search(encoder, BATCH, 3).items.tolist()):
        expected = sorted(items, key=lambda item: -float(scores[user, item]))
        assert found.items[user].tolist() == [*expected, 0, 0]
        torch.testing.assert_close(found.scores[user, :3], scores[user, expected])
    assert found.scores[:, 3:].isneginf().all()


@pytest.mark.parametrize("softmax", ["level", "tree"])
def test_both_scores_may_count(data, softmax):
    codes = codes_of(data)
    encoder = decoder(data, codes, id_width=8)
    beam, exact = Beam(width=9, softmax=softmax), Exact()
    rerank = BeamRerank(width=9, softmax=softmax, code_weight=0.5)
    for retriever in (beam, exact, rerank):
        retriever.index(encoder, ITEMS, codes)
    found, written, dense = (each.search(encoder, BATCH, 9) for each in (rerank, beam, exact))

    def by_item(lists):
        return torch.zeros(4, 10).scatter(1, lists.items, lists.scores)[:, 1:]

    expected = by_item(dense) + 0.5 * by_item(written)
    torch.testing.assert_close(by_item(found), expected)
    assert found.items.tolist() == (expected.argsort(dim=1, descending=True, stable=True) + 1).tolist()
    assert found.items.tolist() != dense.items.tolist()


def test_fewer_found_than_ranked(data):
    """A beam of one code holds one item, or the two that share it."""
    codes = codes_of(data)
    encoder = decoder(data, codes)
    rerank = BeamRerank(width=1)
    rerank.index(encoder, ITEMS, codes)
    found = rerank.search(encoder, BATCH, 3)
    alike = (codes.table[found.items] == codes.table[found.items[:, :1]]).all(2) & (found.items > 0)
    assert ((found.items > 0) == alike).all()
    assert (found.scores.isneginf() == (found.items == 0)).all()
    assert (alike.sum(1) <= 2).all()


def test_what_does_not_fit(data):
    codes = codes_of(data)
    encoder = decoder(data, codes)
    with pytest.raises(SuiteError, match="a beam of 10 is wider than the pool of 9 candidates"):
        BeamRerank(width=10).index(encoder, ITEMS, codes)
    rerank = BeamRerank()
    rerank.index(encoder, ITEMS, codes)
    assert {"candidates": 9, "codes": 8, "width": 8}.items() <= rerank.report().items()
    assert (isinstance(rerank, Retriever), BeamRerank.needs) == (True, (Decoder, Embedder))
    torch.nn.init.constant_(encoder.history.backbone.start_token, torch.nan)
    with pytest.raises(RunError, match="user row 0"):
        rerank.search(encoder, BATCH, 2)
