"""The rotation of a layout's tokens against that of a grid."""

import pytest
import torch

from grbench_reference.kernels.rotary import rotate_qkv
from grbench_reference.layers.transformer import Rotary


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.bfloat16, 0.05)])
def test_equals_the_rotation_of_a_grid_in_values_and_gradients(dtype, atol):
    rotary = Rotary(4, 6)
    qkv = torch.randn(6, 3, 2, 4, dtype=dtype, requires_grad=True)
    along = torch.randn(6, 3, 2, 4, dtype=dtype)
    query, key, value = qkv.unbind(1)
    grid = [rotary(side.transpose(0, 1).unsqueeze(0))[0].transpose(0, 1) for side in (query, key)]
    expected = torch.stack([*grid, value], 1)
    found = rotate_qkv(qkv, rotary.cos, rotary.sin)
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    gradients = [torch.autograd.grad((each * along).sum(), qkv) for each in (found, expected)]
    torch.testing.assert_close(*gradients, atol=atol, rtol=0)


def test_each_token_is_turned_by_its_own_place():
    rotary, places = Rotary(4, 6), torch.tensor([5, 0, 5, 2])
    one = torch.randn(1, 3, 1, 4)
    found = rotate_qkv(one.expand(4, 3, 1, 4), rotary.cos[places], rotary.sin[places])
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], one[0])
    assert not torch.allclose(found[3], one[0])
