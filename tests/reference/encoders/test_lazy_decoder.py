"""The lazy decoder against loops over positions and heads; cached decoding, what is shared, and what it is taught."""

import dataclasses

import pytest
import torch
from code_worlds import BATCH, SIZES, codes_of, newest_target_only, world
from torch.nn import functional
from worlds import away_from_the_start, batch_of, made_with

from grbench.data.batches import training_batches
from grbench.data.examples import all_prefixes
from grbench.errors import SuiteError
from grbench.interfaces import Decoder
from grbench_reference.encoders.lazy_decoder import LazyDecoder
from grbench_reference.layers.interfaces import CodeScorer
from grbench_reference.losses.next_code import NextCode

VARIANTS = [
    {},
    {"kv_heads": 2, "kv_sets": 2, "separate_values": True},
    {"action_conditioning": "attention_bias", "next_action": True, "kv_heads": 2},
    {"action_conditioning": ["gate", "attention_bias"], "tie_codes": True, "similarity": "cosine", "temperature": 0.2},
    {"time_features": ["gap"], "popularity_windows": [1], "item_features": True, "user_features": False, "blocks": 1},
]
every_way = pytest.mark.parametrize("options", VARIANTS)
tokenizers = pytest.mark.parametrize("tokenizer", ["ids", "three"])


@pytest.fixture
def data(tmp_path):
    return world(tmp_path)


def build(data, codes, **options):
    torch.manual_seed(0)
    sizes = {"width": 8, "heads": 2, "blocks": 2, "history_length": 4}
    return away_from_the_start(made_with(LazyDecoder, data, codes, **{**sizes, **options}))


@every_way
@tokenizers
def test_cached_decoding_equals_teacher_forcing(data, options, tokenizer):
    codes = codes_of(data, tokenizer)
    encoder = build(data, codes, **options)
    assert isinstance(encoder, Decoder)
    assert isinstance(encoder, CodeScorer)
    expected = encoder.code_logits(newest_target_only(BATCH))
    written = codes.table[BATCH.targets[:, -1]]
    logits, state = encoder.start(BATCH)
    torch.testing.assert_close(logits, expected[0])
    for level in range(1, len(codes.sizes)):
        logits, state = encoder.step(written[:, level - 1], state)
        torch.testing.assert_close(logits, expected[level])


@every_way
def test_every_position_is_taught_as_if_it_were_the_last(data, options):
    encoder = build(data, codes_of(data), **options)
    whole = encoder.code_logits(batch_of([1, 2, 3], targets=[[2, 3, 5]]))
    for position, (history, target) in enumerate([([1], 2), ([1, 2], 3), ([1, 2, 3], 5)]):
        alone = encoder.code_logits(batch_of(history, targets=[[0] * position + [target]]))
        for level, logits in enumerate(alone):
            torch.testing.assert_close(logits[0], whole[level][position])


@every_way
def test_selected_rows_go_on_as_those_they_were(data, options):
    encoder = build(data, codes_of(data), **options)
    users, codes = [2, 0, 0, 1, 2, 2], [torch.tensor([3, 0, 1, 2, 0, 1]), torch.tensor([0, 2, 0, 2])]
    _, state = encoder.start(BATCH)
    one, state = encoder.step(codes[0], state.select(torch.tensor(users)))
    order = [5, 1, 1, 0]
    two, _ = encoder.step(codes[1], state.select(torch.tensor(order)))
    for row, before in enumerate(order):
        _, alone = encoder.start(BATCH)
        first, alone = encoder.step(codes[0][before : before + 1], alone.select(torch.tensor([users[before]])))
        torch.testing.assert_close(first[0], one[before])
        torch.testing.assert_close(encoder.step(codes[1][row : row + 1], alone)[0][0], two[row])


def turned(values, place):
    """values [E] at a place, by the definition of rotary positions: pair i by the angle place * 10000^(-2i / E)."""
    half = len(values) // 2
    angle = place * 10_000.0 ** (-torch.arange(half) / half)
    first, second = values[:half], values[half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()])


@pytest.mark.parametrize("options", [{"heads": 4, "kv_heads": 2}, {"kv_sets": 2, "separate_values": True, "width": 8}])
def test_equals_a_loop_over_tokens_and_heads(data, options):
    """One user, the item after two events, without actions."""
    options = {"width": 16, "action_conditioning": "none", "user_features": False, **options}
    codes = codes_of(data)
    encoder = build(data, codes, **options)
    batch = batch_of([4, 2], targets=[[0, 5]])
    width, block = options["width"], encoder.blocks[0]
    heads, head = block.heads, options["width"] // block.heads
    table = encoder.codes_of_items
    context = torch.stack([encoder.start_token, *encoder.items(torch.tensor([4, 2]))])
    sets, sides, groups, _ = encoder.processor.shape
    projected = encoder.processor.project(context).view(3, sets, sides, groups, head)
    target = codes.table[5]
    tokens = torch.stack([encoder.bos, table.embed(0, target[0]), table.embed(1, target[1])])
    for number, block in enumerate(encoder.blocks):
        chosen = number * sets // len(encoder.blocks)
        before, within, last = block.norms
        query, read = block.cross.query(before(tokens)), torch.zeros(3, width)
        for n in range(3):
            for h in range(heads):
                some, group = slice(h * head, (h + 1) * head), h // (heads // groups)
                keys = encoder.processor.norms[chosen](projected[:, chosen, 0, group])
                values = projected[:, chosen, 1, group] if sides == 2 else keys
                asks = turned(query[n, some], 3 + n)
                scores = torch.stack([asks @ turned(key, place) for place, key in enumerate(keys)]) / head**0.5
                read[n, some] = scores.softmax(0) @ values
        tokens = tokens + block.cross.out(read)
        query, key, value = block.qkv(within(tokens)).chunk(3, 1)
        read = torch.zeros(3, width)
        for n in range(3):
            for h in range(heads):
                some = slice(h * head, (h + 1) * head)
                asks = turned(query[n, some], n)
                scores = torch.stack([asks @ turned(key[m, some], m) for m in range(n + 1)]) / head**0.5
                read[n, some] = scores.softmax(0) @ value[: n + 1, some]
        tokens = tokens + block.out(read)
        tokens = tokens + block.feed_forward(last(tokens))
    states = encoder.last_norm(tokens)
    for level, logits in enumerate(encoder.code_logits(batch)):
        here = logits[0].isfinite()
        expected = functional.linear(states[level], encoder.head.codes_out[level])
        torch.testing.assert_close(logits[0, here], expected[here], rtol=1e-4, atol=1e-4)


def test_keys_are_the_values_and_shared_by_all_blocks_and_beams(data):
    encoder = build(data, codes_of(data), blocks=3, heads=4, width=16)
    _, state = encoder.start(BATCH)
    (shared,) = state.context.sets
    assert shared.keys.shape == (4, 1, 5, 4)  # one head's width a token, whatever blocks and heads
    torch.testing.assert_close(shared.keys[:, :, 0], shared.values[:, :, 0])  # place 0 is not turned
    assert state.select(torch.arange(4).repeat_interleave(50)).context is state.context
    assert not any("key" in name or "value" in name for name, _ in encoder.blocks.named_parameters())
    apart = build(data, codes_of(data), blocks=3, kv_sets=2)
    assert apart.set_of_block == [0, 0, 1]
    assert len(apart.start(BATCH)[1].context.sets) == 2


def test_prefixes_are_the_loss_of_the_newest_target_only(data):
    """An epoch has every event but the first ones of histories as the only target of an example, once."""
    encoder, loss = build(data, codes_of(data)), NextCode(data, codes_of(data))
    rows = 0
    for batch in training_batches(data, all_prefixes(data, seed=0, epoch=0), history_length=4, batch_size=4):
        rows += int((batch.all_targets > 0).sum())
        assert ((batch.all_targets > 0).sum(1) <= 1).all()
        assert not batch.targets[:, :-1].any()
        assert all(term.isfinite() for term in loss(encoder, batch).values())
    assert rows == sum(data.lengths) - 4 * (data.first_target - 1)


def test_the_tree_loss_computes_only_what_it_needs(data):
    codes = codes_of(data)
    encoder, needed = build(data, codes), torch.rand(9, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    for level, (some, every) in enumerate(
        zip(encoder.code_states(BATCH, needed), encoder.code_states(BATCH), strict=True)
    ):
        torch.testing.assert_close(some.states, every.states[needed[:, level]])


def test_losses_share_one_context(data):
    encoder, made = build(data, codes_of(data)), []
    encoder.processor.register_forward_hook(lambda *_: made.append(1))
    with encoder.one_pass():
        encoder.code_logits(BATCH)
        encoder.code_logits(BATCH)
    assert len(made) == 1


def test_batches_without_targets_or_events(data):
    encoder = build(data, codes_of(data)).train()
    nothing = dataclasses.replace(BATCH, targets=torch.zeros_like(BATCH.targets))
    levels = encoder.code_logits(nothing)
    assert [tuple(level.shape) for level in levels] == [(0, size) for size in SIZES]
    logits, state = encoder.eval().start(batch_of([], [], length=4))
    logits, _ = encoder.step(torch.tensor([0, 3]), state)
    here = logits[0].isfinite()
    assert here.any()
    assert not torch.allclose(logits[0, here], logits[1, here])


def test_options_that_do_not_fit(data):
    for options, message in (
        ({"heads": 4, "kv_heads": 3}, "must divide heads"),
        ({"kv_sets": 3}, "3 sets for 2 blocks"),
    ):
        with pytest.raises(SuiteError, match=message):
            build(data, codes_of(data), **options)
