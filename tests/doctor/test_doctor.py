"""What `grbench doctor` finds, in installations made of metadata files that come before the real ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from grbench.cli import main
from grbench.doctor import libraries, storage
from grbench.doctor.diagnosis import Diagnosis
from grbench.doctor.examine import can_run, examine
from grbench.doctor.hardware import Gpu, Gpus, gpu
from grbench.doctor.installed_plugins import plugins

NO_GPU = Gpus(why_none="this machine has no NVIDIA GPU")
H200 = Gpus((Gpu("NVIDIA H200", 141 << 30),), "570.86", (12, 8))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose distributions hide those of the same name that are installed."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def install(site: Path, name: str, version: str, *metadata: str, entry_points: str = "") -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    head = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *metadata]
    (folder / "METADATA").write_text("\n".join(head) + "\n")
    if entry_points:
        (folder / "entry_points.txt").write_text(entry_points)


def named(diagnoses: list[Diagnosis], topic: str) -> Diagnosis:
    return next(diagnosis for diagnosis in diagnoses if diagnosis.topic == topic)


def test_this_installation_can_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--cache", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    topics = [line.split()[1] for line in lines if line.startswith(("ok ", "note "))]
    for topic in ("Python", "grbench", "processors", "memory", "GPU", "torch", "Faiss", "cache", "plug-ins", "suites"):
        assert topic in topics
    assert lines[-1].startswith("Runs can start here: ")


def test_it_is_fast_because_torch_is_not_imported() -> None:
    script = """
import sys
from grbench.cli import main
assert main(["doctor"]) == 0
loaded = [name for name in ("torch", "pandas", "faiss", "scipy") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_libraries_that_are_missing_or_not_supported_stop_a_run(site: Path) -> None:
    install(site, "numpy", "1.2")
    requires = ["numpy>=2.0", "absent-library>=3", "click>=8", "never-needed; extra == 'more'"]
    install(site, "grbench", "9.1", "Provides-Extra: more", *(f"Requires-Dist: {each}" for each in requires))
    right, *wrong = libraries.libraries()
    assert right.text.startswith("1 of 3 as needed: click ")
    assert [(each.topic, each.severity) for each in wrong] == [("numpy", "stop"), ("absent-library", "stop")]
    assert wrong[0].text == "1.2 is not supported; >=2.0 is"
    assert wrong[0].remedy.endswith(" install 'numpy>=2.0'")
    assert wrong[1].text == "is not installed"
    (extra,) = libraries.extras()
    assert (extra.topic, extra.severity) == ("extra more", "note")
    assert extra.remedy.endswith(" install 'grbench[more]'")
    install(site, "never-needed", "0.1")
    assert libraries.extras() == []
    assert libraries.installed().severity == "note"  # 9.1 is installed, another version runs


def test_a_python_that_is_not_supported_stops_a_run(site: Path) -> None:
    install(site, "grbench", "9.1", "Requires-Python: >=4.7")
    found = libraries.python()
    assert found.severity == "stop"
    assert found.text.endswith("which is not >=4.7")


def test_both_packages_of_faiss_clash(site: Path) -> None:
    install(site, "faiss-gpu", "1.15.0")
    install(site, "faiss-cpu", "1.15.0")
    clash = libraries.faiss(NO_GPU)
    assert clash.severity == "stop"
    assert "uninstall faiss-cpu faiss-gpu, then " in clash.remedy
    assert clash.remedy.endswith(" install 'grbench[cpu]'")
    assert libraries.faiss(H200).remedy.endswith(" install 'grbench[gpu]'")


def test_a_missing_torch_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    version = libraries._version
    monkeypatch.setattr(libraries, "_version", lambda name: None if name == "torch" else version(name))
    found = examine()
    (torch,) = [each for each in found if each.topic == "torch"]
    assert (torch.severity, torch.text) == ("stop", "is not installed")
    assert "install 'torch" in str(torch.remedy)


def test_a_gpu_that_a_build_leaves_idle_is_a_note(tmp_path: Path) -> None:
    """In a process of its own, because torch is imported in this one."""
    script = f"""
from grbench.doctor.hardware import Gpu, Gpus
from grbench.doctor.libraries import faiss, torch
for each in (torch, faiss):
    for found in (each({H200!r}), each({NO_GPU!r})):
        print(found.severity, found.text)
"""
    said = []
    for name, cuda in (("cpu", None), ("old_driver", "13.0"), ("right", "12.6")):
        (tmp_path / name / "torch").mkdir(parents=True)
        (tmp_path / name / "torch" / "version.py").write_text(f"cuda = {cuda!r}\n")
        (tmp_path / name / "torch" / "__init__.py").write_text("raise SystemExit('imported')\n")
        install(tmp_path / name, "torch", "2.13.0")
        install(tmp_path / name, "faiss-cpu", "1.15.0")
        path = os.pathsep.join([str(tmp_path / name), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        said.append(done.stdout.splitlines())
    assert said[0][:2] == [
        "note 2.13.0, built for processors alone: the GPU stays idle",
        "ok 2.13.0, built for processors",
    ]
    assert said[1][0] == (
        "note 2.13.0, built for CUDA 13.0, which the driver (CUDA up to 12.8) does not run: the GPU stays idle"
    )
    assert said[2][:2] == ["ok 2.13.0, built for CUDA 12.6"] * 2
    assert [line.partition(" ")[0] for line in said[2][2:]] == ["note", "ok"]  # a Faiss for processors


def test_gpus_are_named_and_hidden_ones_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu(H200).text == "NVIDIA H200 (141.0 GiB); driver 570.86, for CUDA up to 12.8"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert (gpu(H200).severity, gpu(H200).remedy) == ("note", "unset CUDA_VISIBLE_DEVICES")


def test_a_cache_that_cannot_be_written_stops_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "items.npy").write_bytes(bytes(3 << 20))
    assert "3 MiB in it" in storage.cache(tmp_path).text
    assert storage.cache(tmp_path / "not" / "yet").severity == "ok"
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").touch()
    assert main(["doctor", "--cache", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().out
    assert "file is a file, no folder" in said
    assert "Runs cannot start here yet: mend cache" in said


def test_packages_with_plugins_are_listed_and_broken_ones_named(site: Path) -> None:
    install(site, "half-way", "1.0", entry_points="[grbench]\nhalf = half_way_plugins\n")
    (site / "half_way_plugins.py").write_text("import nothing_of_this_name\n")
    listed, broken = plugins()
    assert listed.severity == "ok"
    assert (broken.topic, broken.severity) == ("plug-ins", "note")
    assert "half of half-way 1.0 is broken: ModuleNotFoundError" in broken.text
    assert " install --upgrade half-way" in broken.remedy


def test_a_name_that_two_packages_register_stops_a_run(site: Path) -> None:
    install(site, "zz-twice", "1.0", entry_points="[grbench]\ntwice = twice_plugins\n")
    (site / "twice_plugins.py").write_text(
        "import grbench\n"
        "@grbench.hookimpl\n"
        "def register_encoders(register):\n"
        "    register('most_popular', 'twice_plugins:Encoder')\n"
    )
    (clash,) = plugins()
    assert clash.severity == "stop"
    assert "registered twice" in clash.text
    assert not can_run([clash])


def test_json_names_neither_user_nor_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "janedoe"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GRBENCH_CACHE", str(home / "cache"))
    install(site, "broken-one", "1.0", entry_points="[grbench]\nbroken = broken_plugins\n")
    (site / "broken_plugins.py").write_text(f"open('/scratch/janedoe/{socket.gethostname()}/x')\n")
    assert main(["doctor", "--json"]) == 0
    said = capsys.readouterr().out
    content = json.loads(said)
    assert content["can_run"] is True
    texts = {diagnosis["topic"]: diagnosis["text"] for diagnosis in content["diagnoses"]}
    assert texts["cache"].startswith("~/cache, ")
    assert "/scratch/USER/HOST/x" in texts["plug-ins"]
    assert "janedoe" not in said
    assert f"/{socket.gethostname()}" not in said


def test_thorough_imports_libraries_and_plugins(tmp_path: Path) -> None:
    found = examine(tmp_path, thorough=True)
    assert can_run(found)
    assert "torch" in named(found, "imports").text
