"""The normalisation with its gradient written out, against torch's own."""

import pytest
import torch
from torch import nn

from grbench_reference.kernels.rms_norm import RMSNorm


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (0, 6)])
def test_equals_torch_in_values_and_gradients(shape):
    own, plain = RMSNorm(6), nn.RMSNorm(6, eps=1e-6)
    with torch.no_grad():
        own.weight.uniform_(0.5, 2)
    plain.load_state_dict(own.state_dict())
    values = torch.randn(shape, requires_grad=True)
    along = torch.randn(shape)
    torch.testing.assert_close(own(values), plain(values))
    found = torch.autograd.grad((own(values) * along).sum(), [values, own.weight])
    expected = torch.autograd.grad((plain(values) * along).sum(), [values, plain.weight])
    torch.testing.assert_close(found, expected)


def test_a_row_of_zeros_stays_zero_and_its_gradient_finite():
    values = torch.zeros(1, 4, requires_grad=True)
    normed = RMSNorm(4)(values)
    assert torch.equal(normed, torch.zeros(1, 4))
    (gradient,) = torch.autograd.grad(normed.sum(), values)
    assert gradient.isfinite().all()


def test_half_precision_is_torchs_own():
    values = torch.randn(3, 4, dtype=torch.bfloat16)
    torch.testing.assert_close(RMSNorm(4).bfloat16()(values), nn.RMSNorm(4, eps=1e-6).bfloat16()(values))
