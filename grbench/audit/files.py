"""Does a part read files that are no part of a cell's identity?"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grbench.audit.audit import Audit
from grbench.audit.audited_method import AuditedMethod
from grbench.errors import GRBenchError
from grbench.registry.component import Component
from grbench.registry.options import flat_values
from grbench.registry.source_hash import plugin_packages
from grbench.results.audit_file import AuditResult

LISTED = 5


class Files(Audit):
    """Lists the files that are read while the tokenizer is fitted, the model made, trained and searched, and the lists
    scored. A file is declared by an option annotated DataFile or DataFolder, or by lying in a plug-in's package: its
    content is then part of the cell's identity. Files that a library opens in C or C++ code are not seen."""

    name = "files"
    meaning = (
        "A part reads a file that no option names, so that its content, which may hold the targets, is no part of the "
        "cell's identity. Name it by an option annotated grbench.DataFile or grbench.DataFolder."
    )

    def run(self, method: AuditedMethod) -> AuditResult:
        """See Audit."""
        read = method.plain.read
        declared = [path.resolve() for path in (*_named_by_options(method), *plugin_folders())]
        undeclared = {path: part for path, part in read.items() if not _among(path, declared)}
        if undeclared:
            return self.leak(f"undeclared: {_listed(undeclared)}")
        return self.passed(f"declared: {_listed(read)}" if read else "no file is read")


def _listed(read: dict[Path, str]) -> str:
    names = [f"{path} ({part})" if part else str(path) for path, part in read.items()]
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _among(path: Path, declared: list[Path]) -> bool:
    return any(path == each or each in path.parents for each in declared)


def _named_by_options(method: AuditedMethod) -> Iterator[Path]:
    cell = method.cell
    parts: list[tuple[str, Component]] = [
        ("tokenizers", cell.method.tokenizer),
        ("encoders", cell.method.encoder),
        ("retrievers", cell.method.retriever),
        *(("metrics", metric) for metric in cell.metrics),
    ]
    for stage in cell.method.stages:
        parts += [("losses", loss) for loss, _ in stage.losses]
        parts += [("trainers", stage.trainer), ("optimizers", stage.optimizer)]
    for kind, component in parts:
        values = flat_values(method.registry.get(kind, component.name, imported=True).factory, component.options, kind)
        try:
            contents = method.registry.file_contents(kind, component, kind)
        except GRBenchError:  # a file that is not there, which was not read
            continue
        for name in contents:
            yield from paths_in(values[name])


def paths_in(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from paths_in(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from paths_in(entry)


def plugin_folders() -> Iterator[Path]:
    """The folders of plug-ins' packages, whose data files count as their source does."""
    for name in sorted(plugin_packages()):
        spec = find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(folder)
