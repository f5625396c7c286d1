"""The machines, versions and plug-ins that the results were made with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grbench.report.format import GIB, plain
from grbench.report.html.blocks import Entry, Grid, Heading, Section
from grbench.report.html.results import Results
from grbench.results.record import Record

LABELS = {
    "cpu": "CPU",
    "cpu_threads": "CPU threads",
    "cpu_cores": "CPU cores",
    "ram_bytes": "Memory",
    "gpu": "GPU",
    "gpus": "GPUs",
    "gpu_memory_bytes": "GPU memory",
    "gpu_driver": "GPU driver",
    "device": "Device",
    "torch_threads": "Threads of torch",
    "os": "Operating system",
    "python": "Python",
    "torch": "torch",
    "cuda": "CUDA",
    "numpy": "numpy",
    "faiss": "Faiss",
    "grbench": "grbench",
    "git_commit": "git commit",
    "git_changed": "Changed since that commit",
}


def environment(results: Results) -> Section:
    """One row a fact; where cells differ, one row a value, with the methods that it holds of."""
    records = [record for record in results.compared.records if record.environment]
    rows = [
        [Entry(LABELS.get(key, key)), Entry(value), Entry(which)]
        for key, values in _facts(records).items()
        for value, which in values
    ]
    rows += [
        [Entry("Distribution"), Entry(text), Entry("plug-ins of these methods")] for text in distributions(records)
    ]
    if not rows:
        return Section(
            "environment", "Environment", absent="Environment: these records say nothing of where they were made."
        )
    headings = [Heading("fact", numeric=False), Heading("value", numeric=False), Heading("cells", numeric=False)]
    return Section(
        "environment",
        "Environment",
        "Where the cells ran. Costs are comparable only where the machine is the same.",
        (Grid("Machine and versions", headings, rows),),
    )


def _facts(records: Sequence[Record]) -> dict[str, list[tuple[str, str]]]:
    """{fact: (value, which cells)}, facts in the order of LABELS."""
    keys = [*LABELS, *sorted({key for record in records for key in record.environment} - set(LABELS))]
    facts = {}
    for key in keys:
        found: dict[str, list[str]] = {}
        for record in records:
            if (value := record.environment.get(key)) is not None:
                found.setdefault(_text(key, value), []).append(record.method)
        if found:
            alone = len(found) == 1 and sum(map(len, found.values())) == len(records)
            facts[key] = [(value, "all" if alone else _which(methods)) for value, methods in found.items()]
    return facts


def _text(key: str, value: Any) -> str:
    if key.endswith("_bytes") and isinstance(value, int | float):
        return f"{value / GIB:.1f} GiB"
    return {"True": "yes", "False": "no"}.get(str(value), plain(value))


def _which(methods: Sequence[str]) -> str:
    names = list(dict.fromkeys(methods))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def distributions(records: Sequence[Record]) -> list[str]:
    """`name version` of the distributions that the records' plug-ins are from, each once."""
    found = {
        f"{plugin['distribution']} {plugin.get('version') or ''}".strip()
        for record in records
        for plugin in _plugins(record.identity)
        if plugin.get("distribution")
    }
    return sorted(found)


def _plugins(facts: Any) -> Iterator[Mapping[str, Any]]:
    """The descriptions of plug-ins anywhere within an identity."""
    if isinstance(facts, Mapping):
        if isinstance(plugin := facts.get("plugin"), Mapping):
            yield plugin
        for value in facts.values():
            yield from _plugins(value)
    elif isinstance(facts, list):
        for value in facts:
            yield from _plugins(value)
