"""How the records of a table came to be: what ran beside their cells, versions that differ, missing checksums."""

from __future__ import annotations

from collections.abc import Sequence

from grbench.report.rows import Row
from grbench.results.record import Record

BESIDE_OTHERS = "‖"
"""Beside a cost that was measured while other cells ran on the same machine."""

WITHOUT_CHECKSUMS = "Without checksums"

NOT_TIMED = ("parameters", "peak_gpu_bytes", "peak_process_bytes")
"""Costs that other cells do not change."""

VERSIONS = {"torch": "torch", "faiss": "faiss", "numpy": "numpy", "torch_threads": "threads"}
"""What of a record's environment is said where it differs, and what it is called."""


def ran_beside(record: Record) -> bool:
    """Whether other cells ran on the machine meanwhile, as far as the record knows."""
    return bool((record.cost.get("beside") or {}).get("cells"))


def measured_alone(records: Sequence[Record], cost: str) -> tuple[list[Record], str]:
    """(the records that a row's cost is computed from, the mark that it then needs): of a cost that is a time or a
    rate, those that ran alone, without a mark, where there are any."""
    alone = [record for record in records if not ran_beside(record)]
    if cost in NOT_TIMED or len(alone) == len(records):
        return list(records), ""
    return (alone, "") if alone else (list(records), BESIDE_OTHERS)


def beside_notes(rows: Sequence[Row]) -> list[str]:
    """What the mark stands for, and which rows have seeds that their costs leave out."""
    facts = [record.cost["beside"] for row in rows for record in row.done if ran_beside(record)]
    if not facts:
        return []
    most, shares = max(each["cells"] for each in facts), [each.get("share") or 0.0 for each in facts]
    span = f"{min(shares):.0%}" if min(shares) == max(shares) else f"{min(shares):.0%} to {max(shares):.0%}"
    notes = [
        f"{BESIDE_OTHERS} and costs left out: measured while up to {most} other cells ran on the machine, for {span} "
        "of the cell's time; not to be compared with costs of cells that ran alone"
    ]
    partly = [
        f"{row.name} ({alone} of {len(row.done)})"
        for row in rows
        if 0 < (alone := sum(not ran_beside(record) for record in row.done)) < len(row.done)
    ]
    if partly:
        notes.append(f"Costs are of the seeds that ran alone: {', '.join(partly)}")
    return notes


def version_notes(rows: Sequence[Row]) -> list[str]:
    """Versions of libraries, and numbers of threads, that are not the same in all rows, with the rows of each."""
    notes = []
    for key, name in VERSIONS.items():
        found: dict[str, dict[str, None]] = {}
        for row in rows:
            for record in row.done:
                if (value := record.environment.get(key)) is not None:
                    found.setdefault(str(value), {})[row.name] = None
        if len(found) > 1:
            notes.append(f"{name} " + ", ".join(f"{value} ({_some(list(names))})" for value, names in found.items()))
    return [f"Differ within this table: {'; '.join(notes)}"] if notes else []


def checksum_notes(records: Sequence[Record]) -> list[str]:
    """Records that were read from files and have no checksum."""
    without = [f"{record.method}, seed {record.seed}" for record in records if record.folder and not record.checksum]
    if not without:
        return []
    which = "all records" if len(without) == len(records) else _some(without, "; ")
    return [f"{WITHOUT_CHECKSUMS}, written by an earlier grbench: {which}"]


def _some(names: Sequence[str], between: str = ", ", most: int = 5) -> str:
    return between.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
