"""What teaches a verifier and a value head, by hand and on a world that is learnt by heart."""

import pytest
import torch
from code_worlds import BATCH, ITEMS, SIZES, TABLE, codes_of, decoder, newest_target_only, world
from torch import nn
from worlds import made_with

from grbench.errors import SuiteError
from grbench_reference.layers.path_sampling import SampledPaths
from grbench_reference.losses import path_value
from grbench_reference.losses.path_value import PathValue
from grbench_reference.losses.path_verification import PathVerification
from grbench_reference.optimizers.adam import adam
from grbench_reference.retrievers.beam import Beam


class SumOfCodes(nn.Module):
    """A verifier that scores a path by its last code."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.ends = scale, []

    def path_context(self, batch):
        return batch

    def path_scores(self, paths, context, ends):
        self.ends.append(ends)
        return self.scale * paths[:, :, -1].float()


@pytest.mark.parametrize("positions", [1, 2, None])
def test_a_verifier_that_knows_nothing_has_the_loss_of_a_guess(tmp_path, positions):
    """All scores equal: log(1 + drawn), less what is drawn of the target itself; so between log(1) and log(1 + n)."""
    data = world(tmp_path)
    loss = PathVerification(data, codes_of(data), negatives=2000, positions=positions)
    encoder = SumOfCodes(0.0)
    torch.manual_seed(0)
    terms = loss(encoder, BATCH)
    assert list(terms) == [f"path_verification_{level}" for level in (1, 2, 3)]
    # Prefixes that items have: 4, 6 and 8; each drawn equally often.
    for term, prefixes in zip(terms.values(), (4, 6, 8), strict=True):
        assert term.item() == pytest.approx(torch.tensor(1 + 2000 * (1 - 1 / prefixes)).log().item(), abs=0.02)
    taken = encoder.ends[0][:, ::2001]
    targets = BATCH.all_targets
    if positions is None:
        assert taken.tolist() == [list(range(targets.shape[1]))] * 4
    else:  # positions with a target come first
        assert taken.shape == (4, positions)
        assert (targets.gather(1, taken)[:, 0] > 0).all()


def test_its_negatives_are_what_items_have(tmp_path):
    """With a huge score for larger codes, a term is how far the target's code is below the largest, in that scale."""
    data = world(tmp_path)
    codes = codes_of(data)
    loss = PathVerification(data, codes, negatives=300, positions=1)
    batch = newest_target_only(BATCH)
    torch.manual_seed(0)
    terms = loss(SumOfCodes(1000.0), batch)
    targets = torch.tensor([TABLE[item] for item in batch.targets[:, -1].tolist()])
    # The largest last codes are 3, 2 and 4; that the target is one of them, or several are drawn, counts little.
    for level, largest in enumerate([3, 2, 4]):
        expected = (largest - targets[:, level]).clamp(min=0).float().mean() * 1000
        assert terms[f"path_verification_{level + 1}"].item() == pytest.approx(expected.item(), abs=6)


def test_how_much_a_part_of_a_batch_counts(tmp_path):
    """Every user's newest event is one; the verifier's terms are divided by what the whole batch has drawn."""
    data = world(tmp_path)
    codes = codes_of(data)
    assert PathVerification(data, codes, positions=2).weight(BATCH) == 1
    assert PathValue(data, codes).weight(newest_target_only(BATCH)) == 4


class Remembered(nn.Module):
    """A value head of given values."""

    def __init__(self, values):
        super().__init__()
        self.given = nn.Parameter(torch.tensor(values))

    def path_values(self, batch, paths):
        return self.given


def test_temporal_differences_by_hand(tmp_path, monkeypatch):
    """Target item 5, codes (3, 2, 2); drawn paths (3, 2, 4), of which two codes are right, and (1, 2, 2), none.

    The first path's targets: .3 + .99 * .2 = .498, .5 + .99 * .1 = .599, and 0. The second's: .99 * .2 and .99 * .1, 0.
    """
    paths = torch.tensor([[[3, 2, 4], [1, 2, 2]]])
    drawn = SampledPaths(paths, paths, paths[:, :, 0], paths.float())
    monkeypatch.setattr(path_value, "sample_paths", lambda *_, **__: drawn)
    data = world(tmp_path)
    loss = PathValue(data, codes_of(data), samples=2)
    batch = type(BATCH)(*(getattr(BATCH, name)[:1] for name in BATCH.__dataclass_fields__))
    assert batch.targets[0, -1] == 5
    encoder = Remembered([[[0.4, 0.2, 0.1], [0.4, 0.2, 0.1]]])
    (term,) = loss(encoder, batch).values()
    errors = [0.498 - 0.4, 0.599 - 0.2, -0.1, 0.198 - 0.4, 0.099 - 0.2, -0.1]
    assert term.item() == pytest.approx(sum(error**2 for error in errors) / 6)
    term.backward()
    torch.testing.assert_close(encoder.given.grad.flatten(), -2 * torch.tensor(errors) / 6)
    untaught = type(batch)(**{**vars(batch), "targets": torch.zeros_like(batch.targets)})
    assert loss(encoder, untaught)["path_value"] == 0


def test_rewards(tmp_path):
    data = world(tmp_path)
    assert PathValue(data, codes_of(data)).rewards.tolist() == pytest.approx([0.3, 0.5, 1.0])
    assert PathValue(data, codes_of(data, "ids")).rewards.tolist() == [1.0]
    with pytest.raises(SuiteError, match=r"loss\.rewards: 2 rewards for codes of 3 levels"):
        PathValue(data, codes_of(data), rewards=[0.5, 1.0])


def test_what_is_learnt_by_heart(tmp_path):
    """A verifier alone finds the targets, with a likelihood that knows nothing; and values come to their rewards."""
    data = world(tmp_path)
    codes = codes_of(data)
    encoder = decoder(data, codes, width=16, dropout=0.0, verifier=True, value_head=True)
    batch = newest_target_only(BATCH)
    losses = [
        PathVerification(data, codes, negatives=16, positions=None),
        made_with(PathValue, data, codes, samples=16, temperature=5.0),
    ]
    (optimizer,) = adam(encoder, lr=0.01)
    torch.manual_seed(0)
    for _ in range(120):
        optimizer.zero_grad()
        with encoder.one_pass():
            sum(sum(loss(encoder, batch).values()) for loss in losses).backward()
        optimizer.step()
    encoder.eval()
    guided = made_with(Beam, width=1, verify=9)
    guided.index(encoder, ITEMS, codes)
    found = guided.search(encoder, batch, 1).items[:, 0]
    assert torch.equal(codes.table[found], codes.table[batch.targets[:, -1]])
    paths = codes.table[batch.targets[:, -1]].unsqueeze(1)
    with torch.no_grad():
        right, wrong = encoder.path_values(batch, paths), encoder.path_values(batch, (paths + 1) % torch.tensor(SIZES))
    assert (right[:, 0, 2] > wrong[:, 0, 2]).all()
