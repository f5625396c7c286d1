"""A cell and its record as trackers are told them, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grbench.errors import PluginError
from grbench_reference.trackers.package import tracker_package

DIGEST = "0123456789abcdef"


def needs(module: str, tracker: str) -> Any:
    """The module; skips the tests of this file, with the tracker's own message, where it is missing."""
    try:
        return tracker_package(module, tracker)
    except PluginError as error:
        pytest.skip(str(error), allow_module_level=True)


def component(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "options": options}


def a_cell(seed: int = 0, **more: Any) -> dict[str, Any]:
    stage = {
        "name": "",
        "targets": None,
        "losses": [[component("infonce", temperature=0.05, negatives={"uniform": 4}), 1.0]],
        "trainer": component("supervised"),
        "optimizer": component("adam", lr=0.003),
        "training": {"epochs": 2, "patience": None},
    }
    method = {
        "name": "dense",
        "tokenizer": component("ids"),
        "encoder": component("hstu", width=8, bias=True),
        "retriever": component("exact"),
        "stages": [stage],
        "filters": ["history"],
        "trackers": [component("mlflow", tracking_uri="http://someone:secret@host")],
    }
    whole = {"suite": "small", "dataset": component("table", size=3), "protocol": component("leave_last_out")}
    return {**whole, "method": method, "seed": seed, "digest": DIGEST, **more}


def a_record(**changes: Any) -> dict[str, Any]:
    whole = {
        "status": "ok",
        "error": None,
        "scores": {"ndcg@10": 0.25, "coverage@10": None},
        "cost": {"train_seconds": 1.5, "phases": {"train": {"seconds": 1.5}}},
        "counts": {"parameters": 7, "ties": {"events": 0}},
    }
    return {**whole, **changes}


def beside(results: Path, tracker: str) -> Path:
    """The tracker's folder beside the record, with lists there."""
    folder = results / f"{DIGEST}.d" / tracker
    folder.mkdir(parents=True, exist_ok=True)
    (results / f"{DIGEST}.parquet").write_bytes(b"lists")
    return folder
