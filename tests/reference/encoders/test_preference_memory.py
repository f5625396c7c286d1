"""Preference memory: the parallel pass against one segment after another, the reference pass against plain causal
passes, and what is stored against the whole history."""

import dataclasses

import pytest
import torch
from torch.nn.functional import pad
from worlds import after_events, away_from_the_start, batch_of, featured, made_with

from grbench_reference.encoders.causal_transformer import CausalTransformer
from grbench_reference.encoders.preference_memory import PreferenceMemory, Segments, squared_error
from grbench_reference.layers.token_packing import lay_out
from grbench_reference.losses.full_softmax import FullSoftmax
from grbench_reference.tokenizers.ids import Ids
from grbench_reference.trainers.supervised import weighted_terms

# Segments of two events: three full ones and one event, one full, none, two and one event.
BATCH = batch_of(
    [1, 2, 3, 4, 2, 1, 4], [3, 1], [], [2, 4, 1, 1, 3], actions=[[2, 3, 2, 2, 3, 2, 2], [3, 2], [], [2] * 5]
)
FULL = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]]).bool()
VARIANTS = [
    {},
    {"memories": 1, "norm": "layernorm", "norm_placement": "post", "positions": "learned"},
    {"user_token": False, "action_conditioning": "attention_bias", "qk_norm": True},
]
every_way = pytest.mark.parametrize("options", VARIANTS)


@pytest.fixture
def data(tmp_path):
    return featured(tmp_path)


def build(data, encoder=PreferenceMemory, **options):
    torch.manual_seed(0)
    sizes = {"width": 8, "heads": 2, "blocks": 2, "history_length": 8, "dropout": 0.0}
    if encoder is PreferenceMemory:
        sizes |= {"memories": 2, "segment": 2}
    return away_from_the_start(made_with(encoder, data, Ids().fit(data), **{**sizes, **options}))


def segments_of(encoder, batch=BATCH, packed=False):
    layout = lay_out(batch, user_token=encoder.user_token, packed=packed)
    (events,) = encoder.items.each_once(layout.take(batch.items))
    return Segments.of(encoder._tokens(batch, layout, events), batch, layout, encoder.segment)


def naive(encoder, segments, row, length, read):
    """States [U + length, D] of one row, one segment after another; read: None = what was written, else [F, M, D]."""
    first, size = segments.users.shape[1], encoder.segment
    memory, states = torch.zeros(1, encoder.memories, encoder.width), []
    for start in range(0, max(length, 1), size):
        events = segments.events.flatten(1, 2)[row : row + 1, start : min(start + size, length)]
        actions = segments.actions.flatten(1)[row : row + 1, start : min(start + size, length)]
        found, memory = encoder.of_segment(segments.users[row : row + 1], memory, events, actions)
        states.append(found[0] if not start else found[0, first:])
        if read is not None and start + size < length:
            memory = read[start // size].unsqueeze(0)
    return torch.cat(states)


@every_way
def test_search_is_one_segment_after_another(data, options):
    encoder = build(data, **options)
    segments, first = segments_of(encoder), int(encoder.user_token)
    states, _ = encoder.embed(BATCH, torch.tensor([1]))
    for row, length in enumerate([7, 2, 0, 5]):
        expected = encoder.last_norm(naive(encoder, segments, row, length, None))
        torch.testing.assert_close(after_events(states, BATCH)[row, 7 - length :], expected[first:])
        if first:
            torch.testing.assert_close(states[row, 0], expected[0])


@every_way
def test_the_parallel_pass_is_the_sequential_one_with_reference_memories(data, options):
    encoder = build(data, **options).train()
    segments, first = segments_of(encoder), int(encoder.user_token)
    references, states = encoder.references(segments), encoder.embed(BATCH, torch.tensor([1]))[0]
    for row, length in enumerate([7, 2, 0, 5]):
        expected = encoder.last_norm(naive(encoder, segments, row, length, references[row]))
        torch.testing.assert_close(after_events(states, BATCH)[row, 7 - length :], expected[first:])


@every_way
def test_a_reference_is_a_causal_pass_over_all_events_up_to_there(data, options):
    """With the writers last, and places as in the second pass."""
    encoder = build(data, **options)
    segments, first = segments_of(encoder), int(encoder.user_token)
    references = encoder.references(segments)
    for row, full in enumerate(FULL.sum(1).tolist()):
        for count in range(1, full + 1):
            events = segments.events[row, :count].flatten(0, 1)
            tokens = torch.cat([segments.users[row], events, encoder.writers]).unsqueeze(0)
            actions = pad(segments.actions[row, :count].flatten(), (first, encoder.memories)).unsqueeze(0)
            places = torch.arange(first + encoder.memories + len(events) + encoder.memories)
            places = torch.cat([places[:first], places[first + encoder.memories :]])
            expected = encoder.memory_norm(encoder._blocks(tokens, actions, places=places)[0, -encoder.memories :])
            torch.testing.assert_close(references[row, count - 1], expected)


def test_a_stored_memory_and_new_events_are_the_whole_history(data):
    encoder = build(data)
    segments = segments_of(encoder)
    users, memory = segments.users[:1], torch.zeros(1, 2, 8)
    for done in range(3):
        _, memory = encoder.of_segment(users, memory, segments.events[:1, done], segments.actions[:1, done])
    stored = memory.clone()  # and nothing else of the first six events
    new = batch_of([4], actions=[[2]], users=[0])
    layout = lay_out(new, user_token=True)
    events = encoder._tokens(new, layout, encoder.items(layout.take(new.items)))[None, 1:]
    states, _ = encoder.of_segment(users, stored, events, new.actions)
    torch.testing.assert_close(encoder.last_norm(states[:, -1]), encoder.embed_histories(BATCH)[:1])


@pytest.mark.parametrize("options", [*VARIANTS, {"memories": 0}, {"teacher_forcing": False}])
def test_packed_equals_unpacked_in_training(data, options, monkeypatch):
    encoder = build(data, **options).train()
    batch = dataclasses.replace(BATCH, targets=pad(BATCH.items[:, 1:], (0, 1)))
    results = []
    for packed in (True, False):
        monkeypatch.setattr(
            "grbench_reference.encoders.history_encoder.lay_out",
            lambda batch, user_token, packed=packed: lay_out(batch, user_token=user_token, packed=packed),
        )
        encoder.zero_grad()
        terms = weighted_terms(encoder, [(FullSoftmax(data, None), 1.0)], batch)
        sum(terms.values()).backward()
        gradients = {name: each.grad for name, each in encoder.named_parameters() if each.grad is not None}
        results.append((terms, gradients))
    torch.testing.assert_close(*results)


def test_the_squared_error_is_a_mean_over_full_segments(data):
    encoder = build(data, memory_weight=3.0).train()
    segments = segments_of(encoder)
    references = encoder.references(segments)
    _, written = encoder.in_parallel(segments, references)
    errors = [(written[row, place] - references[row, place]).square().mean() for row, place in FULL.nonzero().tolist()]
    with encoder.one_pass() as own_terms:
        encoder.embed(BATCH, torch.tensor([1]))
        terms = own_terms()
    assert len(errors) == 6
    torch.testing.assert_close(terms["memory"], 3 * sum(errors) / 6)


def test_only_what_is_written_is_pulled():
    """By 1 and by 3 in two full segments of one memory of one number; the third is not full, the fourth does not
    end."""
    written = torch.tensor([1.0, 5, 7, 9]).view(1, 4, 1, 1).requires_grad_()
    references = torch.tensor([2.0, 2, 2]).view(1, 3, 1, 1).requires_grad_()
    error = squared_error(written, references, torch.tensor([[True, True, False]]))
    error.backward()
    assert error == (1 + 9) / 2
    assert written.grad.flatten().tolist() == [-1, 3, 0, 0]
    assert references.grad is None


def test_a_batch_without_a_full_segment_has_no_error(data):
    encoder = build(data).train()
    with encoder.one_pass() as own_terms:
        encoder.embed(batch_of([1], [2]), torch.tensor([1]))
        assert own_terms() == {"memory": 0}


def test_without_memories_a_segment_is_by_itself(data):
    encoder = build(data, memories=0)
    states = after_events(encoder.embed(BATCH, torch.tensor([1]))[0], BATCH)
    alone = batch_of([3, 4], actions=[[2, 2]], users=[0])
    torch.testing.assert_close(states[0, 2:4], after_events(encoder.embed(alone, torch.tensor([1]))[0], alone)[0])


def test_one_segment_without_memories_is_the_causal_transformer(data):
    modern = {"norm": "rmsnorm", "norm_placement": "pre", "activation": "swiglu", "positions": "rotary"}
    plain, encoder = build(data, CausalTransformer, **modern), build(data, memories=0, segment=8)
    encoder.load_state_dict(plain.state_dict())
    torch.testing.assert_close(*(each.embed(BATCH, torch.arange(1, 4)) for each in (encoder, plain)))


def test_memories_carry_early_events_to_the_newest_state(data):
    encoder = build(data)
    other = BATCH.items.clone()
    other[0, 0] = 4
    own, changed = (encoder.embed_histories(dataclasses.replace(BATCH, items=items)) for items in (BATCH.items, other))
    assert not torch.allclose(own[0], changed[0], atol=1e-4)
    torch.testing.assert_close(own[1:], changed[1:])
