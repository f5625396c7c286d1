"""Counts of training events, and nothing else."""

import numpy as np
import pytest
import torch
from worlds import batch_of, featured

from grbench.errors import SuiteError
from grbench.interfaces import Embedder
from grbench_reference.encoders.most_popular import MostPopular
from grbench_reference.tokenizers.ids import Ids


def test_scores_are_training_counts(tmp_path):
    data = featured(tmp_path)
    encoder = MostPopular(data, Ids().fit(data))
    assert isinstance(encoder, Embedder)
    assert not list(encoder.parameters())
    batch, items = batch_of([1, 2], [3]), torch.arange(7)
    scores = encoder.embed_histories(batch) @ encoder.embed_items(items).T
    assert scores.tolist() == [[0, 2, 3, 3, 2, 0, 0]] * 2
    states, vectors = encoder.embed(batch, items)
    assert torch.equal(states @ vectors.T, scores[:, None].expand(2, 2, 7))


def test_counts_of_some_actions_and_of_training_users_only(tmp_path):
    data = featured(tmp_path, users=[0, 1])
    encoder = MostPopular(data, Ids().fit(data), actions=["click"])
    assert encoder.embed_items(torch.arange(7)).flatten().tolist() == [0, 1, 1, 0, 1, 0, 0]
    with pytest.raises(SuiteError, match=r"no action 'clicked'.*exposure, click"):
        MostPopular(data, Ids().fit(data), actions=["clicked"])


def test_ids_are_the_items_themselves(tmp_path):
    codes = Ids().fit(featured(tmp_path))
    assert codes.table.shape == (7, 1)
    assert np.array_equal(codes.table[:, 0], np.arange(7))
    assert codes.sizes == (7,)
