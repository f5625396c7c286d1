"""Made-up results that fill every section of a report, written as records, lists, trials and audits are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from records import MACHINE, a_grouping, a_record

from grbench.results.audit_file import AuditResult, MethodAudit, SuiteAudit, write_audit
from grbench.results.record import TRIALS, Record
from grbench.results.record_files import write_record
from grbench.results.values import with_values

HOSTILE = "<script>alert(1)</script>"
USERS = 60
PLUGIN = {"distribution": "grbench", "version": "0.1.0", "source": "0" * 64, "libraries": {}}
PHASES = {"prepare": 1.0, "fit_tokenizer": 2.0, "train": 80.0, "validate": 9.0, "index": 0.5, "search": 12.0}
LEVELS = [{"size": 64, "used": 60, "share": 0.94, "perplexity": 51.0}, {"size": 64, "used": 33, "perplexity": 12.5}]
TOKENIZER = {
    "items": 900,
    "sizes": [64, 64],
    "distinct_codes": 880,
    "colliding_items": 31,
    "colliding_share": 0.034,
    "most_items_on_a_code": 3,
    "utilisation": LEVELS,
    "embedding_agreement": {"same_prefix": [0.41, 0.2], "by_chance": [0.03, 0.001]},
}


def identity_of(method: str, seed: int, *, select: bool = True) -> dict[str, Any]:
    """As `results.identity.cell_identity` gives it."""

    def part(name: str, **options: Any) -> dict[str, Any]:
        return {"name": name, "options": options, "plugin": PLUGIN}

    validation = {"validate_every": 1, "select": "hit_rate@10"} if select else {}
    return {
        "training": {
            "dataset": part("toy"),
            "protocol": part("last_positive"),
            "tokenizer": part("rq_kmeans", path="sha256:ab12", sizes=[64, 64]),
            "encoder": part("toy_encoder", title=method, width=32),
            "stages": [
                {
                    "name": "",
                    "targets": None,
                    "losses": [part("toy_loss") | {"weight": 1.0}],
                    "trainer": part("supervised"),
                    "optimizer": part("adamw", lr=0.001),
                    "training": {"epochs": 3, "batch_size": 64, **validation},
                }
            ],
            "seed": seed,
        },
        "ranking": {"retriever": part("exact"), "filters": []},
        "metrics": [part("hit_rate", k=10), part("mean_rank")],
    }


def write_method(folder: Path, method: str, order: int = 0, seeds: int = 2, **values: Any) -> list[Record]:
    """A method's records with its users' values and groups, the better the lower its order."""
    chance = np.random.default_rng(order)
    made = []
    for seed in range(seeds):
        hits = (chance.random(USERS) < 0.8 - 0.7 * order / (order + 8)).astype(float)
        of_users = {"hit_rate@10": hits, "mean_rank": chance.uniform(1, 20, USERS)}
        groups = {
            "popularity": a_grouping(["head"] * 20 + ["tail"] * (USERS - 20)),
            HOSTILE: a_grouping(["a<b", "c&d"] * (USERS // 2)),
        }
        lists = with_values(pa.table({"user": np.arange(USERS)}), of_users, groups)
        record = _with_results(a_record(method, seed, float(hits.mean()), float(of_users["mean_rank"].mean())), order)
        # Digests name files, which names of methods may not.
        record = dataclasses.replace(record, digest=f"{order:08x}{seed:08x}", **values)
        write_record(folder, record, lists)
        made.append(record)
    return made


def write_failure(folder: Path, method: str, order: int, **values: Any) -> Record:
    """A cell without a result."""
    record = _with_results(a_record(method), order)
    record = dataclasses.replace(record, digest=f"{order:08x}{0:08x}", curve=[], tokenizer={}, **values)
    write_record(folder, record)
    return record


def write_world(results: Path) -> Path:
    """Methods with hostile names, two failures, a grid, a search, published figures and audits; returns the folder."""
    folder = results / "tiny"
    published = {"metric": "hit_rate@10", "value": 0.75, "source": f"arXiv 1 {HOSTILE}", "same_protocol": True}
    other = published | {"value": 0.4, "same_protocol": False, "differs": "another split", "source": "arXiv 2, table 3"}
    write_method(folder, "popular", 9, cost=_costs(3) | {"train_seconds": None})
    write_method(folder, HOSTILE, 1, published=[published])
    write_method(folder, "generative_with_a_long_name", 3, published=[other])
    for order, width in enumerate((32, 64), 4):
        grid = {"name": "wider", "points": 2, "ablation": False}
        write_method(folder, f"wider[width={width}]", order, grid=grid, identity=identity_of(f"w{width}", 0))
    chosen = {"optimizer.lr": 0.003, "encoder.name": HOSTILE}
    write_method(folder, "tuned", 2, tuning=_tuning(chosen))
    _write_trials(folder / TRIALS, chosen)
    error = {"type": "ValueError", "message": f"no such item {HOSTILE}", "traceback": f"Traceback:\n  {HOSTILE}\n"}
    write_failure(folder, "broken", 10, error=error)
    full = {"type": "OutOfMemoryError", "message": "CUDA out of memory", "traceback": ""}
    write_failure(folder, "too_large", 11, status="oom", error=full)
    write_audit(folder, _audit())
    return folder


def write_many(results: Path, methods: int = 50, seeds: int = 3, epochs: int = 40) -> Path:
    """Results of so many methods with long curves."""
    folder = results / "tiny"
    for order in range(methods):
        curve = _curve(order, epochs)
        write_method(folder, f"method_{order}[encoder.width={order}]", order, seeds, curve=curve)
    return folder


def _with_results(record: Record, order: int) -> Record:
    identity = identity_of(record.method, record.seed)
    counts = {**record.counts, "best_epoch": 2, "steps_run": 30, "parameters": 10_000 * (order + 1)}
    environment = MACHINE | {"torch": "2.13.0", "git_commit": "0123456789abcdef", "git_changed": False}
    return dataclasses.replace(
        record,
        title=f"A tiny suite {HOSTILE}",
        order=order,
        baseline="popular",
        identity=identity,
        training_digest=f"t{order:07x}{record.seed:08x}",
        lists_digest=f"l{order:07x}{record.seed:08x}",
        counts=counts,
        cost=_costs(order),
        environment=environment,
        curve=_curve(order, 3),
        tokenizer=TOKENIZER,
        finished=f"2026-01-01T00:00:{order:02d}+00:00",
    )


def _costs(order: int) -> dict[str, Any]:
    phases = {name: {"seconds": seconds * (1 + order)} for name, seconds in PHASES.items()}
    return {
        "phases": phases,
        "total_seconds": sum(phase["seconds"] for phase in phases.values()) + 1,
        "overhead_seconds": 1.0,
        "train_seconds": 80.0 * (1 + order),
        "train_users_per_second": 1500.0,
        "peak_process_bytes": 2**30 * (1 + order),
        "search_queries_per_second": 1800.0,
        "search_p99_ms": 3.0 * (1 + order),
    }


def _curve(order: int, epochs: int) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "loss": 5.0 / epoch + order / 10, "users_per_second": 1500.0, "hit_rate@10": 0.5 - 0.3 / epoch}
        for epoch in range(1, epochs + 1)
    ]


def _tuning(chosen: dict[str, Any]) -> dict[str, Any]:
    return {
        "budget": {"trials": 6},
        "trials": 6,
        "complete": 4,
        "pruned": 1,
        "failed": 1,
        "sampler": "tpe",
        "pruner": "median",
        "startup_trials": 2,
        "seed": 0,
        "metric": "hit_rate@10",
        "number": 3,
        "values": chosen,
        "validation": 0.43,
        "seconds": 500.0,
        "not_repeatable": [],
    }


def _write_trials(folder: Path, chosen: dict[str, Any]) -> None:
    tried = [("complete", 0.0001, 0.2), ("complete", 0.1, 0.11), ("pruned", 0.01, 0.3), ("complete", 0.003, 0.43)]
    tried += [("failed", 0.5, None), ("complete", 0.001, 0.41)]
    for number, (state, rate, value) in enumerate(tried):
        values = {"optimizer.lr": rate, "encoder.name": HOSTILE if number % 2 else "plain"}
        trial = {
            "study": "abcdef0123456789",
            "number": number,
            "values": chosen if number == 3 else values,
            "metric": "hit_rate@10",
            "value": value,
            "state": state,
            "seconds": 60.0 + number,
        }
        record = a_record("tuned", 0)
        record = dataclasses.replace(record, digest=f"f{number:015x}", status="ok", error=None, trial=trial)
        write_record(folder, record)


def _audit() -> SuiteAudit:
    results = (
        AuditResult("chance", "pass", "60 users at chance"),
        AuditResult("causality", "leak", f"state 3 sees event 4 {HOSTILE}"),
        AuditResult("files", "unknown", "no strace"),
    )
    clean = tuple(dataclasses.replace(result, verdict="pass", detail="looked at") for result in results)
    return SuiteAudit(
        "tiny",
        {"chance": "better than it can be", "causality": "the future is seen", "files": "reads what it does not say"},
        (
            MethodAudit("popular", "a1", clean, world="a small world", cpu_seconds=12.0),
            MethodAudit(HOSTILE, "a2", results, world="a small world", notes=("cut to 20 users",), cpu_seconds=20.0),
        ),
    )
