"""Bayesian personalised ranking, worked out position by position."""

import pytest
import torch
from torch.nn.functional import logsigmoid
from worlds import after_events, batch_of, featured, made_with

from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.losses.bpr import BPR
from grbench_reference.tokenizers.ids import Ids

SEED = 1


@pytest.mark.parametrize("count", [1, 3])
def test_terms_by_hand(tmp_path, count):
    data = featured(tmp_path)
    torch.manual_seed(0)
    encoder = made_with(CausalTransformer, data, Ids().fit(data), width=8, history_length=3).eval()
    options = {"negatives": count, "temperature": 0.5, "pool": "all", "action_weights": {"click": 3}}
    loss = made_with(BPR, data, Ids().fit(data), **options)
    batch = batch_of([1, 2, 3], [4, 2], [3], targets=[[2, 3, 1], [2, 0], [1]])
    batch.next_actions[0, 1] = 3
    targets = [(place, int(batch.targets[place])) for place in map(tuple, batch.targets.nonzero().tolist())]
    torch.manual_seed(SEED)
    (found,) = loss(encoder, batch).values()
    torch.manual_seed(SEED)
    drawn = 1 + torch.randint(6, (len(targets), count))
    states, vectors = encoder.embed(batch, torch.arange(7))
    states = after_events(states, batch)
    total, masked = 0.0, 0
    for (place, target), others in zip(targets, drawn.tolist(), strict=True):
        scores = vectors @ states[place] / 0.5
        kept = [item for item in others if item != target]
        masked += count - len(kept)
        weight = 3 if place == (0, 1) else 1
        if count == 1 and kept:
            total = total - weight * logsigmoid(scores[target] - scores[kept[0]])
        else:
            total = total + weight * (scores[[target, *kept]].logsumexp(0) - scores[target])
    assert masked > 0  # some negative is the positive, and must not count
    torch.testing.assert_close(found, total / (len(targets) + 2))
