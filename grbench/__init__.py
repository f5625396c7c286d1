"""grbench: a plug-in benchmark harness for generative recommendation."""

from grbench.hookspecs import hookimpl

__all__ = ["__version__", "hookimpl"]
__version__ = "0.1.0"
