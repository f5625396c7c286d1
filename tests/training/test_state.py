"""What a trainer calls of a training's state, by hand."""

import pytest
import torch
from torch import nn
from training import state_of, train_once
from worlds import training_data

from grbench.data.split import Split
from grbench.errors import RunError, SuiteError
from grbench.interfaces import Loss, Trainer
from grbench.training.loop import train
from grbench.training.options import TrainingOptions
from grbench.training.state import TrainState
from grbench.types import Codes
from grbench_reference.trainers.supervised import Supervised


class Two(nn.Module):
    """An encoder of two numbers, each with an optimizer of its own."""

    history_length = 2

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))

    def optimizers(self, kind=torch.optim.SGD):
        return [kind([self.one], lr=1.0), kind([self.other], lr=1.0)]


@pytest.fixture
def split(tmp_path):
    data = training_data(tmp_path, [[(1, 0, 1), (2, 0, 2), (3, 0, 3)]] * 6)
    return Split(data, None, None, None)


def begun(encoder, optimizers, **options):
    state = state_of(encoder, [], optimizers, TrainingOptions(**options), trainer=object())
    state.begin()
    state.steps = state.step = 1
    return state


@pytest.mark.parametrize("clip_norm", [None, 1e9])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_half_an_update_is_never_made(bad, clip_norm):
    """In fp16 one gradient overflows: the optimizer of the other number waits as well, and the scale is halved."""
    encoder = Two()
    state = begun(encoder, encoder.optimizers(), precision="fp16", clip_norm=clip_norm)
    scale = state.scaler.get_scale()
    state.backward(encoder.one * 0.25 + encoder.other * bad)
    state.update()
    assert (encoder.one.item(), encoder.other.item()) == (1, 1)
    assert state.scaler.get_scale() == scale / 2
    assert encoder.one.grad is None
    state.backward(encoder.one * 0.25 + encoder.other * 0.5)
    state.update()
    assert (encoder.one.item(), encoder.other.item()) == (0.75, 0.5)


def test_sparse_gradients_wait_too():
    table, line = nn.Embedding(3, 1, sparse=True), nn.Linear(1, 1)
    encoder = nn.ModuleList([table, line])
    encoder.history_length = 2
    before = table.weight.detach().clone()
    state = begun(encoder, [torch.optim.SGD([each], lr=1.0) for each in encoder.parameters()], precision="fp16")
    state.backward(table(torch.tensor([1])).sum() + line(torch.ones(1)).sum() * float("inf"))
    state.update()
    assert torch.equal(table.weight, before)


def test_several_updates_of_a_batch_have_its_learning_rate():
    """A line from 1 at the first of four batches to 0 after the last."""
    encoder = Two()
    state = begun(encoder, encoder.optimizers(), schedule="linear", epochs=1)
    state.steps = 4
    rates = []
    for state.step in (1, 2, 3, 4):
        for _ in range(3):
            state.backward(encoder.one * 0.0)
            state.update()
            rates.append(encoder_rate(state))
    assert rates == [rate for rate in (1, 0.75, 0.5, 0.25) for _ in range(3)]


def encoder_rate(state):
    return state.optimizers[0].param_groups[0]["lr"]


def test_batches_that_share_an_update_share_its_learning_rate():
    encoder = Two()
    state = begun(encoder, encoder.optimizers(), schedule="linear", accumulate=2, epochs=2)
    state.steps = 3  # two updates an epoch, four in all
    rates = []
    for state.epoch in (1, 2):
        for state.step in (2, 3):
            state.update()
            rates.append(encoder_rate(state))
    assert rates == [1, 0.75, 0.5, 0.25]


def test_a_checkpoint_is_of_a_stage():
    state = begun(Two(), [])
    saved = state.state_dict() | {"stage": 1}
    with pytest.raises(ValueError, match="the checkpoint is of stage 1, and this is stage 0"):
        state.load_state_dict(saved)


class Switched(torch.optim.SGD):
    """Evaluates at ten times the parameter that it trains."""

    modes = ()

    def train(self):
        self.modes = (*self.modes, "train")
        if self.modes.count("eval"):
            self._scale(0.1)

    def eval(self):
        self.modes = (*self.modes, "eval")
        self._scale(10)

    @torch.no_grad()
    def _scale(self, factor):
        for parameter in self.param_groups[0]["params"]:
            parameter.mul_(factor)


class Push(nn.Module):
    def forward(self, encoder, batch):
        return {"push": encoder.one}


def test_an_optimizer_with_modes_is_switched(split):
    """It is validated where it evaluates, trains on from where it trained, and ends where it evaluates."""
    encoder, seen = Two(), []
    optimizer = Switched([encoder.one], lr=0.25)
    options = TrainingOptions(epochs=2, batch_size=6, workers=0, validate_every=1, select="best")

    def validate():
        seen.append(encoder.one.item())
        return {"best": len(seen)}

    train_once(encoder, [(Push(), 1.0)], [optimizer], split, options, validate=validate)
    assert seen == pytest.approx([7.5, 5.0])
    assert encoder.one.item() == pytest.approx(5.0)  # the best state is the one that was validated
    assert optimizer.modes[:3] == ("train", "eval", "train")


def test_an_optimizer_with_modes_ends_where_it_evaluates(split):
    encoder = Two()
    optimizer = Switched([encoder.one], lr=0.25)
    train_once(encoder, [(Push(), 1.0)], [optimizer], split, TrainingOptions(epochs=1, batch_size=6, workers=0))
    assert (encoder.one.item(), optimizer.modes) == (7.5, ("train", "eval"))


class Alternating(Trainer):
    """Two objectives in turn, a module of its own that is trained with the encoder, and notes of its calls."""

    def __init__(self):
        self.calls = []

    def start(self, state):
        assert not state.optimizers
        state.modules["critic"] = nn.Linear(1, 1)
        self.calls.append("start")

    def step(self, state, batch):
        name = ("odd", "even")[state.step % 2 - 1]
        value = state.encoder.one * (1.0 if name == "odd" else 10.0)
        state.backward(value)
        state.update()
        return {name: value}

    def finish(self, state):
        assert not state.encoder.training
        self.calls.append("finish")


def test_a_trainer_may_give_other_values_in_every_step(split):
    encoder, trainer = Two(), Alternating()
    options = TrainingOptions(epochs=1, batch_size=2, workers=0)
    made = lambda modules: [torch.optim.SGD(modules.parameters(), lr=0.1)]  # noqa: E731
    codes = Codes(torch.zeros(4, 1, dtype=torch.int64), (1,))
    state = TrainState(encoder, [], trainer, made, options, data=split.training, codes=codes, device="cpu", seed=0)
    (row,) = train(state).curve
    # 1, then 10 * (1 - 0.1), then 0.9 - 1
    assert row["odd"] == pytest.approx((1 + (1 - 0.1 - 1)) / 2)
    assert row["even"] == pytest.approx(9.0)
    assert trainer.calls == ["start", "finish"]
    assert any(name.startswith("critic") for name in state.state_dict()["modules"])


def test_the_value_that_is_no_number_is_named(split):
    class Broken(Alternating):
        def step(self, state, batch):
            return {"fine": torch.tensor(1.0), "odd": torch.tensor(float("nan"))}

    options = TrainingOptions(epochs=1, batch_size=2, workers=0)
    with pytest.raises(RunError, match="odd is not a finite number at epoch 1, step 1 of 3"):
        train_once(Two(), [], [], split, options, trainer=Broken())


def test_supervised_needs_a_loss():
    state = state_of(Two(), [], [], TrainingOptions(), trainer=Supervised())
    with pytest.raises(SuiteError, match="trainer supervised: there is no loss to minimise"):
        state.begin()


def test_a_loss_is_told_its_stage():
    class Told(nn.Module, Loss):
        needs = ()

        def start_stage(self, name, number):
            self.told = name, number

        def forward(self, encoder, batch):
            return {}

    loss = Told()
    state_of(Two(), [(loss, 1.0)], [], TrainingOptions()).begin()
    assert loss.told == ("", 0)
