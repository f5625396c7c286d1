"""A recurrent encoder, whose state padding would change: as the guide has it, it passes the kit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from grbench import hookimpl
from grbench.registry.discovery import Registry
from grbench.testing.checks.all_checks import CHECKS
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.run_checks import run_check


class Recurrent(nn.Module):
    """A GRU over histories that are turned to begin in column 0."""

    history_length = 20

    def __init__(self, data: Any, codes: Any) -> None:
        super().__init__()
        self.items = nn.Embedding(data.catalogue.num_items + 1, 8, padding_idx=0)
        self.gru = nn.GRU(8, 8, batch_first=True)

    def embed(self, batch: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        length = batch.items.shape[1]
        padding = (batch.items == 0).sum(1, keepdim=True)
        columns = torch.arange(length, device=batch.items.device)
        states = self.gru(self.items(batch.items.gather(1, (columns + padding) % length)))[0]
        back = ((columns - padding) % length).unsqueeze(2).expand_as(states)
        return states.gather(1, back), self.embed_items(items)

    def embed_histories(self, batch: Any) -> Tensor:
        return self.embed(batch, batch.items[:, -1])[0][:, -1]

    def embed_items(self, items: Tensor) -> Tensor:
        vectors: Tensor = self.items(items)
        return vectors


class OverPadding(Recurrent):
    """The GRU reads padding like events."""

    def embed(self, batch: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(self.items(batch.items))[0], self.embed_items(items)


class Package:
    @hookimpl
    def register_encoders(self, register: Any) -> None:
        register("recurrent", Recurrent)
        register("over_padding", OverPadding)


def failures(name: str) -> set[str]:
    registry = Registry()
    registry.add("recurrent", "recurrent", "1.0", Package)
    plugin = CheckedPlugin(registry, "encoders", name)
    return {check.name for check in CHECKS["encoders"] if run_check(check, plugin).verdict == "failed"}


def test_a_gru_over_turned_histories_passes() -> None:
    assert failures("recurrent") == set()


def test_a_gru_over_padding_fails_where_padding_changes_states() -> None:
    assert failures("over_padding") == {"padding_has_no_influence", "causality"}
