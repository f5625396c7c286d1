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
from grbench.doctor.finding import Finding
from grbench.doctor.installed_plugins import plugins, suites
from grbench.invocation import program


def examine(cache: Path | None = None, *, thorough: bool = False) -> list[Finding]:
    """All findings. Nothing is changed, and torch is imported only where it is thorough."""
    gpus = hardware.driver_gpus()
    try:
        metadata.version(libraries.DISTRIBUTION)
    except metadata.PackageNotFoundError:
        remedy = "install it: pip install 'grbench[cpu]', or pip install -e '.[cpu]' in a checkout"
        return [Finding("grbench", "is not installed but run from a folder: it has no plug-ins", "stop", remedy)]
    findings = [
        libraries.python(),
        libraries.installed(),
        hardware.processors(),
        hardware.memory(),
        hardware.gpu(gpus),
        libraries.torch(gpus),
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

        findings += imports(gpus)
    return findings


def can_run(findings: Sequence[Finding]) -> bool:
    """Whether nothing that was found would stop a run."""
    return all(finding.state != "stop" for finding in findings)


def text_of(findings: Sequence[Finding]) -> str:
    """One line a finding, remedies below, and what follows from it all."""
    wide = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<4}  {finding.topic:<{wide}}  {finding.text}")
        if finding.remedy:
            lines.append(f"{'':<4}  {'':<{wide}}  -> {finding.remedy}")
    stops = [finding.topic for finding in findings if finding.state == "stop"]
    if stops:
        lines.append(f"\nRuns cannot start here yet: mend {', '.join(dict.fromkeys(stops))}, as said above.")
    else:
        lines.append(f"\nRuns can start here: {program()} run quickstart")
    return "\n".join(lines)


def json_of(findings: Sequence[Finding]) -> str:
    """The findings for a bug report or a program, without names of users, hosts and home folders."""
    content: dict[str, Any] = {
        "can_run": can_run(findings),
        "system": f"{platform.system()} {platform.release()}",
        "findings": [finding.to_json() for finding in findings],
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
