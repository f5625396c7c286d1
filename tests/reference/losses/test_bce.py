"""Binary cross entropy, one negative a position, worked out position by position."""

import pytest
import torch
from torch.nn.functional import logsigmoid
from worlds import after_events, batch_of, featured, made_with

from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.losses.bce import BCE
from grbench_reference.tokenizers.ids import Ids


@pytest.mark.parametrize("count", [1, 3])
def test_terms_by_hand(tmp_path, count):
    data = featured(tmp_path)
    torch.manual_seed(0)
    encoder = made_with(CausalTransformer, data, Ids().fit(data), width=8, history_length=3).eval()
    loss = made_with(BCE, data, Ids().fit(data), negatives=count, temperature=0.5)
    batch = batch_of([1, 2, 3], [4, 2], [3], targets=[[2, 3, 1], [2, 0], [1]])
    targets = [(place, int(batch.targets[place])) for place in map(tuple, batch.targets.nonzero().tolist())]
    torch.manual_seed(4)
    terms = loss(encoder, batch)
    torch.manual_seed(4)
    drawn = loss.pool[torch.randint(4, (len(targets), count))]
    states, vectors = encoder.embed(batch, torch.arange(7))
    states = after_events(states, batch)
    positive, negative, masked = 0.0, 0.0, 0
    for (place, target), others in zip(targets, drawn.tolist(), strict=True):
        scores = vectors @ states[place] / 0.5
        positive = positive - logsigmoid(scores[target]) / len(targets)
        kept = [item for item in others if item != target]
        masked += count - len(kept)
        if kept:
            negative = negative - sum(logsigmoid(-scores[item]) for item in kept) / len(kept) / len(targets)
    assert masked > 0  # four items only: some negative is the positive, and must not count
    torch.testing.assert_close(terms["positive"], positive)
    torch.testing.assert_close(terms["negative"], negative)


def test_negatives_by_popularity(tmp_path):
    """To a power this high only items 2 and 3, which have most events, are drawn."""
    data = featured(tmp_path)
    torch.manual_seed(0)
    encoder = made_with(CausalTransformer, data, Ids().fit(data), width=8, history_length=3).eval()
    loss = made_with(BCE, data, Ids().fit(data), negatives=3, sampling="popularity", popularity_power=200.0)
    batch = batch_of([1, 2], [2], targets=[[4, 1], [4]])
    places = [(0, 0), (0, 1), (1, 1)]
    states, vectors = encoder.embed(batch, torch.arange(7))
    states = after_events(states, batch)
    torch.manual_seed(4)
    found = loss(encoder, batch)["negative"]
    torch.manual_seed(4)
    drawn = loss.popularity.draw((3, 3)).tolist()
    assert {item for row in drawn for item in row} == {2, 3}
    each = [-logsigmoid(-vectors[row] @ states[place]).mean() for place, row in zip(places, drawn, strict=True)]
    torch.testing.assert_close(found, sum(each) / 3)


def test_action_weights(tmp_path):
    data = featured(tmp_path)
    torch.manual_seed(0)
    encoder = made_with(CausalTransformer, data, Ids().fit(data), width=8, history_length=3).eval()
    batch = batch_of([1, 2], targets=[[2, 3]])
    batch.next_actions[0, 1] = 3
    states, vectors = encoder.embed(batch, torch.arange(7))
    states = after_events(states, batch)
    losses = [-logsigmoid(vectors[2] @ states[0, 0]), -logsigmoid(vectors[3] @ states[0, 1])]
    found = made_with(BCE, data, Ids().fit(data), action_weights={"click": 3.0})(encoder, batch)["positive"]
    torch.testing.assert_close(found, (losses[0] + 3 * losses[1]) / 4)
