"""Full softmax against torch's cross entropy."""

import pytest
import torch
from torch.nn import functional
from worlds import after_events, batch_of, featured, made_with

from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.losses.full_softmax import FullSoftmax
from grbench_reference.tokenizers.ids import Ids

BATCH = batch_of([1, 2, 3], [4, 2], [3], targets=[[2, 3, 1], [2, 0], [1]])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("pool", ["all", "trained"])
@pytest.mark.parametrize("chunk", [2, None])
def test_equals_torch(tmp_path, smoothing, pool, chunk):
    data = featured(tmp_path)
    codes = Ids().fit(data)
    torch.manual_seed(0)
    encoder = made_with(CausalTransformer, data, codes, width=8, history_length=3).eval()
    loss = FullSoftmax(data, codes, temperature=0.5, label_smoothing=smoothing, pool=pool, chunk=chunk)
    found = loss(encoder, BATCH)["full_softmax"]
    items = torch.arange(1, 7 if pool == "all" else 5)
    states, vectors = encoder.embed(BATCH, items)
    learnt = BATCH.targets > 0
    expected = functional.cross_entropy(
        after_events(states, BATCH)[learnt] @ vectors.T / 0.5, BATCH.targets[learnt] - 1, label_smoothing=smoothing
    )
    torch.testing.assert_close(found, expected)
    sides = [
        torch.autograd.grad(value, list(encoder.parameters()), materialize_grads=True, allow_unused=True)
        for value in (found, expected)
    ]
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
