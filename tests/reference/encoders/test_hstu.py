"""HSTU against a loop over rows, heads and pairs; causality, padding, and what each bias does."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from worlds import after_events, away_from_the_start, batch_of, featured, made_with, training_data

from grbench.errors import SuiteError
from grbench.interfaces import Embedder
from grbench_reference.encoders.hstu import HSTU, YEAR, time_buckets
from grbench_reference.layers.token_packing import lay_out
from grbench_reference.tokenizers.ids import Ids

VARIANTS = [
    {},
    {"user_token": False, "position_bias": False, "similarity": "cosine"},
    {"time_bias": False, "positions": "rotary", "norm": "rmsnorm", "next_action": ["click"]},
    {"action_conditioning": "attention_bias", "positions": "none", "heads": 1},
    {"action_conditioning": "film", "user_token": False, "time_buckets": 3},
    {"action_conditioning": ["gate", "film", "attention_bias"]},
    {"attended_norm": False, "time_bias": False, "positions": "none"},
    {
        "time_features": ["gap", "cross_day", "fourier"],
        "popularity_windows": [7],
        "hashed_ids": [2, 3],
        "user_id": True,
    },
]
every_way = pytest.mark.parametrize("options", VARIANTS)
TIMES = [[10, 20, 20, 4000], [], [5], [7, 10**9]]
BATCH = batch_of([1, 2, 3, 4], [], [2], [3, 3], actions=[[2, 3, 1, 2], [], [3], [2, 3]], length=4)
BATCH = dataclasses.replace(BATCH, times=torch.tensor([[0] * (4 - len(row)) + row for row in TIMES]))


def build(data, **options):
    torch.manual_seed(0)
    encoder = made_with(
        HSTU, data, Ids().fit(data), **{"width": 8, "heads": 2, "blocks": 2, "history_length": 4, **options}
    )
    return away_from_the_start(encoder)


@pytest.fixture
def data(tmp_path):
    return featured(tmp_path)


def naive_block(block, tokens, times, actions):
    """tokens [n, D] of one row, times [n] or None for a user token, actions [n] -> [n, D], pair by pair."""
    count, width = tokens.shape
    head = width // block.heads
    u, v, q, k = functional.silu(block.uvqk(block.norm(tokens))).chunk(4, dim=1)
    if block.rotary is not None:
        heads = (side.view(1, count, block.heads, head).transpose(1, 2) for side in (q, k))
        q, k = (block.rotary(side).transpose(1, 2).reshape(count, width) for side in heads)
    read = torch.zeros(count, width)
    for h in range(block.heads):
        some = slice(h * head, (h + 1) * head)
        for i in range(count):
            for j in range(i + 1):
                score = q[i, some] @ k[j, some] / math.sqrt(head)
                if block.position_bias is not None:
                    score = score + block.position_bias[i - j, h]
                if block.time_bias is not None:
                    last = len(block.time_bias) - 1
                    bucket = last
                    if times[j] is not None:
                        bucket = int(math.log1p(times[i] - times[j]) / math.log1p(YEAR) * last)
                    score = score + block.time_bias[min(bucket, last - 1) if times[j] is not None else last, h]
                if block.key_bias is not None:
                    score = score + block.key_bias(actions)[j, h]
                read[i, some] += score * torch.sigmoid(score) * v[j, some]
    if block.attended_norm is not None:
        read = block.attended_norm(read / torch.arange(1, count + 1).unsqueeze(1))
    return tokens + block.out(u * read)


@every_way
def test_equals_a_loop_over_rows_and_pairs(data, options):
    encoder = build(data, **options)
    states = after_events(encoder.embed(BATCH, torch.tensor([1]))[0], BATCH)
    layout = lay_out(BATCH, user_token=encoder.user_token, packed=False)
    (events,) = encoder.items.each_once(layout.take(BATCH.items))
    tokens = encoder._tokens(BATCH, layout, events)
    for row, times in enumerate(TIMES):
        first = int(encoder.user_token)
        here = (layout.row == row).nonzero().flatten()[: len(times) + first]
        mixed, actions = tokens[here], layout.take(BATCH.actions)[here]
        for block in encoder.blocks:
            mixed = naive_block(block, mixed, [None] * first + times, actions)
        expected = encoder.last_norm(mixed)[first:]
        expected = encoder._normalise(encoder._condition(expected, BATCH.next_actions[row, 4 - len(times) :]))
        torch.testing.assert_close(states[row, 4 - len(times) :], expected, atol=1e-4, rtol=1e-4)


@every_way
def test_packed_equals_unpacked(data, options, monkeypatch):
    encoder = build(data, **options)
    results = []
    for packed in (True, False):
        monkeypatch.setattr(
            "grbench_reference.encoders.history_encoder.lay_out",
            lambda batch, user_token, packed=packed: lay_out(batch, user_token=user_token, packed=packed),
        )
        results.append([*encoder.embed(BATCH, torch.tensor([1, 6])), encoder.embed_histories(BATCH)])
        assert all(torch.isfinite(result).all() for result in results[-1])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@every_way
def test_padding_and_neighbours_change_nothing(data, options):
    encoder = build(data, **options)
    together = encoder.embed_histories(BATCH)
    alone = dataclasses.replace(
        batch_of([3, 3], actions=[[2, 3]], users=[3]),
        times=torch.tensor([TIMES[3]]),
        next_actions=BATCH.next_actions[3:, 2:],
    )
    torch.testing.assert_close(encoder.embed_histories(alone)[0], together[3])


@every_way
def test_no_state_sees_the_future(data, options):
    encoder = build(data, **options)
    later = torch.tensor([[0, 0, 1, 0]] + [[0] * 4] * 3)
    changed = dataclasses.replace(
        BATCH, items=BATCH.items + later, actions=BATCH.actions + later, times=BATCH.times + 1000 * later
    )
    one, other = (after_events(encoder.embed(batch, torch.tensor([1]))[0], batch)[0] for batch in (BATCH, changed))
    torch.testing.assert_close(one[:2], other[:2])
    assert not torch.allclose(one[2], other[2])


@every_way
def test_gradients_are_finite_and_reach_everything(data, options):
    encoder = build(data, **options).train()
    states, vectors = encoder.embed(
        dataclasses.replace(BATCH, next_actions=BATCH.next_actions * 3 // 2), torch.tensor([1, 6])
    )
    (states[..., 0].sum() + vectors[..., 0].sum() + encoder.embed_histories(BATCH)[:, 1].sum()).backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for block in encoder.blocks:
        assert all((parameter.grad != 0).any() for parameter in block.parameters())


@every_way
def test_bfloat16_is_near_float32(data, options):
    encoder = build(data, **options, blocks=1)
    plain = encoder.embed_histories(BATCH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halves = encoder.embed_histories(BATCH).float()
        encoder.train().embed(BATCH, torch.tensor([1]))[0].float().sum().backward()
    torch.testing.assert_close(
        functional.cosine_similarity(plain[[0, 2, 3]], halves[[0, 2, 3]]), torch.ones(3), atol=0.05, rtol=0
    )
    assert all(p.grad.isfinite().all() for p in encoder.blocks.parameters())


@every_way
def test_embed_equals_the_two_separate_methods(data, options):
    encoder = build(data, **options)
    assert isinstance(encoder, Embedder)
    items = torch.tensor([6, 1, 2])
    states, vectors = encoder.embed(BATCH, items)
    some = torch.tensor([0, 2, 3])
    torch.testing.assert_close(states[some, -1], encoder.embed_histories(BATCH)[some])
    torch.testing.assert_close(vectors, encoder.embed_items(items))


def test_buckets_of_time():
    """Four buckets, cut where 1 + t is a power of the fourth root of a year; a key without a time has the fifth."""
    cut = (1 + YEAR) ** 0.25
    times = torch.tensor([[0, 0, int(cut), int(cut**2), 10**9]])
    known = torch.tensor([[False, True, True, True, True]])
    buckets = time_buckets(times, known, 4)[0].tolist()
    assert buckets[4] == [4, 3, 3, 3, 0]
    assert buckets[3] == [4, 2, 1, 0, 0]
    assert buckets[2] == [4, 1, 0, 0, 0]
    assert buckets[1] == [4, 0, 0, 0, 0]


def test_times_are_an_input_where_there_are_any(data, tmp_path):
    moved = dataclasses.replace(BATCH, times=BATCH.times * 50)
    told, blind = build(data), build(data, time_bias=False)
    assert not torch.allclose(told.embed_histories(BATCH), told.embed_histories(moved))
    torch.testing.assert_close(blind.embed_histories(BATCH), blind.embed_histories(moved))
    timeless = training_data(tmp_path / "timeless", [[(1, 0, 0), (2, 0, 0)]], has_times=False)
    assert build(timeless).blocks[0].time_bias is None


def test_positions_tell_orders_apart(data):
    orders = batch_of([1, 2, 3]), batch_of([2, 1, 3])
    encoder = build(data, positions="none", blocks=1)
    assert not torch.allclose(*(encoder.embed_histories(order) for order in orders))
    blind = build(data, positions="none", blocks=1, position_bias=False)
    torch.testing.assert_close(*(blind.embed_histories(order) for order in orders))


def test_options_that_do_not_fit(data):
    with pytest.raises(SuiteError, match="3 heads cannot share a width of 8"):
        build(data, heads=3)
    with pytest.raises(SuiteError, match=r"2 heads cannot share a width of 6; .* multiple of 4, since rotary"):
        build(data, width=6, heads=2, positions="rotary")


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_all_norms_have_the_epsilon_of_the_released_code(data, norm):
    """Of a variance of 1e-6, as much as epsilon: (+-.001) / sqrt(2e-6) = +-.7071."""
    encoder = build(data, norm=norm)
    norms = [encoder.last_norm, *(each for block in encoder.blocks for each in (block.norm, block.attended_norm))]
    width = encoder.width
    small = torch.tensor([0.001, -0.001]).repeat(width // 2)
    for each in norms:
        nn.init.ones_(each.weight)
        if norm == "layernorm":
            nn.init.zeros_(each.bias)
        torch.testing.assert_close(each(small), small.sign() * 0.5**0.5, rtol=1e-4, atol=0)
