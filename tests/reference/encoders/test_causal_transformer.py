"""The baseline encoder: causality, padding, the user token, cold items, and every option's effect."""

import dataclasses

import pytest
import torch
from worlds import after_events, away_from_the_start, batch_of, featured, made_with, training_data

from grbench.errors import SuiteError
from grbench.interfaces import Embedder
from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.layers.token_packing import lay_out
from grbench_reference.tokenizers.ids import Ids

VARIANTS = [
    {},
    {"user_token": False},
    {"norm_placement": "pre", "norm": "rmsnorm", "activation": "swiglu", "feed_forward": 2.0},
    {"positions": "rotary", "activation": "gelu"},
    {"positions": "learned_from_end", "user_token": False},
    {"positions": "none", "action_conditioning": "none", "similarity": "cosine"},
    {"item_features": False, "embeddings": "none", "user_features": False, "next_action": ["click"]},
    {"action_conditioning": "gate", "next_action": True},
    {"action_conditioning": "film", "user_token": False},
    {"action_conditioning": "attention_bias"},
    {"action_conditioning": ["gate", "film", "attention_bias"]},
    {
        "time_features": ["hour", "weekday", "day", "gap", "request", "session", "cross_day", "fourier"],
        "popularity_windows": [1, 7],
        "hashed_ids": [2, 3],
        "hashed_width": 3,
        "user_id": True,
    },
    {
        "norm": "rmsnorm",
        "norm_placement": "pre",
        "activation": "swiglu",
        "positions": "rotary",
        "qk_norm": True,
        "bias": False,
        "action_conditioning": "attention_bias",
    },
]


def build(data, **options):
    torch.manual_seed(0)
    encoder = made_with(
        CausalTransformer,
        data,
        Ids().fit(data),
        **{"width": 8, "heads": 2, "blocks": 2, "history_length": 4, **options},
    )
    return away_from_the_start(encoder)


@pytest.fixture
def data(tmp_path):
    return featured(tmp_path)


@pytest.mark.parametrize("options", VARIANTS)
def test_packed_equals_unpacked(data, options, monkeypatch):
    encoder = build(data, **options)
    batch = batch_of([1, 2, 3, 4], [], [2], [3, 3], length=4)
    results = []
    for packed in (True, False):
        monkeypatch.setattr(
            "grbench_reference.encoders.history_encoder.lay_out",
            lambda batch, user_token, packed=packed: lay_out(batch, user_token=user_token, packed=packed),
        )
        states, vectors = encoder.embed(batch, torch.tensor([1, 6]))
        results.append([states, vectors, encoder.embed_histories(batch)])
        assert all(torch.isfinite(result).all() for result in results[-1])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_are_finite_with_an_empty_history(data, options):
    encoder = build(data, **options).train()
    batch = batch_of([1, 2, 3, 4], [], length=4)
    states, vectors = encoder.embed(batch, torch.tensor([1, 6]))
    (states.sum() + vectors.sum() + encoder.embed_histories(batch).sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("options", VARIANTS)
def test_a_step_in_bfloat16(data, options):
    encoder = build(data, **options).train()
    batch = batch_of([1, 2, 3, 4], [3], length=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, vectors = encoder.embed(batch, torch.tensor([1, 6]))
        (states[..., 0].float().sum() + vectors[..., 0].float().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("options", VARIANTS)
def test_no_state_sees_the_future(data, options):
    if options.get("positions") == "learned_from_end":
        pytest.skip("these positions say how many events follow")
    encoder = build(data, **options)
    first, second = batch_of([1, 2, 3, 4]), batch_of([1, 2, 4, 4], actions=[[2, 2, 3, 3]])
    states, other = (after_events(encoder.embed(batch, torch.tensor([1]))[0], batch) for batch in (first, second))
    torch.testing.assert_close(states[:, :2], other[:, :2])
    assert not torch.allclose(states[:, 2:], other[:, 2:])


@pytest.mark.parametrize("options", VARIANTS)
def test_padding_and_neighbours_change_nothing(data, options):
    encoder = build(data, **options)
    alone = encoder.embed_histories(batch_of([2, 3]))
    padded = encoder.embed_histories(batch_of([1, 2, 3, 4], [2, 3], users=[1, 0]))
    torch.testing.assert_close(alone[0], padded[1])


@pytest.mark.parametrize("options", VARIANTS)
def test_embed_equals_the_two_separate_methods(data, options):
    encoder = build(data, **options)
    assert isinstance(encoder, Embedder)
    batch, items = batch_of([1, 2, 3], [4]), torch.tensor([6, 1, 2])
    states, vectors = encoder.embed(batch, items)
    torch.testing.assert_close(states[:, -1], encoder.embed_histories(batch))
    torch.testing.assert_close(vectors, encoder.embed_items(items))


def test_user_token_is_visible_at_full_length(data):
    encoder = build(data)
    full = batch_of([1, 2, 3, 4])
    other = dataclasses.replace(full, users=torch.tensor([1]))
    assert not torch.allclose(encoder.embed_histories(full), encoder.embed_histories(other))
    without = build(data, user_token=False)
    torch.testing.assert_close(without.embed_histories(full), without.embed_histories(other))


def test_an_empty_history_is_the_user_token_or_zero(data):
    empty = batch_of([], [], length=4)
    with_user = build(data).embed_histories(empty)
    assert not torch.allclose(with_user[0], with_user[1])
    assert torch.equal(build(data, user_token=False).embed_histories(empty), torch.zeros(2, 8))


def test_a_cold_item_keeps_its_position_and_features(data):
    """Items 5 and 6 have no training event: they still stand in their place, and differ by their features."""
    encoder = build(data)
    states = [encoder.embed_histories(batch_of([1, item, 2])) for item in (5, 6)]
    assert not torch.allclose(*states)
    places = lay_out(batch_of([1, 5, 2]), user_token=True).place
    assert sorted(places.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("conditioning", ["additive", "gate", "film", "attention_bias", ["film", "attention_bias"]])
def test_actions_are_an_input(data, conditioning):
    clicked, shown = (batch_of([1, 2], actions=[[2, action]]) for action in (3, 2))
    encoder = build(data, action_conditioning=conditioning)
    assert not torch.allclose(encoder.embed_histories(clicked), encoder.embed_histories(shown))
    without = build(data, action_conditioning="none")
    torch.testing.assert_close(without.embed_histories(clicked), without.embed_histories(shown))


@pytest.mark.parametrize("conditioning", ["gate", "film", "attention_bias", ["gate", "film", "attention_bias"]])
def test_conditioning_starts_neutral(data, conditioning):
    batch = batch_of([1, 2, 3], [4, 1], actions=[[2, 3, 3], [1, 2]])
    plain, conditioned = (
        made_with(CausalTransformer, data, Ids().fit(data), width=8, heads=2, action_conditioning=kind).eval()
        for kind in ("none", conditioning)
    )
    conditioned.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(plain.embed_histories(batch), conditioned.embed_histories(batch))


@pytest.mark.parametrize("way", ["additive", "gate", "film", "attention_bias"])
def test_a_list_of_one_way_is_that_way(data, way):
    batch = batch_of([1, 2, 3], [4, 1], actions=[[2, 3, 3], [1, 2]])
    one, other = (build(data, action_conditioning=conditioning) for conditioning in (way, [way]))
    assert torch.equal(one.embed_histories(batch), other.embed_histories(batch))


def test_each_state_is_conditioned_on_the_action_that_follows_it(data):
    """The second event's state changes with what is asked for there, and no other state does."""
    encoder = build(data, next_action=True)
    batch = batch_of([1, 2, 3])
    shown, clicked = (dataclasses.replace(batch, next_actions=torch.tensor([[2, second, 2]])) for second in (2, 3))
    one, other = (encoder.embed(asked, torch.tensor([1]))[0][0] for asked in (shown, clicked))
    assert (one != other).any(1).tolist() == [False, False, True, False]


def test_states_are_conditioned_on_the_named_actions_only(data):
    encoder = build(data, next_action=["click"])
    batch = batch_of([1, 2, 3])
    asked = {action: dataclasses.replace(batch, next_actions=torch.full((1, 3), action)) for action in (1, 2, 3)}
    states = {action: encoder.embed_histories(each) for action, each in asked.items()}
    torch.testing.assert_close(states[1], states[2], rtol=0, atol=0)
    assert not torch.allclose(states[2], states[3])
    with pytest.raises(SuiteError, match=r"encoder\.next_action: no action 'clik'.*; it has exposure, click"):
        build(data, next_action=["clik"])
    assert build(data, next_action=[]).next_action is None


def test_attention_of_normalised_queries_and_keys_is_blind_to_their_length(data):
    for qk_norm, blind in ((True, True), (False, False)):
        encoder = build(data, qk_norm=qk_norm, bias=False, blocks=1)
        batch = batch_of([1, 2, 3])
        before = encoder.embed_histories(batch)
        encoder.blocks[0].attention.qkv.weight.data[:16] *= 4
        assert torch.allclose(before, encoder.embed_histories(batch), atol=1e-5) == blind


def test_blocks_without_bias(data):
    names = [name for name, _ in build(data, bias=False, norm="rmsnorm").blocks.named_parameters()]
    assert not [name for name in names if name.endswith("bias")]


@pytest.mark.parametrize("positions", ["learned", "learned_from_end", "rotary"])
def test_positions_tell_orders_apart(data, positions):
    orders = batch_of([1, 2, 3]), batch_of([2, 1, 3])
    encoder = build(data, positions=positions, blocks=1)
    assert not torch.allclose(*(encoder.embed_histories(order) for order in orders))
    blind = build(data, positions="none", blocks=1)
    torch.testing.assert_close(*(blind.embed_histories(order) for order in orders))


def test_cosine_vectors_have_length_one(data):
    encoder = build(data, similarity="cosine")
    states, vectors = encoder.embed(batch_of([1, 2]), torch.tensor([1, 5]))
    torch.testing.assert_close(states.norm(dim=-1), torch.ones(1, 1 + 2))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


def test_item_vectors_are_not_cut_at_zero(data):
    assert (build(data).embed_items(torch.arange(1, 7)) < 0).any()


def test_the_default_is_the_papers(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 1), (2, 0, 2)]])
    encoder = made_with(CausalTransformer, data, Ids().fit(data))
    assert (encoder.width, len(encoder.blocks), encoder.blocks[0].attention.heads) == (32, 1, 1)
    assert encoder.history_length + 1 == 101
    assert encoder.places.num_embeddings == 101
    assert encoder.dropout.share == 0.2


def test_dropout_of_attention_weights_keeps_the_mean():
    from grbench_reference.layers.transformer import causal_attention

    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, 5, 4).unbind(0)
    plain = causal_attention(query, key, value, 0.0)
    many = causal_attention(*(side.expand(20_000, 1, 5, 4) for side in (query, key, value)), 0.3)
    torch.testing.assert_close(many.mean(0, keepdim=True), plain, atol=0.03, rtol=0)


def test_options_that_do_not_fit(data):
    with pytest.raises(SuiteError, match="3 heads cannot share a width of 8"):
        build(data, heads=3)
    with pytest.raises(SuiteError, match=r"2 heads cannot share a width of 6; .* multiple of 4, since rotary"):
        build(data, width=6, heads=2, positions="rotary")
