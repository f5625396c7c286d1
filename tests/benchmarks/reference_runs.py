"""`reference.json`: the ratios of earlier runs, and how much larger one may be before it is a slowdown.

The tolerance is measured, not chosen. The logarithms of a benchmark's ratios are taken as normal, and a run is too slow
where it lies above the one-sided 99.9 % prediction limit of the earlier ones. Their variance is the benchmark's own or,
where that is smaller because few runs happen to agree, that of all benchmarks pooled. Runs of several machines may
stand together: their differences are spread too.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from calibration import DESCRIPTIONS
from scipy.stats import t

CONFIDENCE = 0.999
"""Of one benchmark. With 36, one run of them all in 28 has one above its limit by chance, were nothing repeated."""


class Reference:
    """runs: [{machine, ratios: {benchmark: ratio}}], oldest first."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.runs = runs

    @classmethod
    def read(cls, path: Path) -> Reference:
        """The file's runs, none where it is missing or its runs were of other reference computations."""
        content = json.loads(path.read_text()) if path.is_file() else {}
        return cls(content["runs"] if content.get("computations") == DESCRIPTIONS else [])

    def write(self, path: Path) -> None:
        content = {
            "what": "each benchmark's fastest turn over that of its reference computation; one entry a run",
            "computations": DESCRIPTIONS,
            "runs": self.runs,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    def ratios(self, name: str) -> list[float]:
        """The benchmark's ratios in the runs that have it."""
        return [run["ratios"][name] for run in self.runs if name in run["ratios"]]

    def usual(self, name: str) -> float:
        """The geometric mean of the benchmark's ratios."""
        return math.exp(float(np.log(self.ratios(name)).mean()))

    def tolerance(self, name: str) -> float | None:
        """How many times `usual` a run may take; None where no benchmark has two runs yet: no spread is known."""
        names = {name for run in self.runs for name in run["ratios"]}
        logs = {each: np.log(self.ratios(each)) for each in names}
        degrees = sum(len(values) - 1 for values in logs.values())
        if not degrees:
            return None
        pooled = sum(float(((values - values.mean()) ** 2).sum()) for values in logs.values()) / degrees
        own = logs[name]
        variance = max(pooled, float(own.var(ddof=1))) if len(own) > 1 else pooled
        return math.exp(float(t.ppf(CONFIDENCE, degrees)) * math.sqrt(variance * (1 + 1 / len(own))))

    def without(self, names: set[str]) -> Reference:
        """These benchmarks' ratios taken out of all runs, and runs that have none left."""
        kept = [
            {**run, "ratios": {name: ratio for name, ratio in run["ratios"].items() if name not in names}}
            for run in self.runs
        ]
        return Reference([run for run in kept if run["ratios"]])
