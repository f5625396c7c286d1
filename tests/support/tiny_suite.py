"""Suites of the methods of the faulty package, and their run in this process."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from grbench.run.run_request import RunRequest
from grbench.run.run_suite import Outcome, run_suite

SUITE = """
suite: tiny
dataset: {{name: interactions, path: {path}}}
protocol: leave_last_out
metrics: [hit_rate@2]
seeds: {seeds}
methods:
{methods}
"""


def suite_of(world: Path, *methods: str, seeds: str = "[0]") -> Path:
    path = world / "suite.yaml"
    lines = "\n".join(f"  {method}" for method in methods)
    path.write_text(SUITE.format(path=json.dumps(str(world / "users.json")), methods=lines, seeds=seeds))
    return path


def run(suite: Path, **options: Any) -> tuple[Outcome, str]:
    out = io.StringIO()
    outcome = run_suite(RunRequest(suite=suite, device="cpu", **options), Console(file=out, width=200))
    return outcome, out.getvalue()
