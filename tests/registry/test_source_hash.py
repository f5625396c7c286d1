"""Which source counts: what a plug-in is made of and what it imports, and whole rooms of the core."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

import grbench
from grbench.errors import PluginError
from grbench.registry import source_hash as sources
from grbench.registry.source_hash import (
    clear_caches,
    library_version,
    library_versions,
    plugin_packages,
    room_hash,
    room_modules,
    source_hash,
)
from grbench.results.identity import RANKING_ROOMS, TRAINING_ROOMS

ROOMS = (*TRAINING_ROOMS, *RANKING_ROOMS)


@pytest.fixture(autouse=True)
def fresh():
    """What a test has put on the path is found, and forgotten after it."""
    clear_caches()
    yield
    clear_caches()


class Written:
    """A folder on the path with modules and data files, each counted or not."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder = folder
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

    def factory(self, module: str):
        return importlib.import_module(module).Model

    def changes(self, module: str, file: str, text: str = "\nchanged = 1\n") -> bool:
        """Whether the source of `module` is another one when `file` gets more to it."""
        clear_caches()
        factory = self.factory(module)
        before = source_hash(factory)
        with (self.folder / file).open("a") as opened:
            opened.write(text)
        clear_caches()
        return source_hash(factory) != before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package: model imports layers and, inside a function, lazy; and by name `named` and the loose module."""
    name = f"package_{abs(hash(str(tmp_path)))}"
    files = {
        "__init__.py": "from . import started\n",
        "started.py": "x = 1\n",
        "model.py": (
            "from __future__ import annotations\nimport importlib\nimport json\nfrom typing import TYPE_CHECKING\n"
            "from .layers import Layer\nif TYPE_CHECKING:\n    from . import types_only\n"
            "class Model:\n    def run(self, which):\n        from . import lazy\n"
            f"        importlib.import_module('{name}.named')\n        importlib.import_module('.near', __package__)\n"
            f"        __import__('{name}_loose')\n        importlib.import_module('{name}.' + which)\n"
        ),
        "layers.py": f"import {name}.deep.inner\nclass Layer: ...\n",
        "deep/__init__.py": "",
        "deep/inner.py": "from .. import model\n",  # a cycle
        "deep/table.csv": "1,2\n",
        **{f"{module}.py": "x = 1\n" for module in ("lazy", "named", "near", "computed", "types_only", "unused")},
        "other/__init__.py": "",
        "other/table.csv": "1,2\n",
        "weights.bin": "1",
        "numbers/inner/table.csv": "1,2\n",
        "model.pyi": "",
        ".hidden": "",
    }
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}_loose.py").write_text("x = 1\n")
    (tmp_path / "beside.csv").write_text("1,2\n")
    return Written(tmp_path, {f"{name}/{file}": text for file, text in files.items()}), name


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("model.py", True),
        ("layers.py", True),
        ("lazy.py", True),
        ("deep/inner.py", True),
        ("named.py", True),
        ("near.py", True),
        ("../{name}_loose.py", True),
        # imported with any module of the package
        ("__init__.py", True),
        ("started.py", True),
        ("deep/__init__.py", True),
        # nobody can say which module a name is that is put together when it is needed
        ("computed.py", False),
        ("unused.py", False),
        ("types_only.py", False),
        # data: of the packages that counted modules lie in
        ("weights.bin", True),
        ("numbers/inner/table.csv", True),
        ("deep/table.csv", True),
        ("other/table.csv", False),
        ("../beside.csv", False),
        ("model.pyi", False),
        (".hidden", False),
    ],
)
def test_what_counts_of_a_package(package, file, counts):
    written, name = package
    assert written.changes(f"{name}.model", f"{name}/{file.format(name=name)}") is counts


def test_what_is_only_said_does_not_count(package):
    written, name = package
    assert not written.changes(f"{name}.model", f"{name}/layers.py", '\n# A comment.\n"""And a text."""\n')


def test_the_package_that_registers_plug_ins_does_not_count_with_each_of_them(package, monkeypatch):
    """It names all plug-ins: one more is no change of the others. Its data files still count."""
    written, name = package
    entry = importlib.metadata.EntryPoint("mine", name, "grbench")
    monkeypatch.setattr(sources, "_entry_points", sources.cache(lambda: importlib.metadata.EntryPoints([entry])))
    assert not written.changes(f"{name}.model", f"{name}/__init__.py")
    assert not written.changes(f"{name}.model", f"{name}/started.py")
    assert written.changes(f"{name}.model", f"{name}/deep/inner.py")
    assert written.changes(f"{name}.model", f"{name}/weights.bin")
    (written.folder / name / "__init__.py").write_text("class Model: ...\n")
    importlib.reload(sys.modules[name])
    assert written.changes(name, f"{name}/__init__.py"), "the plug-in itself stands in it"


def test_a_module_outside_of_any_distribution_is_followed_and_an_installed_one_is_not(tmp_path, monkeypatch):
    loose = Written(tmp_path / "loose", {"mine_1.py": "import theirs_1\nclass Model: ...\n", "theirs_1.py": "x = 1\n"})
    monkeypatch.syspath_prepend(loose.folder)
    assert loose.changes("mine_1", "theirs_1.py")
    for place in ("lib/site-packages", "target"):
        name = place.partition("/")[0]
        files = {f"theirs_{name}/__init__.py": "x = 1\n", "theirs_dist-2.5.dist-info/METADATA": "Version: 2.5+cu128\n"}
        files["theirs_dist-2.5.dist-info/RECORD"] = f"theirs_{name}/__init__.py,,\n"
        installed = Written(tmp_path / place, files)
        monkeypatch.syspath_prepend(installed.folder)
        (loose.folder / f"mine_{name}.py").write_text(f"import theirs_{name}\nclass Model: ...\n")
        clear_caches()
        factory = loose.factory(f"mine_{name}")
        before = source_hash(factory)
        assert library_versions(factory) == {f"theirs_{name}": "2.5"}
        (installed.folder / f"theirs_{name}" / "__init__.py").write_text("x = 2\n")
        clear_caches()
        assert source_hash(factory) == before


def test_another_plug_ins_package_is_followed_where_it_is_installed(tmp_path, monkeypatch):
    """A stranger's encoder built on another package's changes when that one does."""
    theirs = Written(tmp_path / "site-packages", {"theirs_2/__init__.py": "", "theirs_2/layers.py": "x = 1\n"})
    mine = Written(tmp_path / "mine", {"mine_2.py": "from theirs_2.layers import x\nclass Model: ...\n"})
    for written in (theirs, mine):
        monkeypatch.syspath_prepend(written.folder)
    before = source_hash(mine.factory("mine_2"))
    monkeypatch.setattr(sources, "plugin_packages", sources.cache(lambda: frozenset({"theirs_2"})))
    clear_caches()
    assert source_hash(mine.factory("mine_2")) != before
    before = source_hash(mine.factory("mine_2"))
    (theirs.folder / "theirs_2" / "layers.py").write_text("x = 2\n")
    clear_caches()
    assert source_hash(mine.factory("mine_2")) != before


def test_a_module_that_cannot_be_read_as_python_counts_by_its_bytes(tmp_path, monkeypatch):
    files = {"mine_3.py": "class Model:\n    def run(self):\n        import broken_3\n", "broken_3.py": "x ="}
    written = Written(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path)
    assert written.changes("mine_3", "broken_3.py", "  # more")


def test_the_reference_package_is_followed_and_the_core_is_not():
    assert "grbench_reference" in plugin_packages()
    assert "grbench" not in plugin_packages()


def test_a_factory_is_found_behind_what_wraps_it(package):
    written, name = package
    factory = written.factory(f"{name}.model")
    assert source_hash(partial(partial(factory))) == source_hash(factory)


def test_a_factory_of_a_library_counts_by_its_version():
    from torch.optim import SGD

    assert library_versions(SGD)["torch"] == library_version("torch")
    assert len(source_hash(SGD)) == 64


def test_a_factory_without_a_source_is_refused():
    made_here = type("Made", (), {"__module__": "nowhere_at_all"})
    with pytest.raises(PluginError, match="nowhere_at_all: its source cannot be found"):
        source_hash(made_here)


def test_libraries_are_those_that_compute_by_the_names_that_are_imported():
    from grbench_reference.tokenizers.rq_kmeans import RQKMeans

    assert set(library_versions(RQKMeans)) == {"faiss", "numpy", "scipy", "torch"}
    assert all(re.fullmatch(r"\d+(\.\w+)+", version) for version in library_versions(RQKMeans).values())
    assert library_version("nothing_of_this_name") is None


def test_the_modules_of_the_core_in_the_training_identity():
    """Whoever changes one of these trains every cell anew. A module whose changes should not do so, such as one that
    shows progress or writes checkpoints, belongs into another room."""
    assert room_modules(*TRAINING_ROOMS) == [
        "grbench.data",
        "grbench.data.batches",
        "grbench.data.codes",
        "grbench.data.examples",
        "grbench.data.histories",
        "grbench.data.padding",
        "grbench.data.queries",
        "grbench.data.split",
        "grbench.data.store",
        "grbench.data.store_writer",
        "grbench.data.ties",
        "grbench.data.training_data",
        "grbench.distributed",
        "grbench.distributed.alike",
        "grbench.distributed.gradients",
        "grbench.distributed.ranks",
        "grbench.distributed.row_table",
        "grbench.distributed.whole",
        "grbench.interfaces",
        "grbench.training",
        "grbench.training.loop",
        "grbench.training.numerics",
        "grbench.training.options",
        "grbench.training.selection",
        "grbench.training.stages",
        "grbench.training.state",
        "grbench.training.update",
        "grbench.types",
    ]


def test_the_modules_of_the_core_that_rank():
    """Whoever changes one of these has every cell's lists made anew, and trained anew what selects by validation."""
    assert room_modules(*RANKING_ROOMS) == [
        "grbench.evaluation",
        "grbench.evaluation.filters",
        "grbench.evaluation.ranking",
        "grbench.evaluation.scoring",
    ]


@pytest.fixture
def core(tmp_path, monkeypatch):
    """A copy of the core that the hashes are taken from."""
    ours = Path(grbench.__file__).parent
    shutil.copytree(ours, tmp_path / "grbench", ignore=shutil.ignore_patterns("__pycache__"))
    before = {room: room_hash(room) for room in ROOMS}
    monkeypatch.setattr(grbench.__spec__, "submodule_search_locations", [str(tmp_path / "grbench")])
    clear_caches()
    assert {room: room_hash(room) for room in ROOMS} == before
    return tmp_path / "grbench"


def edit_first(core: Path, room: str, edit) -> bool:
    """Edits the first module of a room that `edit` changes; False where it changes none."""
    for file in sources_of(core, room):
        text = file.read_text()
        if (edited := edit(text)) != text:
            file.write_text(edited)
            return True
    return False


def rewords_a_docstring(text: str) -> str:
    return text.replace('"""', '"""In other words: ', 1)


def adds_a_comment(text: str) -> str:
    return text + "# In other words.\n"


def changes_an_expression(text: str) -> str:
    return re.sub(r"\n( +return) (?=\S)", r"\n\1 not ", text, count=1)


class RewordErrors(ast.NodeTransformer):
    """Replaces each text in `raise` statements, f-strings as a whole; `count`: how many."""

    count = 0

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        class Reword(ast.NodeTransformer):
            def reword(inner, text: ast.expr) -> ast.expr:
                self.count += 1
                return ast.copy_location(ast.Constant("In other words."), text)

            def visit_Constant(inner, text: ast.Constant) -> ast.expr:
                return inner.reword(text) if isinstance(text.value, str) else text

            visit_JoinedStr = reword

        return Reword().visit(node)


def sources_of(core: Path, room: str) -> list[Path]:
    return sorted((core / room).rglob("*.py")) or [core / f"{room}.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_reworded_message_reruns_nothing_and_a_changed_expression_does(core, room):
    before = room_hash(room)
    for edit in (rewords_a_docstring, adds_a_comment):
        assert edit_first(core, room, edit), edit
        clear_caches()
        assert room_hash(room) == before, edit
    assert edit_first(core, room, changes_an_expression)
    clear_caches()
    assert room_hash(room) != before


@pytest.mark.parametrize("room", ROOMS)
def test_no_text_of_an_error_counts(core, room):
    before, errors, raises = room_hash(room), RewordErrors(), False
    for file in sources_of(core, room):
        raises |= " raise " in file.read_text()
        file.write_text(ast.unparse(errors.visit(ast.parse(file.read_text()))))
    assert errors.count > 0 or not raises
    clear_caches()
    assert room_hash(room) == before


def test_no_message_is_written_outside_the_statement_that_raises_it():
    """Texts of several words in the modules that count, docstrings aside; a message among them would count."""
    found = set()
    for room in ROOMS:
        for file in sources_of(Path(grbench.__file__).parent, room):
            tree = ast.parse(file.read_text())
            uncounted = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            ]
            skipped = {id(part) for node in uncounted for part in ast.walk(node)}
            texts = [
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in skipped
            ]
            found |= {text for text in texts if isinstance(text, str) and " " in text}
    # A remark of the store writer is part of the store, not a message.
    separators, phases, plugins = {" ", ": "}, {"fit tokenizer", "train ", "item counts"}, {"tokenizer ", "encoder "}
    remarks = {"embedding ", " with NaN or infinite float16 values count as missing"}
    assert found == separators | phases | plugins | remarks


def test_a_new_module_in_a_room_counts_and_one_elsewhere_does_not(core):
    before = room_hash(*ROOMS)
    (core / "report" / "another.py").write_text("x = 1\n")
    (core / "cli.py").write_text("x = 1\n")
    clear_caches()
    assert room_hash(*ROOMS) == before
    (core / "training" / "another.py").write_text("x = 1\n")
    clear_caches()
    assert room_hash(*ROOMS) != before
