"""`grbench plugins interface`: what plug-ins of a kind have to do, for those who have no clone of the sources."""

from __future__ import annotations

import pytest

from grbench.cli import main
from grbench.hookspecs import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_interface_with_what_its_factory_takes(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "interface", kind]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{kind}: {KINDS[kind].purpose}\nA factory takes {KINDS[kind].arguments}")
    for name in KINDS[kind].further:
        assert f"class {name}(Protocol):" in said
    assert "Shapes: B users" in said


def test_it_shows_the_shapes_of_an_encoder_and_takes_a_kind_in_singular(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "interface", "encoder"]) == 0
    said = capsys.readouterr().out
    assert "class Encoder(ABC):" in said
    assert "([B, T, D], the state after each event, and [N, D], the items' vectors)" in said


def test_a_kind_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "interface", "encodr"]) == 2
    assert "unknown kind 'encodr'; did you mean encoders?" in capsys.readouterr().err
