"""A cell as trackers show it: names, options, files, and the numbers of its record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OptionValue = str | int | float | bool | None

RUN_FILE = "run"
"""Holds the id of the run of a tracker's server that shows the cell."""


@dataclass(frozen=True)
class TrackedCell:
    """folder, cell: what `Tracker.start` is called with."""

    folder: Path
    cell: Mapping[str, Any]

    @property
    def suite(self) -> str:
        return str(self.cell["suite"])

    @property
    def method(self) -> str:
        return str(self.cell["method"]["name"])

    @property
    def digest(self) -> str:
        return str(self.cell["digest"])

    @property
    def name(self) -> str:
        """How its run is called: `hstu, seed 0`, of a trial `hstu, seed 0, trial 1`."""
        trial = self.cell.get("trial")
        return f"{self.method}, seed {self.cell['seed']}" + (f", trial {trial['number'] + 1}" if trial else "")

    @property
    def record(self) -> Path:
        """The path of its record, which is there once the cell has ended."""
        return self.folder.absolute().parents[1] / f"{self.digest}.json"

    @property
    def lists(self) -> Path:
        """The path of its lists, which are there once the cell has ended well, and is no trial."""
        return self.record.with_suffix(".parquet")

    @property
    def links(self) -> dict[str, str]:
        """Where its results are."""
        return {"digest": self.digest, "record": str(self.record), "lists": str(self.lists)}

    @property
    def options(self) -> dict[str, OptionValue]:
        """What it is run with, by the dotted keys of a suite: `encoder` is the plug-in's name, `encoder.width` an
        option. Of several stages, keys begin with the stage's name; of several losses, with `loss.<name>`."""
        method = self.cell["method"]
        tree = {key: self.cell[key] for key in ("suite", "dataset", "protocol", "seed")}
        tree |= {"method": method["name"]} | {key: method[key] for key in ("tokenizer", "encoder", "retriever")}
        tree |= {"filters": method["filters"]}
        for stage in method["stages"]:
            losses = {loss["name"]: {**loss["options"], "weight": weight} for loss, weight in stage["losses"]}
            loss = losses if len(losses) != 1 else {"name": next(iter(losses)), "options": next(iter(losses.values()))}
            parts = {"loss": loss} | {key: stage[key] for key in ("trainer", "optimizer", "training")}
            tree |= {stage["name"]: parts} if len(method["stages"]) > 1 else parts
        return dict(_flat(tree))

    def keep_run(self, run: str) -> None:
        """Keeps the id of its run, for `kept_run`."""
        (self.folder / RUN_FILE).write_text(run, encoding="utf-8")

    def kept_run(self) -> str | None:
        """The id of its run that an earlier attempt has kept."""
        try:
            return (self.folder / RUN_FILE).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None


def final_numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record that tables show: `test/<metric>`, `cost/<name>`, `count/<name>`.

    Without `test/` where `test_scores` gives nothing.
    """
    parts = {"test": test_scores(record), "cost": record.get("cost"), "count": record.get("counts")}
    return {
        f"{part}/{name}": float(value)
        for part, values in parts.items()
        for name, value in (values or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def test_scores(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record's scores; None where it has none, and for a row of a grid from which validation chooses: which row is
    chosen, and so whether tables show its test scores, is not known before all rows have run."""
    grid, counts = record.get("grid"), record.get("counts") or {}
    is_chosen_from = grid is not None and not grid["ablation"] and bool(counts.get("validated_users"))
    return None if is_chosen_from else record.get("scores")


def outcome(record: Mapping[str, Any]) -> str:
    """The record's status, with the message where the cell failed."""
    error = record.get("error") or {}
    return f"{record['status']}: {error['message']}" if error else str(record["status"])


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, OptionValue]]:
    if isinstance(value, Mapping):
        if value.keys() == {"name", "options"}:
            yield key, value["name"]
            value = value["options"]
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, json.dumps(value) if isinstance(value, list) else value
