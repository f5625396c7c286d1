"""The training loop on hand-made encoders and losses, so that every number can be worked out."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from training import train_once

from grbench.cost.meter import Meter
from grbench.data.histories import Histories
from grbench.data.split import Split
from grbench.data.training_data import TrainingData
from grbench.errors import DataError, RunError, SuiteError
from grbench.testing import tiny_store
from grbench.training.options import TrainingOptions
from grbench.training.update import clip_gradients
from grbench_reference.trainers.supervised import weighted_terms


class Constant(nn.Module):
    """An encoder of one number."""

    history_length = 3

    def __init__(self, value=1.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value)))


class Push(nn.Module):
    """Its gradient is the number of users with a target: batches can be told apart by it."""

    needs = ()

    def __init__(self, at=None, value=float("nan")):
        super().__init__()
        self.calls, self.at, self.value, self.seen = 0, at, value, []

    def forward(self, encoder, batch):
        self.calls += 1
        self.seen.append(batch.users.tolist())
        users = (batch.targets > 0).any(1).sum()
        factor = self.value if self.calls == self.at else 1.0
        return {"push": encoder.value * users * factor}


def split_of(tmp_path, users=5, events=3):
    histories = [[(1 + (user + place) % 4, 0, place) for place in range(events)] for user in range(users)]
    store = tiny_store(tmp_path, histories, num_items=4)
    rows = np.arange(users)
    training = TrainingData(store.catalogue, Histories(store, rows, store.offsets[:-1], store.offsets[1:]))
    return Split(training, None, None, np.arange(1, 5))


def run(split, encoder=None, losses=None, *, lr=1.0, seed=0, optimizers=None, **kwargs):
    encoder = encoder or Constant()
    losses = losses or [(Push(), 1.0)]
    told = {name: kwargs.pop(name) for name in ("report", "validate", "meter", "higher_is_better") if name in kwargs}
    optimizers = optimizers or [torch.optim.SGD(encoder.parameters(), lr=lr)]
    options = TrainingOptions(**{"batch_size": 2, "epochs": 1, "workers": 0, **kwargs})
    return encoder, train_once(encoder, losses, optimizers, split, options, seed=seed, **told)


def test_one_epoch_by_hand(tmp_path):
    """Five users in batches of two: 2 + 2 + 1 users with a target."""
    encoder, result = run(split_of(tmp_path))
    assert encoder.value.item() == 1 - 2 - 2 - 1
    # losses 1 * 2, -1 * 2, -3 * 1
    (row,) = result.curve
    assert (row["epoch"], row["loss"], row["push"]) == (1, -1.0, -1.0)
    assert row["events_per_second"] == pytest.approx(2 * row["users_per_second"])
    assert (result.epochs_run, result.steps_run, result.best_epoch, result.stopped_early) == (1, 3, None, False)
    assert not encoder.training


def test_losses_add_up_by_weight():
    class Two(nn.Module):
        def forward(self, encoder, batch):
            return {"one": torch.tensor(1.0), "two": torch.tensor(10.0)}

    terms = weighted_terms(nn.Linear(1, 1), [(Two(), 1.0), (Two(), 0.5)], None)
    assert {name: value.item() for name, value in terms.items()} == {"one": 1.5, "two": 15.0}


class Shared(nn.Module):
    """Reads a batch once a pass, and wants that reading kept small."""

    def __init__(self):
        super().__init__()
        self.readings, self.kept = 0, None

    @contextmanager
    def one_pass(self):
        self.kept = {}
        yield lambda: {"own": torch.tensor(7.0), "both": torch.tensor(100.0)} if self.kept else {}
        self.kept = None

    def read(self, batch):
        if self.kept is None or batch not in self.kept:
            self.readings += 1
        if self.kept is not None:
            self.kept[batch] = True


def test_losses_share_a_pass_and_the_encoders_own_terms_count_once():
    class Reads(nn.Module):
        def forward(self, encoder, batch):
            encoder.read(batch)
            return {"both": torch.tensor(1.0)}

    encoder = Shared()
    losses = [(Reads(), 2.0), (Reads(), 4.0)]
    for reading in (1, 2):
        terms = weighted_terms(encoder, losses, "batch")
        assert {name: value.item() for name, value in terms.items()} == {"both": 106.0, "own": 7.0}
        assert encoder.readings == reading
        assert encoder.kept is None
    assert weighted_terms(encoder, [], "batch") == {}


def test_accumulation_averages_and_uses_the_rest(tmp_path):
    """Batches of 2, 2 and 1 users in groups of two: gradients (2 + 2) / 2, then 1 alone."""
    encoder, _ = run(split_of(tmp_path), accumulate=2)
    assert encoder.value.item() == 1 - 2 - 1


def test_accumulation_equals_a_larger_batch(tmp_path):
    split = split_of(tmp_path, users=8)
    whole, _ = run(split, batch_size=4, lr=0.1)
    halves, _ = run(split, batch_size=2, accumulate=2, lr=0.2)
    assert whole.value.item() == pytest.approx(halves.value.item())


def test_clipping(tmp_path):
    encoder, _ = run(split_of(tmp_path), clip_norm=0.5)
    assert encoder.value.item() == pytest.approx(1 - 3 * 0.5, abs=1e-5)


def test_clipping_counts_sparse_gradients():
    dense, table = nn.Parameter(torch.zeros(2)), nn.Embedding(5, 1, sparse=True)
    dense.grad = torch.tensor([3.0, 0.0])
    (table(torch.tensor([1, 1])).sum() * 2).backward()  # twice the same row: 4, not the norm of (2, 2)
    clip_gradients([dense, table.weight], 1.0)
    assert dense.grad.tolist() == pytest.approx([0.6, 0.0])
    assert table.weight.grad.to_dense().flatten().tolist() == pytest.approx([0, 0.8, 0, 0, 0])


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 2}, [0.5, 1, 1, 1, 1, 1]),
        ({"warmup_share": 0.35}, [0.5, 1, 1, 1, 1, 1]),  # of 6 updates 2.1
        ({"schedule": "linear", "warmup_share": 0.1}, [1, 1, 0.8, 0.6, 0.4, 0.2]),  # at least one
        ({"schedule": "linear", "warmup_steps": 2}, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ({"schedule": "cosine", "final_rate": 0.5}, [1, 0.966506, 0.875, 0.75, 0.625, 0.533494]),
    ],
)
def test_schedules_by_hand(tmp_path, options, rates):
    used = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            used.append(self.param_groups[0]["lr"])

    encoder = Constant()
    run(split_of(tmp_path), encoder, optimizers=[Spy(encoder.parameters(), lr=1.0)], epochs=2, **options)
    assert used == pytest.approx(rates, abs=1e-6)


def test_several_optimizers_step(tmp_path):
    encoder = Constant()
    encoder.other = nn.Parameter(torch.tensor(0.0))

    class Both(Push):
        def forward(self, encoder, batch):
            return {"both": super().forward(encoder, batch)["push"] + encoder.other}

    optimizers = [torch.optim.SGD([encoder.value], lr=1.0), torch.optim.SGD([encoder.other], lr=2.0)]
    run(split_of(tmp_path), encoder, [(Both(), 1.0)], optimizers=optimizers)
    assert (encoder.value.item(), encoder.other.item()) == (-4, -6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_its_place(tmp_path, value):
    with pytest.raises(RunError, match=r"not a finite number at epoch 2, step 2 of 3"):
        run(split_of(tmp_path), losses=[(Push(at=5, value=value), 1.0)], epochs=3)


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(DataError, match=r"none of the 2 training users has two events"):
        run(split_of(tmp_path, users=2, events=1))


def test_validation_restores_the_best_state(tmp_path):
    scores, seen = iter([0.1, 0.5, 0.3, 0.4]), []
    encoder = Constant()

    def validate():
        assert not encoder.training
        assert not torch.is_grad_enabled()
        seen.append(encoder.value.item())
        return {"ndcg@10": next(scores)}

    _, result = run(split_of(tmp_path), encoder, epochs=4, validate_every=1, validate=validate)
    assert (result.best_epoch, result.best_score) == (2, 0.5)
    assert encoder.value.item() == seen[1] == 1 - 2 * 5
    assert [row["ndcg@10"] for row in result.curve] == [0.1, 0.5, 0.3, 0.4]


def test_the_best_state_where_lower_is_better(tmp_path):
    scores, seen = iter([0.4, 0.1, 0.3]), []
    encoder = Constant()

    def validate():
        seen.append(encoder.value.item())
        return {"ndcg@10": next(scores)}

    told = {"validate": validate, "higher_is_better": False}
    _, result = run(split_of(tmp_path), encoder, epochs=3, validate_every=1, **told)
    assert (result.best_epoch, result.best_score) == (2, 0.1)
    assert encoder.value.item() == seen[1]
    assert [row["ndcg@10"] for row in result.curve] == [0.4, 0.1, 0.3]


def test_training_leaves_the_processor_as_it_is(tmp_path):
    torch.set_flush_denormal(False)
    run(split_of(tmp_path))
    # by its bits: while denormals are flushed, comparing takes them for zero as well
    assert torch.tensor([1e-310], dtype=torch.float64).mul(0.5).view(torch.int64).item() > 0


def test_patience(tmp_path):
    scores = iter([0.5, 0.5, 0.4, 0.9])
    encoder, result = run(
        split_of(tmp_path), epochs=9, validate_every=1, patience=2, validate=lambda: {"ndcg@10": next(scores)}
    )
    assert (result.epochs_run, result.best_epoch, result.stopped_early) == (3, 1, True)
    assert encoder.value.item() == 1 - 5


def test_validation_every_few_epochs(tmp_path):
    calls = []
    run(split_of(tmp_path), epochs=5, validate_every=2, validate=lambda: calls.append(1) or {"ndcg@10": 1.0})
    assert len(calls) == 2


def test_a_metric_that_is_not_validated(tmp_path):
    with pytest.raises(SuiteError, match=r"no metric 'ndcg@10' is validated; there are mrr"):
        run(split_of(tmp_path), validate_every=1, validate=lambda: {"mrr": 1.0})


def test_the_same_seed_gives_the_same_run(tmp_path):
    split = split_of(tmp_path, users=9)
    orders = []
    for seed in (0, 0, 1):
        loss = Push()
        run(split, losses=[(loss, 1.0)], seed=seed, epochs=2, workers=seed)
        orders.append(loss.seen)
    assert orders[0] == orders[1] != orders[2]


def test_half_precision_is_asked_for(tmp_path):
    dtypes = []

    class Look(Push):
        def forward(self, encoder, batch):
            dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
            return super().forward(encoder, batch)

    encoder, _ = run(split_of(tmp_path), losses=[(Look(), 1.0)], precision="bf16")
    run(split_of(tmp_path), losses=[(Look(), 1.0)])
    assert dtypes == [torch.bfloat16] * 3 + [torch.float32] * 3
    assert encoder.value.dtype == torch.float32


def test_fp16_scales_and_unscales(tmp_path):
    encoder, _ = run(split_of(tmp_path), precision="fp16", clip_norm=0.5)
    assert encoder.value.item() == pytest.approx(1 - 3 * 0.5, abs=1e-3)


def test_a_compiled_step_gives_the_same_numbers(tmp_path, monkeypatch):
    """Traced, but run as it is: that takes no compiler, and what is generated is torch's to test."""

    class Pull(nn.Module):
        def forward(self, encoder, batch):
            return {"pull": (encoder.value - batch.targets.float().mean()).square()}

    traced = []

    def compiler(graph, inputs):
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    split = split_of(tmp_path, users=45)
    plain, compiled = (run(split, losses=[(Pull(), 1.0)], lr=0.1, compile=each)[0] for each in (False, True))
    assert traced
    assert compiled.value.item() == pytest.approx(plain.value.item())


def test_throughput_leaves_warm_up_and_validation_out(tmp_path):
    split = split_of(tmp_path, users=40)
    meter = Meter("cpu")
    _, result = run(split, epochs=2, validate_every=1, validate=lambda: {"ndcg@10": 1.0}, meter=meter)
    assert result.warm_up_steps == 4  # a tenth of 40
    costs = meter.costs()
    assert set(costs) == {"train", "validate"}
    assert costs["train"]["runs"] == 2
    assert costs["train"]["users_per_second"] == result.users_per_second
    # 36 measured steps of 2 users; each user's batch row holds two events
    assert result.events_per_second == pytest.approx(2 * result.users_per_second)
    assert 72 / result.users_per_second <= costs["train"]["seconds"]


def test_progress_is_told(tmp_path):
    events = []
    run(split_of(tmp_path), epochs=2, report=lambda event, **values: events.append((event, values)))
    last = events[-1]
    assert last[0] == "train"
    assert {"epoch": 2, "epochs": 2, "step": 3, "steps": 3}.items() <= last[1].items()
    assert {"loss", "push", "users_per_second", "events_per_second"} <= set(last[1])
