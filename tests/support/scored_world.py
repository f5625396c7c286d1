"""A tiny suite whose cells have run in this process: 12 users over 9 items, ranked by popularity, so that most scores
are tied."""

from __future__ import annotations

import io
import json
from pathlib import Path

from grbench.cache import cache_folder
from grbench.data.store_writer import build_store
from grbench.registry.discovery import Registry
from grbench.results.record import Record
from grbench.results.record_files import read_records, write_record
from grbench.run.backends.child_process import ChildMessages
from grbench.run.plan import Plan, make_plan
from grbench.run.reporter import Reporter
from grbench.run.run_cell import run_cell
from grbench.suite.suite import load_suite

SUITE = """
suite: tiny
dataset: {{name: interactions, path: {path}}}
protocol: leave_last_out
metrics: {metrics}
keep_lists: {keep}
seeds: [0, 1]
methods:
  popular: {{encoder: most_popular}}
  unseen: {{encoder: most_popular, filters: [history]}}
"""

# Of the last items, three are among the two most popular ones, and eight among the four, which two resp. four more tie
# with from beyond.
HISTORIES = (
    [1, 1, 4],
    [4, 2, 4],
    [6, 2, 1, 8, 2, 1],
    [4, 9, 1, 3],
    [1, 6, 6, 1],
    [6, 5, 2],
    [2, 3, 1, 4, 4],
    [1, 2, 1, 1, 4],
    [1, 2, 2],
    [4, 1, 3, 1, 3, 3],
    [8, 4, 3],
    [2, 3, 3, 1, 5, 1],
)
METRICS = "[hit_rate@2, ndcg@2]"


def write_world(
    place: Path, metrics: str = METRICS, *, keep: int = 4, data: str = "users.json", text: bool = True
) -> None:
    """The dataset and the suite, in the current folder `place`. text: whether ids are text, else whole numbers."""
    users = {
        f"u{user}" if text else str(user): [f"i{item}" if text else item for item in items]
        for user, items in enumerate(HISTORIES, 1)
    }
    (place / data).write_text(json.dumps(users))
    (place / "suite.yaml").write_text(SUITE.format(path=data, metrics=metrics, keep=keep))


def plan(results: Path = Path("results")) -> Plan:
    suite, registry = load_suite("suite.yaml"), Registry.load()
    return make_plan(suite, suite.cells(registry), registry, results)


def run_world(results: Path = Path("results")) -> list[Record]:
    """Runs what is to do of the suite in the current folder; returns all records."""
    registry, planned = Registry.load(), plan(results)
    dataset = planned.cells[0].cell.dataset
    store = build_store(registry.build("datasets", dataset), name=dataset.name, cache=cache_folder())
    for each in planned.to_do:
        report = Reporter(ChildMessages(io.StringIO()), [])
        record, lists = run_cell(each.cell, each.blank, store, registry=registry, device="cpu", report=report)
        write_record(planned.folder, record, lists)
    return read_records([planned.folder])
