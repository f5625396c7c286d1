"""Python and the installed libraries, against what grbench's own metadata says that it needs."""

from __future__ import annotations

import platform
import runpy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from grbench import __version__
from grbench.doctor.diagnosis import Diagnosis
from grbench.doctor.hardware import Gpus
from grbench.invocation import pip

DISTRIBUTION = "grbench"
FAISS = ("faiss-cpu", "faiss-gpu")


def python() -> Diagnosis:
    """Whether this Python is one that grbench runs with."""
    (needed,) = metadata.metadata(DISTRIBUTION).get_all("Requires-Python") or [""]
    version = platform.python_version()
    facts = {"version": version, "supported": needed, "implementation": platform.python_implementation()}
    if SpecifierSet(needed).contains(version, prereleases=True):
        return Diagnosis("Python", f"{version} (supported: {needed})", facts=facts)
    remedy = "make a virtual environment with a newer Python, and install grbench there"
    return Diagnosis("Python", f"{version}, which is not {needed}", "stop", remedy, facts)


def installed() -> Diagnosis:
    """Which grbench this is."""
    version = metadata.version(DISTRIBUTION)
    facts = {"version": __version__, "installed": version}
    if version == __version__:
        return Diagnosis("grbench", version, facts=facts)
    text = f"{__version__}, installed as {version}: its plug-ins and suites may be those of the other version"
    return Diagnosis("grbench", text, "note", "install it again from where it lies", facts)


def libraries() -> list[Diagnosis]:
    """What grbench needs: one diagnosis for all that are right, one for each that is missing or not supported."""
    needed = [each for each in _requirements() if each.marker is None or each.marker.evaluate({"extra": ""})]
    versions = {each.name: _version(each.name) for each in needed}
    facts = {
        "versions": {
            each.name: {"installed": versions[each.name], "supported": str(each.specifier)}
            for each in sorted(needed, key=lambda each: each.name)
        }
    }
    wrong = [each for each in needed if not _is_met(each)]
    right = [each.name for each in needed if each not in wrong]
    shown = ", ".join(f"{name} {versions[name]}" for name in sorted(right) if name != "torch")
    found = [Diagnosis("libraries", f"{len(right)} of {len(needed)} as needed: {shown}", facts=facts)]
    for each in wrong:
        version = versions[each.name]
        text = "is not installed" if version is None else f"{version} is not supported; {each.specifier} is"
        found.append(Diagnosis(each.name, text, "stop", pip(f"install '{each.name}{each.specifier}'")))
    return found


def extras() -> list[Diagnosis]:
    """The optional parts of grbench that are not installed, each with the command that adds it. Those that choose a
    Faiss are not among them."""
    named = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    found = []
    for extra in named:
        own = [
            each
            for each in _requirements()
            if each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""})
        ]
        missing = [each for each in own if not _is_met(each)]
        if not missing or all(each.name in FAISS for each in own):
            continue
        text = f"lacks {len(missing)} of {len(own)} packages"
        facts = {"missing": [str(each) for each in missing]}
        found.append(Diagnosis(f"extra {extra}", text, "note", pip(f"install 'grbench[{extra}]'"), facts))
    return found


def faiss(gpus: Gpus) -> Diagnosis:
    """Which Faiss there is: none, one, or both, which write into the same package."""
    there = {name: version for name in FAISS if (version := _version(name)) is not None}
    text = " and ".join(f"{name} {version}" for name, version in there.items())
    facts = {"installed": there}
    if len(there) > 1:
        kept = "gpu" if gpus.found else "cpu"
        install = pip(f"install 'grbench[{kept}]'")
        remedy = f"{pip('uninstall faiss-cpu faiss-gpu')}, then {install}"
        clash = f"{text}, which overwrite each other's files, so that nobody knows which one runs"
        return Diagnosis("Faiss", clash, "stop", remedy, facts)
    if not there:
        kind = "gpu" if gpus.found else "cpu"
        lacking = "not installed: plug-ins that need it cannot run, such as approximate search"
        return Diagnosis("Faiss", lacking, "note", pip(f"install 'grbench[{kind}]'"), facts)
    if wrong := [each for each in _requirements() if each.name in there and not _is_met(each)]:
        supported = f"{text} is not supported; {wrong[0].specifier} is"
        return Diagnosis("Faiss", supported, "note", pip(f"install '{wrong[0].name}{wrong[0].specifier}'"), facts)
    if gpus.found and "faiss-cpu" in there:
        install = pip("install 'grbench[gpu]'")
        remedy = f"{pip('uninstall faiss-cpu')}, then {install}"
        return Diagnosis("Faiss", f"{text}, which leaves the GPU idle", "note", remedy, facts)
    return Diagnosis("Faiss", text, facts=facts)


def torch(gpus: Gpus) -> Diagnosis | None:
    """What torch was built for, and whether that is what the machine has. None where there is no torch, which
    `libraries` says."""
    version = _version("torch")
    if version is None:
        return None
    built = _torch_built_for()
    facts = {"version": version, "cuda": built or None}
    if not built:
        text = f"{version}, built for processors"
        if gpus.found:
            remedy = "install a build of torch for CUDA, as pytorch.org's page Get Started says, in place of this one"
            return Diagnosis("torch", f"{text} alone: the GPU stays idle", "note", remedy, facts)
        return Diagnosis("torch", text, facts=facts)
    text = f"{version}, built for CUDA {built}"
    if gpus.found and gpus.cuda[0] < int(built.partition(".")[0]):
        remedy = f"install a newer NVIDIA driver, or a build of torch for CUDA {gpus.cuda[0]}"
        told = f"{text}, which the driver (CUDA up to {gpus.cuda[0]}.{gpus.cuda[1]}) does not run: the GPU stays idle"
        return Diagnosis("torch", told, "note", remedy, facts)
    return Diagnosis("torch", text, facts=facts)


def _torch_built_for() -> str:
    """The CUDA version that torch was built for, "" where for none: by torch/version.py, since importing all of torch
    takes seconds."""
    spec = find_spec("torch")
    folders: Sequence[str] = (spec.submodule_search_locations or ()) if spec else ()
    for folder in folders:
        with suppress(OSError):
            return str(runpy.run_path(str(Path(folder) / "version.py")).get("cuda") or "")
    return ""


def _requirements() -> Iterator[Requirement]:
    return map(Requirement, metadata.requires(DISTRIBUTION) or [])


def _is_met(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
