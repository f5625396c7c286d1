"""Everything that `grbench doctor` looks at, in the order in which it is shown."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from grbench.doctor import hardware, libraries, storage
from grbench.doctor.diagnosis import Diagnosis
from grbench.doctor.installed_plugins import plugins, suites
from grbench.invocation import program


def examine(cache: Path | None = None, *, thorough: bool = False) -> list[Diagnosis]:
    """Everything that is looked at. Nothing is changed, and torch is imported only where it is thorough."""
    gpus = hardware.driver_gpus()
    try:
        metadata.version(libraries.DISTRIBUTION)
    except metadata.PackageNotFoundError:
        remedy = "install it: pip install 'grbench[cpu]', or pip install -e '.[cpu]' in a checkout"
        return [Diagnosis("grbench", "is not installed but run from a folder: it has no plug-ins", "stop", remedy)]
    diagnoses = [
        libraries.python(),
        libraries.installed(),
        hardware.processors(),
        hardware.memory(),
        hardware.gpu(gpus),
        *filter(None, [libraries.torch(gpus)]),
        libraries.faiss(gpus),
        *libraries.libraries(),
        storage.cache(cache),
        *filter(None, [storage.working_folder()]),
        *plugins(thorough=thorough),
        suites(),
        *libraries.extras(),
    ]
    if thorough:
        from grbench.doctor.imports import imports

        diagnoses += imports(gpus)
    return diagnoses


def can_run(diagnoses: Sequence[Diagnosis]) -> bool:
    """Whether nothing that was found would stop a run."""
    return all(diagnosis.severity != "stop" for diagnosis in diagnoses)


def text_of(diagnoses: Sequence[Diagnosis]) -> str:
    """One line a diagnosis, remedies below, and what follows from it all."""
    wide = max(len(diagnosis.topic) for diagnosis in diagnoses)
    lines = []
    for diagnosis in diagnoses:
        lines.append(f"{diagnosis.severity:<4}  {diagnosis.topic:<{wide}}  {diagnosis.text}")
        if diagnosis.remedy:
            lines.append(f"{'':<4}  {'':<{wide}}  -> {diagnosis.remedy}")
    stops = [diagnosis.topic for diagnosis in diagnoses if diagnosis.severity == "stop"]
    if stops:
        lines.append(f"\nRuns cannot start here yet: mend {', '.join(dict.fromkeys(stops))}, as said above.")
    else:
        lines.append(f"\nRuns can start here: {program()} run quickstart")
    return "\n".join(lines)


def json_of(diagnoses: Sequence[Diagnosis]) -> str:
    """The diagnoses for a bug report or a program, without names of users, hosts and home folders."""
    content: dict[str, Any] = {
        "can_run": can_run(diagnoses),
        "system": f"{platform.system()} {platform.release()}",
        "diagnoses": [diagnosis.to_json() for diagnosis in diagnoses],
    }
    return json.dumps(_nameless(content, _private()), indent=1, ensure_ascii=False)


def _private() -> dict[str, str]:
    """{what names the user or the machine: what stands for it}, as parts of paths."""
    home = Path.home()
    names = {home.name: "USER", os.environ.get("USER", ""): "USER", os.environ.get("LOGNAME", ""): "USER"}
    return {str(home): "~"} | {name: stands for name, stands in names.items() if name} | {socket.gethostname(): "HOST"}


def _nameless(value: Any, private: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _nameless(each, private) for key, each in value.items()}
    if isinstance(value, list):
        return [_nameless(each, private) for each in value]
    if not isinstance(value, str):
        return value
    for name, stands in private.items():
        # Whole parts of paths only: a user may be called cpu.
        value = re.sub(rf"(?<![^/\s'\"=]){re.escape(name)}(?![^/\s'\",;:)])", stands, value) if "/" in value else value
    return value
