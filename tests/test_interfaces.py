"""Optional methods of plug-ins, and the history length of encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from grbench.data.codes import current_codes
from grbench.errors import PluginError
from grbench.interfaces import Dataset, Encoder, Loss, Retriever, optional
from grbench.registry.attributes import history_length
from grbench.types import Codes

CODES = Codes(torch.tensor([[0], [0], [1]]), (2,))


class Plain(nn.Module):
    """A module whose parts have names of optional methods."""

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.grow = nn.Linear(2, 2), nn.Linear(2, 2)


class Inheriting(nn.Module, Encoder):
    """An encoder that keeps a tensor under the name of an optional method."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = torch.zeros(3)  # type: ignore[assignment]


class Own(nn.Module):
    def codes(self) -> Codes:
        return CODES


def test_a_part_with_the_name_of_an_optional_method_is_not_the_method() -> None:
    assert optional(Plain(), Encoder.codes)() is None
    assert optional(Plain(), Loss.grow)() is None
    assert optional(Inheriting(), Encoder.codes)() is None
    fitted = Codes(torch.tensor([[0], [1], [0]]), (2,))
    assert current_codes(Plain(), fitted, 2) is fitted


def test_a_method_of_the_class_is_used() -> None:
    assert optional(Own(), Encoder.codes)() is CODES


def test_static_methods_class_methods_and_classes_are_plugins_too() -> None:
    class Source:
        @staticmethod
        def store_bytes() -> int:
            return 7

        @classmethod
        def recognises(cls, path: Path) -> bool:
            return cls is Source and path == Path("log")

    class Index:
        @classmethod
        def report(cls) -> dict[str, str]:
            return {"class": cls.__name__}

    assert optional(Source(), Dataset.store_bytes)() == optional(Source, Dataset.store_bytes)() == 7
    assert optional(Source(), Dataset.recognises)(Path("log"))
    assert optional(Source, Dataset.recognises)(Path("log"))
    assert optional(Index, Retriever.report)() == {"class": "Index"}


@pytest.mark.parametrize(("value", "found"), [(None, "and is missing"), (0, "got 0"), ("all", "got 'all'")])
def test_an_encoder_without_a_history_length_is_named(value: object, found: str) -> None:
    encoder = Plain()
    if value is not None:
        encoder.history_length = value  # type: ignore[assignment]
    with pytest.raises(PluginError, match=rf"^encoder Plain: history_length should be the number .*, {found}$"):
        history_length(encoder)
