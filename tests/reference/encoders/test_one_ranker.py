"""OneRanker against one dense attention for each place; fake items; and candidates that do not see each other."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional
from worlds import away_from_the_start, batch_of, featured, made_with

from grbench.errors import SuiteError
from grbench_reference.encoders.one_ranker import OneRanker
from grbench_reference.layers.attention_parts import Part, attend
from grbench_reference.layers.fake_items import KEPT, FakeItems
from grbench_reference.layers.token_packing import lay_out
from grbench_reference.losses.value_ranking import ValueRanking
from grbench_reference.tokenizers.ids import Ids

BATCH = batch_of([1, 2, 3, 4], [], [2], [3, 3], actions=[[2, 3, 1, 2], [], [3], [2, 3]], length=4)
LENGTHS = [4, 0, 1, 2]
VARIANTS = [
    {},
    {"tokens_per_task": 1, "fake_items": 0},
    {"action_conditioning": "attention_bias", "similarity": "cosine", "next_action": True},
]
every_way = pytest.mark.parametrize("options", VARIANTS)


@pytest.fixture
def data(tmp_path):
    return featured(tmp_path)


def build(data, **options):
    torch.manual_seed(0)
    sizes = {"width": 8, "heads": 2, "blocks": 2, "history_length": 4, "fake_items": 3}
    encoder = away_from_the_start(made_with(OneRanker, data, Ids().fit(data), **{**sizes, **options}))
    if encoder.fake_items is not None:
        encoder.fake_items.sums.normal_()
        encoder.fake_items.counts.fill_(1)
    return encoder


def columns_of(row, place):
    """The column, in [B, T + 1], of the row's place: 0 = the user's token."""
    return place and 4 - LENGTHS[row] + place


def dense(encoder, tokens, actions):
    """tokens [e, D] of a user and its events -> the tasks [n, D] behind the newest, in one masked softmax."""
    fakes = tokens[:0] if encoder.fake_items is None else encoder.fake_items() * encoder.input_scale + encoder.fake_kind
    events, tasks, many = len(tokens), len(encoder.tasks), len(fakes)
    mixed = torch.cat([tokens, fakes, encoder.tasks + tokens[-1]])
    kinds = torch.tensor([0] * events + [1] * many + [2] * tasks)
    places = torch.tensor([*range(events), *[0] * many, *[events] * tasks])
    number = torch.arange(len(mixed))
    visible = (number <= number.unsqueeze(1)) & ((kinds != 1).unsqueeze(1) | (number == number.unsqueeze(1)))
    visible &= ~((kinds == 0).unsqueeze(1) & (kinds == 1))
    for block in encoder.blocks:
        qkv = block.qkv(block.attention_norm(mixed)).view(len(mixed), 3, encoder.heads, -1)
        plain, keys, values = qkv.unbind(1)
        turned, keys = (
            torch.where((kinds == 1)[:, None, None], each, block.rotary.at(each, places.unsqueeze(1)))
            for each in (plain, keys)
        )
        scores = torch.einsum("qhe,khe->hqk", turned, keys)
        scores = torch.where(kinds == 1, torch.einsum("qhe,khe->hqk", plain, keys), scores) / keys.shape[-1] ** 0.5
        if block.key_bias is not None:
            scores[:, :, :events] += block.key_bias(actions).T.unsqueeze(1)
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        mixed = mixed + block.out(torch.einsum("hqk,khe->qhe", weights, values).flatten(1))
        mixed = mixed + block.feed_forward(block.feed_forward_norm(mixed))
    return mixed[-tasks:]


@every_way
def test_every_place_is_one_attention_over_events_fake_items_and_earlier_tasks(data, options):
    encoder = build(data, **options)
    layout = lay_out(BATCH, user_token=True, packed=False)
    tokens = encoder._tokens(BATCH, layout, encoder.items(layout.take(BATCH.items)))
    states, _ = encoder.task_states(BATCH, torch.tensor([1]))
    for row, length in enumerate(LENGTHS):
        for place in range(length + 1):
            here = (layout.row == row).nonzero().flatten()[: place + 1]
            tasks = dense(encoder, tokens[here], layout.take(BATCH.actions)[here])
            expected = encoder.last_norm(tasks[encoder.tokens_per_task - 1 :: encoder.tokens_per_task])
            if encoder.next_action is not None:
                expected = encoder.next_action(expected, BATCH.all_next_actions[row, columns_of(row, place)])
            if encoder.cosine:
                expected = functional.normalize(expected, dim=-1)
            torch.testing.assert_close(states[row, columns_of(row, place)], expected, atol=1e-4, rtol=1e-4)


@every_way
def test_the_newest_place_is_ranked_as_among_all(data, options):
    encoder = build(data, **options)
    candidates = torch.tensor([[1, 2, 3, 4, 5, 6]]).expand(4, -1)
    newest = torch.tensor([[columns_of(row, length)] for row, length in enumerate(LENGTHS)])
    met = torch.tensor(LENGTHS) > 0  # without events the next action is the user's
    among_all = encoder.rank(BATCH, newest, candidates.unsqueeze(1)).ranked[:, 0]
    torch.testing.assert_close(encoder.rank_newest(BATCH, candidates)[met], among_all[met])


def test_candidates_do_not_see_each_other(data):
    """Scores move with the candidates, and are those of each alone."""
    encoder = build(data)
    columns, order = torch.tensor([[4, 2], [0, 0], [4, 0], [3, 4]]), torch.tensor([3, 0, 4, 1, 2])
    candidates = torch.tensor([5, 2, 3, 1, 6]).expand(4, 2, -1)
    together = encoder.rank(BATCH, columns, candidates).ranked
    torch.testing.assert_close(encoder.rank(BATCH, columns, candidates[:, :, order]).ranked, together[:, :, order])
    alone = [encoder.rank(BATCH, columns, candidates[:, :, [place]]).ranked for place in range(5)]
    torch.testing.assert_close(torch.cat(alone, 2), together)
    assert together.std(2).min() > 1e-3


def test_a_score_knows_no_later_event(data):
    encoder = build(data)
    candidates, columns = torch.tensor([1, 5]).expand(4, 1, -1), torch.tensor([[2], [0], [0], [3]])
    later = dataclasses.replace(BATCH, items=BATCH.items.clone(), actions=BATCH.actions.clone())
    later.items[:, -1], later.actions[:, -1] = torch.tensor([1, 0, 4, 1]), torch.tensor([3, 0, 2, 2])
    own, other = (encoder.rank(batch, columns, candidates).ranked for batch in (BATCH, later))
    torch.testing.assert_close(own, other)


def test_the_ranking_stage_starts_at_the_scores_of_generation(data):
    encoder = made_with(OneRanker, data, Ids().fit(data), width=8, heads=2, temperature=0.5)
    candidates = torch.tensor([[1, 2, 3]]).expand(4, -1)
    found = encoder.eval().rank_newest(BATCH, candidates)
    expected = 2 * encoder.embed_histories(BATCH) @ encoder.embed_items(candidates[0]).T
    torch.testing.assert_close(found, expected)


def test_the_loss_of_ranking_teaches_generation_also_where_it_comes_first(data):
    """Its negatives are chosen without gradients, in the pass that its scores have theirs from."""
    encoder, loss = build(data), ValueRanking(data, None, ahead=2, negatives=2, drawn=20, places=2)
    batch = dataclasses.replace(BATCH, targets=torch.tensor([[2, 3, 4, 5], [0] * 4, [0, 0, 0, 1], [0, 0, 3, 6]]))
    found = []
    for shared in True, False:
        torch.manual_seed(0)
        encoder.zero_grad()
        with encoder.one_pass() if shared else nullcontext():
            sum(loss(encoder, batch).values()).backward()
        found.append({name: each.grad for name, each in encoder.named_parameters() if each.grad is not None})
    assert found[0]["blocks.0.qkv.weight"].any()
    torch.testing.assert_close(found[0], found[1])


def test_training_shows_a_place_nothing_of_later_events(data):
    """Not by the fake items either, which learn from all of the batch's events."""
    items, batches = torch.tensor([1]), []
    for newest in 4, 6:
        events = BATCH.items.clone()
        events[0, -1] = newest
        batches.append(dataclasses.replace(BATCH, items=events))
    states = [build(data, dropout=0.0).train().embed(batch, items)[0][0, :-1] for batch in batches]
    torch.testing.assert_close(*states)


def test_without_a_user_token_it_is_refused(data):
    with pytest.raises(SuiteError, match="user_token: one_ranker needs it"):
        build(data, user_token=False)


# --- parts


def test_parts_are_one_softmax():
    torch.manual_seed(0)
    query, shared, own = torch.randn(2, 3, 4, 1, 6), torch.randn(2, 2, 5, 1, 6), torch.randn(2, 2, 3, 4, 1, 1, 6)
    visible = torch.ones(5, dtype=torch.bool)
    visible[1] = False
    found = attend(
        [
            Part(query, "glhe", *shared, visible),
            Part(query, "gwnshe", *own.transpose(-2, -3)),
        ],
        0.0,
        training=True,
    )
    for g, w, n in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        keys, values = (
            torch.cat([side[g, visible, 0], side_own[g, w, n, 0]]) for side, side_own in zip(shared, own, strict=True)
        )
        weights = (query[g, w, n, 0] @ keys.T / 6**0.5).softmax(0)
        torch.testing.assert_close(found[g, w, n, 0], weights @ values)


def test_fake_items_by_hand():
    """Centres 0 and 10, each of one vector: 1 and 3 join the first, 8 the second; padding joins none."""
    fakes = FakeItems(2, 1)
    fakes.sums.copy_(torch.tensor([[0.0], [10]]))
    fakes.counts.fill_(1)
    fakes.learn(torch.tensor([[1.0], [8], [3], [100]]), torch.tensor([True, True, True, False]))
    counts = [KEPT + 2, KEPT + 1]
    torch.testing.assert_close(fakes(), torch.tensor([[4 / counts[0]], [(10 * KEPT + 8) / counts[1]]]))
    assert set(fakes.state_dict()) == {"sums", "counts"}


def test_fake_items_start_at_events_and_start_anew_where_nothing_is_near():
    torch.manual_seed(0)
    fakes, vectors = FakeItems(3, 2), torch.tensor([[5.0, 1], [0, 0], [5, 1]])
    assert not fakes().any()
    real = torch.tensor([True, False, True])
    fakes.learn(vectors, real)
    torch.testing.assert_close(fakes(), vectors[[0, 0, 0]])
    fakes.counts[1] = 0
    fakes.learn(torch.tensor([[-7.0, 2]] * 3), real)
    torch.testing.assert_close(fakes()[1], torch.tensor([-7.0, 2]))


def test_only_training_moves_fake_items(data):
    encoder = build(data)
    before = encoder.fake_items().clone()
    encoder.embed(BATCH, torch.tensor([1])), encoder.embed_histories(BATCH)
    torch.testing.assert_close(encoder.fake_items(), before)
    encoder.train().embed(BATCH, torch.tensor([1]))
    assert not torch.equal(encoder.fake_items(), before)
