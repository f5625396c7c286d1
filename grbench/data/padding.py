"""Histories padded on the right, for encoders that read events one after another.

A batch is padded on the left. A recurrent network (GRU, LSTM) changes its state at padding too, so that a user's states
would depend on how much of it stands before the history. With the padding behind the events no state knows of it.

    inputs = padding_last(self.items(batch.items), batch.items)
    states = padding_first(self.gru(inputs)[0], batch.items)

Shapes: B users, T history length. Shapes are static and nothing waits for the device, as packed sequences
(`pack_padded_sequence`) would have it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def padding_last(values: Tensor, items: Tensor) -> Tensor:
    """values [B, T, ...], of the positions of items [B, T] -> the same with each history from column 0 on."""
    return _shifted(values, (items == 0).sum(1, keepdim=True))


def padding_first(values: Tensor, items: Tensor) -> Tensor:
    """The inverse of `padding_last`. values: [B, T, ...]; items: [B, T] as the batch has them, padded on the left."""
    return _shifted(values, -(items == 0).sum(1, keepdim=True))


def _shifted(values: Tensor, columns: Tensor) -> Tensor:
    """Each row rotated to the left by its number of columns, [B, 1]."""
    length = values.shape[1]
    places = (torch.arange(length, device=values.device) + columns) % length
    return values.gather(1, places.reshape(*places.shape, *[1] * (values.ndim - 2)).expand_as(values))
