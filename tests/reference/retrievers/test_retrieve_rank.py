"""What is retrieved by vectors is ordered by the ranking stage, and nothing else is listed."""

import pytest
import torch
from worlds import TableEncoder, batch_of

from grbench.errors import RunError
from grbench_reference.retrievers.retrieve_rank import RetrieveRank

CANDIDATES = torch.tensor([1, 2, 4, 5])


class Ranking(TableEncoder):
    """Item i lies at i; candidates are ranked by these scores."""

    def __init__(self, scores):
        super().__init__(torch.ones(2, 1), torch.arange(6.0).unsqueeze(1))
        self.scores = torch.tensor(scores)

    def rank(self, batch, columns, candidates):
        raise NotImplementedError

    def rank_newest(self, batch, candidates):
        return self.scores[candidates]


def search(scores, k, **options):
    retriever, encoder = RetrieveRank(**options), Ranking(scores)
    retriever.index(encoder, CANDIDATES, None)
    return retriever, retriever.search(encoder, batch_of([1], [2]), k)


def test_retrieved_then_ranked():
    """Items 5, 4 and 2 are nearest; 1, which ranking likes best, is not retrieved. Ties: the smaller item first."""
    retriever, found = search([0.0, 9, 3, 0, 1, 3], 5, items=3)
    assert found.items.tolist() == [[2, 5, 4, 0, 0]] * 2
    assert found.scores[0].tolist() == [3, 3, 1, -torch.inf, -torch.inf]
    assert retriever.report()["ranked"] == 3


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(RunError, match="user row 0 are not finite"):
        search([0.0, 1, 2, 0, torch.nan, 3], 2)
