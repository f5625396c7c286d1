"""A class takes over another's options: their order, types, defaults and documentation, and what it may say itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from grbench.registry.options import bind, describe
from grbench_reference.encoders.shared_options import shares_options

Depth = Annotated[int, Field(ge=1)]


class Base:
    """What is shared.

    Args:
        depth: how deep.
        colour: which.
        shape: of all.
    """

    def __init__(
        self,
        data: object,
        *,
        width: int,
        depth: Depth = 2,
        colour: Literal["red", "blue"] = "red",
        shape: str = "round",
    ) -> None:
        self.given = width, depth, colour, shape


@shares_options(Base)
class Middle(Base):
    """A subclass.

    Args:
        width: how wide.
        shape: of this one.
    """

    def __init__(self, data: object, *, width: int = 8, shape: str = "square", **shared: Any) -> None:
        super().__init__(data, width=width, shape=shape, **shared)


@shares_options(Middle)
class Last(Middle):
    """A subclass of that.

    Args:
        more: of its own.
    """

    def __init__(self, data: object, *, more: bool = False, **shared: Any) -> None:
        super().__init__(data, **shared)


@shares_options(Base)
class Other:
    """No subclass, and no more options than it names.

    Args:
        width: of another.
    """

    def __init__(self, data: object, *, width: int = 1, depth: int = 3) -> None: ...


def test_own_options_come_first_and_may_differ():
    assert [tuple(option) for option in describe(Middle)] == [
        ("width", "int", "8", "how wide."),
        ("shape", "str", '"square"', "of this one."),
        ("depth", "int >= 1", "2", "how deep."),
        ("colour", "red | blue", '"red"', "which."),
    ]


def test_options_are_handed_down():
    assert [tuple(option) for option in describe(Last)] == [
        ("more", "bool", "false", "of its own."),
        *(tuple(option) for option in describe(Middle)),
    ]
    assert Last(None, **bind(Last, {"depth": 5, "width": 9}, "e")).given == (9, 5, "red", "square")


def test_documentation_alone_is_shared_with_whom_names_all_options():
    assert [tuple(option) for option in describe(Other)] == [
        ("width", "int", "1", "of another."),
        ("depth", "int", "3", "how deep."),
    ]
