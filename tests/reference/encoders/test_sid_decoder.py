"""The semantic-id decoder: what it reads, what it writes, and that the two ways to write agree."""

import dataclasses

import pytest
import torch
from code_worlds import BATCH, ITEMS, SIZES, codes_of, decoder, newest_target_only, world
from worlds import batch_of, made_with

from grbench.errors import RunError, SuiteError
from grbench.interfaces import Decoder, Embedder
from grbench.types import Codes
from grbench_reference.codes.random_k import as_tensors
from grbench_reference.encoders.sid_decoder import SIDDecoder
from grbench_reference.layers.interfaces import ActionPredictor, CodeScorer
from grbench_reference.layers.mixture_of_experts import MixtureOfExperts
from grbench_reference.layers.token_packing import lay_out

VARIANTS = [
    {},
    {"history": "codes"},
    {"tie_codes": True, "similarity": "cosine", "temperature": 0.2, "decoder_blocks": 0},
    {"history": "codes", "tie_codes": True, "next_action": True, "item_features": True, "user_features": False},
    {"experts": 3, "active_experts": 2, "next_action": True, "id_width": 4, "action_conditioning": "none"},
    {"action_conditioning": "gate", "next_action": ["click"]},
    {"action_conditioning": "film", "history": "codes", "item_features": True},
    {"action_conditioning": ["gate", "film", "attention_bias"]},
    {"action_conditioning": ["film", "attention_bias"], "history": "codes", "next_action": ["click"]},
    {"time_features": ["gap", "session", "fourier"], "popularity_windows": [1], "hashed_ids": [2, 3], "user_id": True},
    {"history": "codes", "time_features": ["hour", "request"], "popularity_windows": [1, 7], "hashed_ids": [3]},
    {"history": "codes", "experts": 2, "active_experts": 1, "similarity": "cosine"},
]
both_ways = pytest.mark.parametrize("options", VARIANTS)
tokenizers = pytest.mark.parametrize("tokenizer", ["ids", "three"])


@pytest.fixture
def data(tmp_path):
    return world(tmp_path)


def unmasked(logits):
    return logits.masked_fill(logits.isinf(), 0)


@both_ways
@tokenizers
def test_shapes_and_interfaces(data, options, tokenizer):
    codes = codes_of(data, tokenizer)
    encoder = decoder(data, codes, **options)
    assert all(isinstance(encoder, interface) for interface in (Decoder, Embedder, CodeScorer, ActionPredictor))
    logits = encoder.code_logits(BATCH)
    assert [tuple(level.shape) for level in logits] == [(9, size) for size in codes.sizes]
    assert encoder.action_logits(BATCH).shape == (4, 1 + 4, 2)
    started, state = encoder.start(BATCH)
    assert started.shape == (4, codes.sizes[0])
    assert state.select(torch.tensor([0, 0, 3])).select(torch.tensor([2])).level == 1


def test_only_codes_that_items_have_get_probability(data):
    levels = decoder(data, codes_of(data)).code_logits(BATCH)
    assert [level.isfinite().all(0).nonzero().squeeze(1).tolist() for level in levels] == [
        [0, 1, 2, 3],
        [0, 2],
        [0, 1, 2, 4],
    ]
    (items,) = decoder(data, codes_of(data, "ids")).code_logits(BATCH)
    assert items[:, 0].isneginf().all()
    assert items[:, 1:].isfinite().all()


@both_ways
@tokenizers
def test_step_by_step_equals_teacher_forced(data, options, tokenizer):
    """Decoding with the cache of keys and values gives the logits that one pass over history and target gives."""
    codes = codes_of(data, tokenizer)
    encoder = decoder(data, codes, **options)
    expected = encoder.code_logits(newest_target_only(BATCH))
    written = codes.table[BATCH.targets[:, -1]]
    logits, state = encoder.start(BATCH)
    torch.testing.assert_close(logits, expected[0])
    for level in range(1, len(codes.sizes)):
        logits, state = encoder.step(written[:, level - 1], state)
        torch.testing.assert_close(logits, expected[level])


@both_ways
def test_every_position_is_taught_as_if_it_were_the_last(data, options):
    encoder = decoder(data, codes_of(data), **options)
    whole = encoder.code_logits(batch_of([1, 2, 3], targets=[[2, 3, 5]]))
    for position, (history, target) in enumerate([([1], 2), ([1, 2], 3), ([1, 2, 3], 5)]):
        targets = [[0] * position + [target]]
        alone = encoder.code_logits(batch_of(history, targets=targets))
        for level, logits in enumerate(alone):
            torch.testing.assert_close(logits[0], whole[level][position])


@both_ways
def test_selected_rows_go_on_as_those_they_were(data, options):
    """state.select repeats, drops and reorders rows, evenly or not, more than once; each goes on by itself."""
    codes = codes_of(data)
    encoder = decoder(data, codes, **options)
    _, state = encoder.start(BATCH)
    state = state.select(torch.tensor([2, 0, 0, 1, 2, 2]))
    first = torch.tensor([3, 0, 1, 2, 0, 1])
    one, state = encoder.step(first, state)
    order = torch.tensor([5, 1, 1, 0])
    second = torch.tensor([0, 2, 0, 2])
    two, _ = encoder.step(second, state.select(order))
    for row, user in enumerate([2, 0, 0, 1, 2, 2]):
        _, alone = encoder.start(BATCH)
        torch.testing.assert_close(
            encoder.step(first[row : row + 1], alone.select(torch.tensor([user])))[0][0], one[row]
        )
    for row, before in enumerate(order.tolist()):
        user = [2, 0, 0, 1, 2, 2][before]
        _, alone = encoder.start(BATCH)
        _, alone = encoder.step(first[before : before + 1], alone.select(torch.tensor([user])))
        torch.testing.assert_close(encoder.step(second[row : row + 1], alone)[0][0], two[row])


def test_beams_share_their_users_keys_and_values(data):
    encoder = decoder(data, codes_of(data), history="codes")
    _, state = encoder.start(BATCH)
    many = state.select(torch.arange(4).repeat_interleave(100))
    for kept, before in zip(many.cache.history, state.cache.history, strict=True):
        assert kept.keys is before.keys
        assert kept.keys.shape == (4, 2, 1 + 4 * 3, 4)
    _, many = encoder.step(torch.zeros(400, dtype=torch.int64), many)
    assert all(kept.keys.shape == (400, 2, 1, 4) for kept in many.cache.generated)


@both_ways
def test_packed_equals_unpacked(data, options, monkeypatch):
    encoder = decoder(data, codes_of(data), **options)
    batch = batch_of([1, 2, 3, 4], [], [2], [3, 3], targets=[[2, 3, 4, 5], [], [3], [3, 1]], length=4)
    results = []
    for packed in (True, False):
        monkeypatch.setattr(
            "grbench_reference.encoders.sid_history.lay_out",
            lambda batch, user_token, packed=packed: lay_out(batch, user_token=user_token, packed=packed),
        )
        levels = [unmasked(level) for level in encoder.code_logits(batch)]
        others = [encoder.embed(batch, ITEMS)[0], encoder.embed_histories(batch)]
        with encoder.one_pass() as own_terms:
            encoder.code_states(batch)
            others += list(own_terms().values())
        results.append([*levels, *others])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@both_ways
def test_the_dense_face(data, options):
    encoder = decoder(data, codes_of(data), **options)
    states, vectors = encoder.embed(BATCH, ITEMS)
    torch.testing.assert_close(states[:, -1], encoder.embed_histories(BATCH))
    torch.testing.assert_close(vectors, encoder.embed_items(ITEMS))
    if options.get("similarity") == "cosine":
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(9))


@both_ways
def test_no_state_sees_the_future(data, options):
    encoder = decoder(data, codes_of(data), **options)
    one = encoder.action_logits(batch_of([1, 2, 3, 4], actions=[[2, 3, 2, 2]]))
    other = encoder.action_logits(batch_of([1, 2, 5, 4], actions=[[2, 3, 3, 2]]))
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])


def test_an_items_action_is_not_known_while_it_is_decoded(data):
    encoder = decoder(data, codes_of(data), history="codes", item_features=True)
    target = [[2, 3]]
    shown = encoder.code_logits(batch_of([1, 2], actions=[[2, 2]], targets=target))
    clicked = encoder.code_logits(batch_of([1, 2], actions=[[2, 3]], targets=target))
    for one, other in zip(shown, clicked, strict=True):
        torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(shown[0][1], clicked[0][1])


def test_next_action_conditions_the_codes(data):
    asked = dataclasses.replace(BATCH, next_actions=torch.where(BATCH.items > 0, 3, 0))
    for history in ("items", "codes"):
        told = decoder(data, codes_of(data), history=history, next_action=True)
        assert not torch.allclose(told.start(BATCH)[0], told.start(asked)[0])
        torch.testing.assert_close(told.action_logits(BATCH), told.action_logits(asked))  # no answer in the question
        blind = decoder(data, codes_of(data), history=history)
        torch.testing.assert_close(blind.start(BATCH)[0], blind.start(asked)[0])


@both_ways
def test_gradients_are_finite_with_an_empty_history(data, options):
    encoder = decoder(data, codes_of(data), **options).train()
    batch = batch_of([1, 2, 3, 4], [], targets=[[2, 3, 4, 5], []], length=4)
    terms = [unmasked(level).sum() for level in encoder.code_logits(batch)]
    terms += [side.sum() for side in encoder.embed(batch, ITEMS)] + [encoder.action_logits(batch).sum()]
    torch.stack(terms).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@both_ways
def test_an_empty_history_still_writes(data, options):
    encoder = decoder(data, codes_of(data), **options)
    logits, state = encoder.start(batch_of([], [], length=4))
    logits, _ = encoder.step(torch.tensor([0, 3]), state)
    assert unmasked(logits).isfinite().all()
    assert not torch.allclose(unmasked(logits[0]), unmasked(logits[1]))


def test_a_batch_without_target_teaches_nothing(data):
    for history in ("items", "codes"):
        for tokenizer in ("ids", "three"):
            encoder = decoder(data, codes_of(data, tokenizer), history=history)
            assert all(len(level) == 0 for level in encoder.code_logits(batch_of([1, 2], targets=[[0, 0]])))


def test_a_target_that_does_not_follow_is_refused_where_codes_are_read(data):
    encoder = decoder(data, codes_of(data), history="codes")
    with pytest.raises(RunError, match="user row 7"):
        encoder.code_logits(batch_of([1, 2], targets=[[3, 3]], users=[7]))


def test_balance_of_experts():
    """Two experts, one each: all tokens to one expert costs more than half to each; padding does not count."""
    experts = MixtureOfExperts(2, 3, experts=2, active=1, dropout=0.0)
    experts.router.weight.data = torch.tensor([[5.0, 0.0], [-5.0, 0.0]])
    one_way, both = torch.tensor([[1.0, 0.0]] * 4), torch.tensor([[1.0, 0.0], [-1.0, 0.0]] * 2)
    high, low = 1 / (1 + torch.e**-5), 1 / (1 + torch.e**5)
    torch.testing.assert_close(experts(one_way)[1].item(), 2 * high / (high + low))
    torch.testing.assert_close(experts(both)[1].item(), 1.0)
    padded = torch.cat([both, one_way])
    torch.testing.assert_close(experts(padded, torch.arange(8) < 4)[1].item(), 1.0)


def test_experts_equal_a_sum_over_all_of_them():
    torch.manual_seed(0)
    experts = MixtureOfExperts(4, 3, experts=3, active=2, dropout=0.0)
    tokens = torch.randn(5, 4)
    gates, chosen = experts.router(tokens).sigmoid().topk(2, dim=1)
    gates = gates / gates.sum(1, keepdim=True)
    expected = experts.shared(tokens)
    for token in range(5):
        for gate, expert in zip(gates[token], chosen[token], strict=True):
            hidden, open_ = (tokens[token] @ experts.up[expert]).chunk(2)
            expected[token] += gate * ((hidden * torch.nn.functional.silu(open_)) @ experts.down[expert])
    torch.testing.assert_close(experts(tokens)[0], expected)


def test_random_k_replaces_codes_that_are_read_while_training(data):
    codes = codes_of(data)
    # Codes 0 and 1 of the first level stand for each other; every other code for itself.
    neighbours = (torch.tensor([[0, 1], [1, 0], [2, 2], [3, 3]]), *(torch.arange(k)[:, None] for k in SIZES[1:]))
    random = Codes(codes.table, codes.sizes, tensors=as_tensors(neighbours))
    encoder = decoder(data, random, dropout=0.0)
    plain = decoder(data, codes, dropout=0.0)
    torch.testing.assert_close(encoder.embed_items(ITEMS), plain.embed_items(ITEMS))
    encoder.train(), plain.train()
    drawn = [encoder.embed_items(ITEMS) for _ in range(8)]
    changed = torch.stack([(one != plain.embed_items(ITEMS)).any(1) for one in drawn]).any(0)
    assert changed.tolist() == [item in (1, 2, 3, 4, 9) for item in range(1, 10)]


def test_codes_of_untrained_items_start_at_zero(data):
    """Item 9 alone would own code 9 with `ids`: nobody can know it yet."""
    torch.manual_seed(0)
    encoder = made_with(SIDDecoder, data, codes_of(data, "ids"), width=4, heads=1)
    assert (encoder.history.codes.weight[[0, 9]] == 0).all()
    assert (encoder.history.codes.weight[1:9] != 0).all()


def test_options_that_do_not_fit(data):
    with pytest.raises(SuiteError, match=r"encoder\.heads: 3 heads cannot share a width of 8.* multiple of 6"):
        decoder(data, codes_of(data), heads=3)
    with pytest.raises(SuiteError, match=r"encoder\.active_experts: 4 cannot be chosen of 2"):
        decoder(data, codes_of(data), experts=2, active_experts=4)


@pytest.mark.parametrize("history", ["items", "codes"])
def test_states_of_needed_positions_are_rows_of_all(data, history):
    encoder = decoder(data, codes_of(data), history=history)
    whole = encoder.code_states(BATCH)
    asked = torch.zeros(len(whole[0].states), 3, dtype=torch.bool)
    asked[[0, 2, 5], 0], asked[-1, 2] = True, True  # none of the second level
    for level, (some, every) in enumerate(zip(encoder.code_states(BATCH, asked), whole, strict=True)):
        torch.testing.assert_close(some.states, every.states[asked[:, level]])
        assert torch.equal(some.vectors, every.vectors)
