"""The demo suite trains with the demo options."""

import pytest
from demo_plugins import TrainingOptions

from grbench.suite import method


@pytest.fixture
def demo_training(monkeypatch):
    monkeypatch.setattr(method, "training_options", lambda: TrainingOptions)
