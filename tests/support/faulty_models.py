"""Encoders with one fault each."""

from __future__ import annotations

from pathlib import Path

import torch
from faulty_parts import fails
from torch import nn

from grbench.testing.checks.plain_parts import PlainEncoder, Written
from grbench.types import Codes


@fails("encoders", "options_are_documented")
class Undocumented(PlainEncoder):
    """Says nothing of its width."""


@fails("encoders", "interface")
class NoHistoryLength(PlainEncoder):
    history_length = "all"


@fails("encoders", "shapes")
class OneStateAUser(PlainEncoder):
    def embed(self, batch, items):
        return self.states(batch)[:, -1:], self.embed_items(items)


@fails("encoders", "padding_has_no_influence")
class MeanOfAllColumns(PlainEncoder):
    def states(self, batch):
        return self.turn(self.items(batch.items).mean(1, keepdim=True)).expand(-1, batch.items.shape[1], -1)


@fails("encoders", "batch_order_has_no_influence")
class KnowsItsRow(PlainEncoder):
    def states(self, batch):
        return super().states(batch) + torch.arange(len(batch.users))[:, None, None]


@fails("encoders", "batch_size_has_no_influence")
class NormedOverTheBatch(PlainEncoder):
    def states(self, batch):
        states = super().states(batch)
        return states - states.mean(0, keepdim=True)


@fails("encoders", "causality")
class SeesTheNextItem(PlainEncoder):
    def states(self, batch):
        return super().states(batch) + self.items(batch.targets)


@fails("encoders", "histories_equal_last_state")
class ScaledHistories(PlainEncoder):
    def embed_histories(self, batch):
        return 1.1 * super().embed_histories(batch)


@fails("encoders", "cached_decoding_equals_uncached")
class ForgetsItsPrefix(PlainEncoder):
    def step(self, codes, state):
        return self.levels[state.level + 1](state.contexts), Written(state.contexts, state.level + 1)


@fails("encoders", "users_without_events")
class TokenKnowsTheFirstEvent(PlainEncoder):
    def predicts_first_event(self):
        return True

    def embed(self, batch, items):
        states = self.states(batch)
        return torch.cat([states.mean(1, keepdim=True), states], 1), self.embed_items(items)


@fails("encoders", "learnt_codes_fit")
class CodesOfTooFewItems(PlainEncoder):
    def codes(self):
        return Codes(self.table[:-1], (7, 5))


@fails("encoders", "every_parameter_learns")
class Idle(PlainEncoder):
    def __init__(self, data, codes) -> None:
        super().__init__(data, codes)
        self.spare = nn.Linear(8, 8)

    def states(self, batch):
        return super().states(batch) + self.spare(super().states(batch)).detach()


@fails("encoders", "seed_decides")
class SeedsItself(PlainEncoder):
    def __init__(self, data, codes) -> None:
        torch.manual_seed(7)
        super().__init__(data, codes)


@fails("encoders", "saves_and_loads")
class CountsInAnAttribute(PlainEncoder):
    steps = 0

    def states(self, batch):
        self.steps += self.training
        return super().states(batch) * (1 + self.steps)


@fails("encoders", "moves_between_devices")
class KeepsATensor(PlainEncoder):
    def __init__(self, data, codes) -> None:
        super().__init__(data, codes)
        self.shift = torch.ones(8)

    def states(self, batch):
        return super().states(batch) + self.shift


@fails("encoders", "half_precision")
class WritesFloatIntoHalf(PlainEncoder):
    def states(self, batch):
        states = super().states(batch)
        return states.index_copy(1, torch.tensor([0]), states.new_zeros(len(states), 1, 8).float())


@fails("encoders", "keeps_nothing_of_old_weights")
class Caches(PlainEncoder):
    kept = None

    def embed_items(self, items):
        if self.training or self.kept is None:
            self.kept = self.items.weight.detach().clone()
        return self.items(items) if self.training else self.kept[items]


@fails("encoders", "eval_is_pure")
class RunningMean(PlainEncoder):
    def __init__(self, data, codes) -> None:
        super().__init__(data, codes)
        self.register_buffer("mean", torch.zeros(8))

    def states(self, batch):
        states = super().states(batch)
        self.mean += states.detach().mean((0, 1))
        return states


@fails("encoders", "eval_is_deterministic")
class AlwaysDropsOut(PlainEncoder):
    def states(self, batch):
        return nn.functional.dropout(super().states(batch), 0.5, training=True)


@fails("tokenizers", "file_contents_in_the_identity")
class ReadsAFile:
    """Reads a file that is no DataFile."""

    def __init__(self, *, path: str) -> None:
        self.path = path

    def fit(self, data):
        table = torch.full((data.catalogue.num_items + 1, 1), len(Path(self.path).read_bytes()) % 3)
        table[0] = 0
        return Codes(table, (3,))
