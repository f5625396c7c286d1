"""The back-ends that `grbench run --backend` offers."""

from __future__ import annotations

from grbench.run.backends.local import LocalBackend

BACKENDS = {"local": LocalBackend}
