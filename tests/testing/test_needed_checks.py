"""A fault is told once: checks that would show nothing else are skipped, and say which check to mend first."""

from __future__ import annotations

from typing import Any

from faulty_parts import checked
from torch import Tensor, nn

from grbench.testing.checks.all_checks import CHECKS
from grbench.testing.checks.check import Check
from grbench.testing.checks.plain_parts import PlainEncoder
from grbench.testing.checks.run_checks import CheckOutcome, run_check


class OverPadding(nn.Module):
    """A GRU that reads padding like events."""

    history_length = 20

    def __init__(self, data: Any, codes: Any) -> None:
        super().__init__()
        self.items = nn.Embedding(data.catalogue.num_items + 1, 8, padding_idx=0)
        self.gru = nn.GRU(8, 8, batch_first=True)

    def embed(self, batch: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(self.items(batch.items))[0], self.embed_items(items)

    def embed_histories(self, batch: Any) -> Tensor:
        return self.embed(batch, batch.items[:, -1])[0][:, -1]

    def embed_items(self, items: Tensor) -> Tensor:
        vectors: Tensor = self.items(items)
        return vectors


class NoLength(PlainEncoder):
    history_length = None  # type: ignore[assignment]


class NewestState(PlainEncoder):
    def embed(self, batch: Any, items: Tensor) -> tuple[Tensor, Tensor]:
        return self.states(batch)[:, -1], self.embed_items(items)


def outcomes(encoder: type[nn.Module]) -> dict[str, CheckOutcome]:
    plugin = checked("encoders", encoder)
    return {check.name: run_check(check, plugin) for check in CHECKS["encoders"]}


def test_a_gru_over_padding_is_told_of_padding_and_of_its_remedy() -> None:
    found = outcomes(OverPadding)
    assert {name for name, each in found.items() if each.verdict == "failed"} == {"padding_has_no_influence"}
    assert found["causality"].seen == "needs padding_has_no_influence, which fails: mend that first"
    assert "grbench.data.padding" in found["padding_has_no_influence"].check.mend


def test_without_a_history_length_one_check_fails() -> None:
    found = outcomes(NoLength)
    failed = {name for name, each in found.items() if each.verdict == "failed"}
    assert failed == {"interface"}
    assert {each.seen for each in found.values() if each.check.needs} == {
        "needs interface, which fails: mend that first"
    }


def test_a_wrong_shape_is_told_once() -> None:
    found = outcomes(NewestState)
    assert [name for name, each in found.items() if each.verdict == "failed"] == ["shapes"]
    assert "embed gave the states in the shape (8, 8), not (8, 12, 8)" in found["shapes"].seen
    assert found["saves_and_loads"].seen == "needs shapes, which fails: mend that first"


def test_a_check_that_is_asked_for_alone_tries_first_what_it_needs() -> None:
    (alone,) = (check for check in CHECKS["encoders"] if check.name == "saves_and_loads")
    assert run_check(alone, checked("encoders", NewestState)).verdict == "skipped"
    assert run_check(alone, checked("encoders", PlainEncoder)).verdict == "passed"


def test_checks_need_earlier_ones_of_their_kind() -> None:
    def earlier(check: Check, checks: tuple[Check, ...]) -> list[str]:
        return [each.name for each in checks[: checks.index(check)]]

    for checks in CHECKS.values():
        for check in checks:
            assert {each.name for each in check.needs} <= {*earlier(check, checks)}
