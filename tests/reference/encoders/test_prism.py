"""PRISM against a loop over tokens and steps; what each of its parts does, and that its cost is linear in length."""

import pytest
import torch
from torch.nn import functional
from worlds import after_events, away_from_the_start, batch_of, featured, made_with

from grbench.cost.flops import FlopCount
from grbench.errors import SuiteError
from grbench_reference.encoders.prism import Prism
from grbench_reference.layers.prism import PrismMixer, earlier
from grbench_reference.layers.token_packing import lay_out
from grbench_reference.tokenizers.ids import Ids

PARTS = {"steps": 2, "convolution": 2, "nonlinearity": True, "gain": True}
VARIANTS = [
    {},
    {"steps": 1},
    {"steps": 3, "convolution": 0},
    {"nonlinearity": False},
    {"gain": False, "action_conditioning": "attention_bias"},
]
every_way = pytest.mark.parametrize("options", VARIANTS)
BATCH = batch_of([1, 2, 3, 4], [], [2], [3, 3], actions=[[2, 3, 1, 2], [], [3], [2, 3]], length=4)


@pytest.fixture
def data(tmp_path):
    return featured(tmp_path)


def build(data, **options):
    torch.manual_seed(0)
    sizes = {"width": 8, "heads": 2, "blocks": 2, "history_length": 4, "convolution": 2}
    return away_from_the_start(made_with(Prism, data, Ids().fit(data), **{**sizes, **options}))


def mixer(**parts):
    torch.manual_seed(0)
    made = PrismMixer(8, 2, **{**PARTS, **parts}, bias=True, write_bias=None)
    return away_from_the_start(made)


def naive_mixer(mixer, tokens, actions):
    """tokens [n, D] of one row -> [n, D], token by token with the state in hand."""
    width, heads = tokens.shape[1], mixer.heads
    head = width // heads
    query, value, *keys = mixer.project(tokens).chunk(2 + mixer.steps, 1)
    kept = torch.sigmoid(mixer.forget(tokens))
    read = torch.zeros_like(tokens)
    for h in range(heads):
        some = slice(h * head, (h + 1) * head)
        state = torch.zeros(head, head)
        for t in range(len(tokens)):
            state = state * kept[t, h]
            residual = value[t, some].clone()
            if mixer.anchor is not None:
                for back in range(1, min(len(mixer.anchor), t) + 1):
                    residual = residual - mixer.anchor[back - 1, some] * value[t - back, some]
            for step in range(mixer.steps):
                gain = 0.5 if mixer.gain is None else torch.sigmoid(mixer.gain(tokens[t]))[step * heads + h]
                written = gain * (torch.tanh(residual) if mixer.nonlinearity else residual)
                key = functional.normalize(keys[step][t, some], dim=0)
                strength = 1 if mixer.write_bias is None else mixer.write_bias(actions)[t, h].exp()
                state = state + strength * torch.outer(key, written)
                residual = residual - written
            read[t, some] = mixer.read_norm(query[t, some] / head**0.5 @ state)
    return mixer.out(read)


@every_way
def test_equals_a_loop_over_tokens_and_steps(data, options):
    encoder = build(data, **options)
    states = after_events(encoder.embed(BATCH, torch.tensor([1]))[0], BATCH)
    layout = lay_out(BATCH, user_token=True, packed=False)
    (events,) = encoder.items.each_once(layout.take(BATCH.items))
    tokens = encoder._tokens(BATCH, layout, events)
    for row, length in enumerate([4, 0, 1, 2]):
        here = (layout.row == row).nonzero().flatten()[: length + 1]
        mixed, actions = tokens[here], layout.take(BATCH.actions)[here]
        for block in encoder.blocks:
            first, second = block.norms
            mixed = mixed + naive_mixer(block.attention, first(mixed), actions)
            mixed = mixed + block.feed_forward(second(mixed))
        expected = encoder.last_norm(mixed)[1:]
        torch.testing.assert_close(states[row, 4 - length :], expected, atol=1e-4, rtol=1e-4)


@every_way
def test_packed_equals_unpacked(data, options, monkeypatch):
    encoder = build(data, **options)
    results = []
    for packed in (True, False):
        monkeypatch.setattr(
            "grbench_reference.encoders.history_encoder.lay_out",
            lambda batch, user_token, packed=packed: lay_out(batch, user_token=user_token, packed=packed),
        )
        results.append(encoder.embed(BATCH, torch.tensor([1]))[0])
    torch.testing.assert_close(*results)


def test_the_anchor_by_hand():
    """Half of the value before and a tenth of the one before that; the token itself is no part of it."""
    values = torch.tensor([1.0, 2, 4, 8]).view(1, 4, 1)
    weights = torch.tensor([[0.5], [0.1]])
    torch.testing.assert_close(earlier(values, weights).flatten(), torch.tensor([0.0, 0.5, 1.1, 2.2]))


@pytest.mark.parametrize(
    ("parts", "rank"),
    [({}, 2), ({"steps": 3}, 3), ({"steps": 1}, 1), ({"nonlinearity": False}, 1), ({"gain": False}, 2)],
)
def test_the_rank_of_what_a_token_writes(parts, rank):
    """Which is that of the steps; without the non-linearity all of them write along one vector."""
    made = mixer(**parts).double()
    tokens = torch.randn(1, 1, 8, dtype=torch.float64)
    _, value, *keys = made.project(tokens).chunk(2 + made.steps, 2)
    written = made._written(value, None if made.gain is None else torch.sigmoid(made.gain(tokens)), None)[0, :, 0]
    for head in range(2):
        directions = torch.stack([key[0, 0].view(2, 4)[head] for key in keys])
        assert torch.linalg.matrix_rank(directions.T @ written[head], rtol=1e-6) == rank


def test_a_new_anchor_changes_nothing_and_learns():
    torch.manual_seed(0)
    without = PrismMixer(8, 2, **{**PARTS, "convolution": 0}, bias=True, write_bias=None)
    made = PrismMixer(8, 2, **PARTS, bias=True, write_bias=None)
    made.load_state_dict(without.state_dict(), strict=False)
    tokens, layout = torch.randn(10, 8), lay_out(batch_of([1, 2, 3, 4], [1, 2, 3, 4]), user_token=True)
    read = made(tokens, layout, torch.zeros(10, dtype=torch.int64))
    torch.testing.assert_close(read, without(tokens, layout, torch.zeros(10, dtype=torch.int64)))
    read.square().sum().backward()
    assert made.anchor.grad.any()


def test_what_is_computed_grows_linearly_with_the_history():
    made, counts = mixer(), []
    for length in (64, 128, 1024):
        layout = lay_out(batch_of([1] * length), user_token=False)
        with FlopCount() as counted:
            made(torch.randn(length, 8), layout, torch.zeros(length, dtype=torch.int64)).sum().backward()
        counts.append(counted.flops / length)
    assert counts[0] == counts[1] == counts[2]


def test_options_that_do_not_fit(data):
    with pytest.raises(SuiteError, match="3 heads cannot share a width of 8"):
        build(data, heads=3)
