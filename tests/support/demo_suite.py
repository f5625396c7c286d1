"""The cells of the demo suite, or the message that refuses it."""

from __future__ import annotations

import pytest
from demo_plugins import METHODS, demo_registry, write_suite

from grbench.errors import GRBenchError
from grbench.suite.suite import load_suite


def cells(tmp_path, methods=METHODS, overrides=(), **chosen):
    return load_suite(write_suite(tmp_path, methods=methods), overrides).cells(demo_registry(), **chosen)


def failure(tmp_path, methods=METHODS, overrides=(), text=""):
    """The message, without the file's name that it must start with."""
    path = write_suite(tmp_path, text, methods)
    with pytest.raises(GRBenchError) as raised:
        load_suite(path, overrides).cells(demo_registry())
    message = str(raised.value)
    assert message.startswith((f"{path}:", "--set "))
    assert "\n" not in message
    assert len(message) < 700
    return message.removeprefix(f"{path}:").strip()
