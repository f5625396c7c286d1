"""Operations counted by hand, and peaks as the data sheets have them; no test asserts how fast anything is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from training import train_once

from grbench.cost import flops as utilisation
from grbench.cost.flops import FlopCount, device_peak, published_peak
from grbench.data.histories import Histories
from grbench.data.split import Split
from grbench.data.training_data import TrainingData
from grbench.testing import tiny_store
from grbench.training.options import TrainingOptions

ROWS, WIDE, NARROW = 5, 7, 3


def test_a_linear_layer_by_hand() -> None:
    layer, rows = nn.Linear(WIDE, NARROW), torch.randn(ROWS, WIDE)
    with FlopCount() as forward:
        loss = layer(rows).sum()
    assert forward.flops == 2 * ROWS * WIDE * NARROW
    with FlopCount() as backward:
        loss.backward()
    assert backward.flops == 2 * ROWS * WIDE * NARROW  # the weight's gradient; nobody asked for the rows'


class HandsOn(nn.Module):
    """Gives a view of its parameter, as encoders do whose item vectors are rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(NARROW + 1, WIDE))

    def forward(self) -> torch.Tensor:
        return self.table[1:]


def test_a_view_of_a_parameter_is_handed_on_where_no_gradient_is_taken() -> None:
    table = HandsOn()
    with FlopCount() as count:
        with torch.no_grad():
            torch.randn(ROWS, WIDE) @ table().T
        torch.randn(ROWS, WIDE) @ table().T
    assert count.flops == 2 * (2 * ROWS * WIDE * NARROW)


def test_products_in_place_and_into_given_memory_count() -> None:
    left, right, result = torch.randn(ROWS, WIDE), torch.randn(WIDE, NARROW), torch.zeros(ROWS, NARROW)
    with FlopCount() as count:
        torch.mm(left, right, out=result)
        result.addmm_(left, right)
    assert count.flops == 2 * (2 * ROWS * WIDE * NARROW)


def test_attention_counts_on_every_device() -> None:
    """Queries times keys, and shares times values; the way back makes five such products where torch recomputes."""
    batch, heads, length, width = 2, 3, 16, 8
    query = torch.randn(batch, heads, length, width, requires_grad=True)
    with FlopCount() as count:
        attended = functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    assert count.flops == 2 * (2 * batch * heads * length * length * width)
    with FlopCount() as count:
        attended.sum().backward()
    assert count.flops >= 4 * (2 * batch * heads * length * length * width)


class Line(nn.Module):
    history_length = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDE, NARROW)


class OnOnes(nn.Module):
    """One product of [ROWS, WIDE] by [WIDE, NARROW], whatever the batch."""

    def forward(self, encoder, batch):
        return {"line": encoder.layer(torch.ones(ROWS, WIDE)).square().mean()}


class Multiplying(torch.optim.SGD):
    """An optimizer that makes products of its own, as Muon does."""

    def step(self, closure=None):
        torch.mm(torch.ones(64, 64), torch.ones(64, 64))
        return super().step(closure)


@pytest.fixture
def split(tmp_path) -> Split:
    store = tiny_store(tmp_path, [[(1, 0, 1), (2, 0, 2), (3, 0, 3)] for _ in range(20)])
    rows = np.arange(20)
    return Split(
        TrainingData(store.catalogue, Histories(store, rows, store.offsets[:-1], store.offsets[1:])),
        None,
        None,
        np.arange(1, 4),
    )


def learnt(split: Split, **options):
    torch.manual_seed(0)
    encoder = Line()
    optimizers = [Multiplying(encoder.parameters(), lr=0.1)]
    options = TrainingOptions(**{"workers": 0, "batch_size": 2, "epochs": 1} | options)
    return encoder, train_once(encoder, [(OnOnes(), 1.0)], optimizers, split, options)


def test_a_training_step_is_counted_without_its_optimizer(split) -> None:
    _, result = learnt(split)
    assert result.warm_up_steps == 1
    assert result.flops_per_step == 2 * (2 * ROWS * WIDE * NARROW)
    assert result.steps_per_second * 2 == pytest.approx(result.users_per_second)


def test_a_step_that_is_timed_is_not_counted(split) -> None:
    _, result = learnt(split, batch_size=10)
    assert (result.warm_up_steps, result.flops_per_step) == (0, None)


def test_counting_changes_no_number(split, monkeypatch) -> None:
    counted, _ = learnt(split)
    monkeypatch.setattr("grbench.training.loop.WARM_UP_STEPS", 0)
    plain, result = learnt(split)
    assert result.flops_per_step is None
    assert torch.equal(counted.layer.weight, plain.layer.weight)


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA H200", "fp32", 66.9),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.7),
        ("NVIDIA A100-SXM4-80GB", "fp16", 312),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA GeForce RTX 4090", "fp32", 82.6),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "fp32", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "fp32", None),
        ("Tesla T4", "bf16", None),  # its tensor cores know no bfloat16
        ("Tesla T4", "fp16", 65),
    ],
)
def test_published_peaks(name: str, precision: str, peak: float | None) -> None:
    assert published_peak(name, precision) == peak


def test_the_share_of_a_known_peak() -> None:
    used = utilisation.utilisation(500_000_000_000, 2.0, lambda: (4.0, "a sheet of paper"))
    assert used == {
        "train_flops_per_step": 500_000_000_000,
        "train_tflops_per_second": 1.0,
        "peak_tflops_per_second": 4.0,
        "peak": "a sheet of paper",
        "train_share_of_peak": 0.25,
    }


def test_what_was_not_counted_has_no_share() -> None:
    assert set(utilisation.utilisation(None, 3.0, lambda: pytest.fail("measured for nothing")).values()) == {None}


def test_a_cpu_is_measured(monkeypatch) -> None:
    monkeypatch.setattr(utilisation, "PROBE_SIZE", {"cpu": 64})
    monkeypatch.setattr(utilisation, "PROBE_SECONDS", 0.01)
    peak, source = device_peak("cpu", "bf16")
    assert peak > 0
    assert source == "measured: a matmul of 64 x 64, bf16"
