"""What of a Python source counts, and what does not."""

from __future__ import annotations

import pytest

from grbench.registry.syntax_hash import read_syntax

SOURCE = '''
"""A module."""
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 3
"""How wide."""


def scaled(x: float, name: str = "left") -> float:
    """Returns x, scaled."""
    # A comment.
    if x < 0:
        raise ValueError(f"{name}: {x} is negative")
    assert x < 10, "too large"
    print("scaling", x)
    return math.sqrt(x) * WIDTH
'''


def digest(source: str) -> str:
    return read_syntax(source).digest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""A module."""', '"""Another module."""'),
        ('"""A module."""\n', ""),
        ('"""How wide."""', '"""Dimensions of it."""'),
        ('    """Returns x, scaled."""\n', '    """Scales.\n\n    Much.\n    """\n'),
        ("# A comment.", "# What a comment may say."),
        ("    # A comment.\n", ""),
        ("x < 0", "x  <  0"),
        ("\n", "\r\n"),
        ('f"{name}: {x} is negative"', '"give a positive number"'),
        ('"too large"', 'f"{x} is too large"'),
        ('"scaling"', '"scaled is"'),
        ("from torch import Tensor", "from torch import Tensor, nn"),
    ],
)
def test_what_is_only_said_does_not_count(before: str, after: str) -> None:
    assert before in SOURCE
    assert digest(SOURCE.replace(before, after)) == digest(SOURCE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("WIDTH = 3", "WIDTH = 4"),
        ("WIDTH = 3", "WIDTH = 3.0"),
        ("WIDTH = 3", "WIDTH = True"),
        ("WIDTH = 3", 'WIDTH = "3"'),
        ('"left"', '"right"'),
        ("x < 0", "x <= 0"),
        ("ValueError", "TypeError"),
        ("assert x < 10", "assert x < 11"),
        ("math.sqrt(x) * WIDTH", "math.sqrt(x * WIDTH)"),
        ("import math", "import cmath as math"),
        ("if TYPE_CHECKING:\n    from torch import Tensor", "from torch import Tensor"),
    ],
)
def test_what_is_done_counts(before: str, after: str) -> None:
    assert before in SOURCE
    assert digest(SOURCE.replace(before, after)) != digest(SOURCE)


def test_a_string_that_is_no_message_counts_wherever_it_stands() -> None:
    assert digest("f('relu')") != digest("f('gelu')")
    assert digest("f(name=f'{x}_a')") != digest("f(name=f'{x}_b')")
    assert digest("raise X(g(a + 1))") != digest("raise X(g(a + 2))")
    assert digest("raise X('a')") == digest("raise X('b')")
    assert digest("raise X") != digest("raise X('a')")


def test_trees_of_other_shapes_are_told_apart() -> None:
    sources = ["f(a, b)", "f(a)(b)", "f(a, *b)", "f(a, **b)", "f(a=b)", "[a, b]", "(a, b)", "{a, b}", "{a: b}", "{**a}"]
    assert len({digest(source) for source in sources}) == len(sources)


def test_the_digest_is_the_same_whichever_python_reads_the_source() -> None:
    """Written down once: a record must not be another one where Python is updated."""
    assert digest(SOURCE) == "33b1832c730c91a4cbfbff09b3f9f258632b2510cd62fd2ea37cee77e493bf34"


def test_imports_are_read_wherever_they_stand() -> None:
    syntax = read_syntax(
        "import a\ndef f():\n    from b import c\n    g = importlib.import_module('d')\n    __import__('e')"
    )
    assert [type(node).__name__ for node in syntax.imports] == ["Import", "ImportFrom", "Call", "Call"]
    assert not read_syntax("if TYPE_CHECKING:\n    import a").imports
    assert read_syntax("if TYPE_CHECKING:\n    import a\nelse:\n    import b").imports
