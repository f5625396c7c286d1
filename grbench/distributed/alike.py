"""Whether the ranks still have one model: gradients are averaged, and what else an encoder learns has to be the same on
all, which nothing but the encoder can see to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grbench.distributed.gradients import LARGEST_BUCKET
from grbench.distributed.ranks import Ranks
from grbench.distributed.row_table import divided_tables
from grbench.errors import PluginError

FARTHEST = 1e-3
"""Largest distance of a rank's values from the mean over the ranks, relative to that mean's norm. Where kernels add up
in varying order values differ by less; where each rank learns from its own users, by more."""


def check_alike(encoder: nn.Module, ranks: Ranks) -> None:
    """Raises PluginError, on all ranks, where parameters or buffers of the encoder are not the same on all of them;
    divided tables are left out."""
    if ranks.alone:
        return
    divided = divided_tables(encoder)
    state = {name: value for name, value in encoder.state_dict().items() if name not in divided and value.numel()}
    if not state:
        return
    distances = torch.stack([_distance(value, ranks) for value in state.values()])
    for name, distance in zip(state, ranks.total(distances).tolist(), strict=True):
        if distance > FARTHEST * ranks.size:
            raise PluginError(
                f"encoder {type(encoder).__name__}: {name} is not the same on all devices after an epoch. What an "
                "encoder learns otherwise than by gradients should be learnt from the whole batch (`current().total` "
                "and `drawn_alike` of grbench.distributed.ranks); until it is, train it with training.devices: 1"
            )


@torch.no_grad()
def _distance(value: Tensor, ranks: Ranks) -> Tensor:
    """Of this rank's values from the mean, relative to the mean's norm; a scalar, on the ranks' device."""
    squares = torch.zeros(2, dtype=torch.float64, device=ranks.device)
    for some in torch.split(value.reshape(-1), LARGEST_BUCKET):
        own = some.to(ranks.device, torch.float32)
        mean = ranks.total(own) / ranks.size
        squares += torch.stack([(own - mean).double().square().sum(), mean.double().square().sum()])
    apart, norm = squares.sqrt()
    return torch.where(apart > 0, apart / norm.clamp(min=torch.finfo(torch.float64).tiny), apart)
