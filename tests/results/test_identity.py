"""What makes another experiment, and what does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import ClassVar

import pytest
from demo_plugins import (
    Contrastive,
    DemoPlugins,
    Dense,
    OwnTrainer,
    Table,
    TrainingOptions,
    demo_registry,
    write_suite,
)

from grbench import DataFile, DataFolder
from grbench.errors import SuiteError
from grbench.hookspecs import hookimpl
from grbench.interfaces import Embedder
from grbench.registry.discovery import Registry
from grbench.registry.source_hash import library_version, room_hash, source_hash
from grbench.results.identity import (
    RANKING_ROOMS,
    TRAINING_ROOMS,
    cell_digest,
    cell_identity,
    lists_digest,
    training_digest,
)
from grbench.suite import method
from grbench.suite.suite import load_suite
from grbench.training.options import TrainingOptions as CoreTrainingOptions

VALIDATES = "methods.a.training={validate_every: 1, select: hits@10}"


@pytest.fixture(autouse=True)
def demo_training(monkeypatch):
    monkeypatch.setattr(method, "training_options", lambda: TrainingOptions)


def identity_of(tmp_path, *overrides, data="d1", text=""):
    (cell,) = load_suite(write_suite(tmp_path, text), list(overrides)).cells(demo_registry(), ["a"], 1)
    return cell_identity(cell, demo_registry(), data)


def changed(before, after):
    """Which parts of an identity changed; each digest covers its part and those before it."""
    digests = {"training": training_digest, "ranking": lists_digest, "metrics": cell_digest}
    differing = [part for part in digests if before[part] != after[part]]
    first = min(map([*digests].index, differing), default=3)
    assert [digest(before) != digest(after) for digest in digests.values()] == [place >= first for place in range(3)]
    return set(differing)


def test_a_digest_is_16_hex_digits_of_the_identity_in_any_order():
    assert cell_digest({"a": 1, "b": {"c": [1.5, None], "d": "é"}}) == cell_digest(
        {"b": {"d": "é", "c": [1.5, None]}, "a": 1}
    )
    assert len(cell_digest({})) == 16
    assert int(cell_digest({}), 16) >= 0
    assert cell_digest({"a": 1}) != cell_digest({"a": 2})


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("methods.a.encoder.width=33", "training"),
        ("methods.a.loss.temperature=0.06", "training"),
        ("methods.a.loss.weight=2", "training"),
        ("methods.a.optimizer=sgd", "training"),
        ("methods.a.training.epochs=11", "training"),
        ("protocol.pool=candidates", "training"),
        ("dataset.size=11", "training"),
        ("seeds=[7]", "training"),
        ("methods.a.retriever=exact_too", "ranking"),
        ("methods.a.filters=[history]", "ranking"),
        ("metrics=[hits@20]", "metrics"),
        ("metrics=[hits@10, hits@20]", "metrics"),
        ("metrics=[{name: hits, k: 10, alpha: 2.0}]", "metrics"),
    ],
)
def test_what_can_change_a_number_changes_its_part_alone(tmp_path, override, part):
    assert changed(identity_of(tmp_path), identity_of(tmp_path, override)) == {part}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("methods.a.retriever=exact_too", {"training", "ranking"}),
        ("methods.a.filters=[history]", {"training", "ranking"}),
        ("metrics=[hits@10, hits@20]", {"metrics"}),
        ("metrics=[hits@20, hits@10]", {"metrics"}),
        ("methods.a.training.validate_every=2", {"training"}),
    ],
)
def test_what_validates_is_part_of_training(tmp_path, override, parts):
    assert changed(identity_of(tmp_path, VALIDATES), identity_of(tmp_path, VALIDATES, override)) == parts


def test_the_metric_that_selects_is_described_in_training(tmp_path):
    identity = identity_of(tmp_path, "metrics=[hits@20, hits@10]", VALIDATES)
    assert identity["training"]["stages"][0]["validation"] == {**identity["ranking"], "metric": identity["metrics"][1]}
    assert "validation" not in identity_of(tmp_path)["training"]["stages"][0]


def test_each_stage_has_its_own_validation(tmp_path):
    stages = "methods.a.stages=[{name: one}, {name: two, training: {validate_every: 1, select: hits@10}}]"
    one, two = identity_of(tmp_path, stages)["training"]["stages"]
    assert "validation" not in one
    assert two["validation"]["metric"]["name"] == "hits"


def test_other_data_is_another_experiment(tmp_path):
    assert changed(identity_of(tmp_path), identity_of(tmp_path, data="d2")) == {"training"}


@pytest.mark.parametrize(
    "override",
    [
        "suite=renamed",
        "title=Another title",
        "dataset.path=moved/elsewhere",
        "methods.a.retriever.name=exact",  # the default
        "methods.a.trackers=[log]",
        "methods.a.training.workers=8",
        "methods.a.encoder.dropout=0",
        "defaults.optimizer.lr=0.001",
        "baseline=a",
    ],
)
def test_what_cannot_does_not(tmp_path, override):
    assert changed(identity_of(tmp_path), identity_of(tmp_path, override)) == set()


@pytest.mark.parametrize(
    ("condition", "override", "parts"),
    [
        ("epochs: 3", "validate_every=0", set()),  # null and 0 both say that nothing is validated
        ("validate_every: 1, select: hits@10", "select=hits@20", {"training"}),
        ("validate_every: 1, select: hits@10", "patience=2", {"training"}),
        ("validate_every: 1, select: hits@10", "validation_users=9", {"training"}),
        ("schedule: constant", "final_rate=0.5", set()),
        ("schedule: linear", "final_rate=0.5", {"training"}),
    ],
)
def test_a_training_option_counts_where_a_number_depends_on_it(tmp_path, monkeypatch, condition, override, parts):
    monkeypatch.setattr(method, "training_options", lambda: CoreTrainingOptions)
    given = ["metrics=[hits@10, hits@20]", f"methods.a.training={{{condition}}}"]
    changed_option = f"methods.a.training.{override}"
    assert changed(identity_of(tmp_path, *given), identity_of(tmp_path, *given, changed_option)) == parts


def test_the_name_of_a_method_is_no_part_of_it(tmp_path):
    suite = load_suite(write_suite(tmp_path, methods="{a: {encoder: dense}, b: {extends: a}}"))
    first, second = suite.cells(demo_registry(), seeds=1)
    identities = [cell_identity(cell, demo_registry(), "d") for cell in (first, second)]
    assert identities[0] == identities[1]


def test_an_identity_is_json_and_names_every_plug_in_with_its_source(tmp_path):
    identity = identity_of(tmp_path)
    assert json.loads(json.dumps(identity)) == identity
    assert set(identity) == {"training", "ranking", "metrics"}
    training, ranking = identity["training"], identity["ranking"]
    assert training["dataset"] == {
        "name": "table",
        "options": {"size": 10},
        "plugin": {"distribution": "demo-plugins", "version": "1.2", "source": source_hash(Table)},
        "digest": "d1",
    }
    assert training["encoder"] == {
        "name": "dense",
        "options": {"width": 32, "dropout": 0.0, "norm": "layer"},
        "plugin": {"distribution": "demo-plugins", "version": "1.2", "source": source_hash(Dense), "libraries": {}},
    }
    assert training["protocol"]["options"]["min_events"] == 3
    assert training["protocol"]["plugin"]["source"]
    (stage,) = training["stages"]
    assert stage["losses"][0]["weight"] == 1.0
    assert "workers" not in stage["training"]
    assert training["core"] == room_hash(*TRAINING_ROOMS)
    assert training["libraries"] == {name: library_version(name) for name in ("numpy", "torch")}
    assert set(ranking) == {"retriever", "filters", "core"}
    assert ranking["core"] == room_hash(*RANKING_ROOMS)
    assert identity["metrics"][0]["options"] == {"k": 10, "alpha": 1.0}
    for part in (training["tokenizer"], stage["trainer"], stage["optimizer"], ranking["retriever"]):
        assert set(part) == {"name", "options", "plugin"}


def test_libraries_count_where_a_plug_in_imports_them(tmp_path):
    registry = Registry.load()
    text = (
        "suite: s\ndataset: tencentgr_synthetic\nprotocol: leave_last_out\nmetrics: [ndcg@10]\n"
        "methods: {a: {encoder: most_popular, retriever: exact, tokenizer: rq_kmeans}}"
    )
    (cell,) = load_suite(write_suite(tmp_path, text)).cells(registry)
    identity = cell_identity(cell, registry, "d")
    assert set(identity["training"]["tokenizer"]["plugin"]["libraries"]) == {"faiss", "scipy"}
    assert identity["ranking"]["retriever"]["plugin"]["libraries"] == {}


def test_a_broken_plug_in_still_has_an_identity(tmp_path):
    suite = load_suite(write_suite(tmp_path, methods="{a: {encoder: lost}}"))
    (cell,) = suite.cells(demo_registry(), seeds=1)
    identity = cell_identity(cell, demo_registry(), "d1")
    assert identity["training"]["encoder"]["plugin"] == {
        "distribution": "demo-plugins",
        "version": "1.2",
        "source": None,
        "libraries": {},
    }


class ReadingTokenizer:
    def __init__(self, *, file: DataFile) -> None: ...

    def fit(self, data): ...


class ReadingEncoder(Dense):
    def __init__(self, data, codes, *, file: DataFile) -> None: ...


class ReadingRetriever:
    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(self, *, file: DataFile) -> None: ...
    def index(self, encoder, candidates, codes): ...
    def search(self, encoder, batch, k): ...


class ReadingMetric:
    name, higher_is_better, worst = "reading", True, 0.0

    def __init__(self, *, file: DataFile) -> None: ...

    def __call__(self, ranking): ...


class FolderTokenizer:
    def __init__(self, *, file: DataFolder) -> None: ...

    def fit(self, data): ...


class ReadingTable(Table):
    def __init__(self, *, path: Path = Path("data/demo"), file: DataFile) -> None: ...


class ReadingProtocol:
    def __init__(self, *, file: DataFile) -> None: ...

    def split(self, store): ...


class ReadingLoss(Contrastive):
    def __init__(self, data, codes, *, file: DataFile) -> None: ...


class ReadingTrainer(OwnTrainer):
    def __init__(self, *, file: DataFile) -> None: ...


def reading_optimizer(module, *, file: DataFile) -> list: ...


class ReadingPlugins(DemoPlugins):
    """Plug-ins of all kinds that a number depends on, which read a file each."""

    @hookimpl
    def register_datasets(self, register):
        register("table", Table)
        register("reading", ReadingTable)

    @hookimpl
    def register_protocols(self, register):
        register("leave_last_out", "grbench_reference.protocols.leave_last_out:LeaveLastOut")
        register("reading", ReadingProtocol)

    @hookimpl
    def register_losses(self, register):
        register("contrastive", Contrastive)
        register("reading", ReadingLoss)

    @hookimpl
    def register_trainers(self, register):
        register("supervised", "demo_plugins:Supervised")
        register("reading", ReadingTrainer)

    @hookimpl
    def register_optimizers(self, register):
        register("adam", "demo_plugins:adam")
        register("reading", reading_optimizer)

    @hookimpl
    def register_tokenizers(self, register):
        register("ids", "demo_plugins:Ids")
        register("reading", ReadingTokenizer)
        register("folder", FolderTokenizer)

    @hookimpl
    def register_encoders(self, register):
        register("dense", Dense)
        register("reading", ReadingEncoder)

    @hookimpl
    def register_retrievers(self, register):
        register("exact", "demo_plugins:Exact")
        register("reading", ReadingRetriever)

    @hookimpl
    def register_metrics(self, register):
        register("hits", "demo_plugins:Hits")
        register("reading", ReadingMetric)


def reading(tmp_path: Path, key: str, file: Path, name: str = "reading"):
    """The identity of a cell of which one plug-in reads the file."""
    registry = Registry()
    registry.add("reading", "reading-plugins", "1", ReadingPlugins)
    named = f"{{name: {name}, file: '{file}'}}"
    where = {"metrics": f"metrics=[hits@10, {named}]", "dataset": f"dataset={named}", "protocol": f"protocol={named}"}
    methods = "{a: {encoder: dense, loss: contrastive}}"
    suite = load_suite(write_suite(tmp_path, methods=methods), [where.get(key, f"methods.a.{key}={named}")])
    (cell,) = suite.cells(registry, ["a"], 1)
    return cell_identity(cell, registry, "d")


TRAINED = ("dataset", "protocol", "tokenizer", "encoder", "loss", "trainer", "optimizer")
READERS = [*((key, "training") for key in TRAINED), ("retriever", "ranking"), ("metrics", "metrics")]


@pytest.mark.parametrize(("key", "part"), READERS)
def test_a_file_counts_by_its_content_whichever_kind_reads_it(tmp_path, key, part):
    file = tmp_path / "first.bin"
    file.write_bytes(b"one")
    before = reading(tmp_path, key, file)
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved" / "second.bin")
    assert changed(before, reading(tmp_path, key, moved)) == set()
    moved.write_bytes(b"replaced")
    assert changed(before, reading(tmp_path, key, moved)) == {part}
    assert "second.bin" not in json.dumps(reading(tmp_path, key, moved))


@pytest.mark.parametrize(("key", "part"), READERS)
def test_a_file_that_is_missing_is_named_with_its_key(tmp_path, key, part):
    absent = tmp_path / "absent.bin"
    places = {"metrics": r"metrics\.1", "dataset": "dataset", "protocol": "protocol"}
    place = places.get(key, rf"methods\.a\.{key}")
    with pytest.raises(SuiteError, match=rf"^{place}\.file: {absent}: cannot be read \(No such file or directory\)"):
        reading(tmp_path, key, absent)
    with pytest.raises(SuiteError, match=rf"{place}\.file: {tmp_path}: cannot be read \(Is a directory\)"):
        reading(tmp_path, key, tmp_path)


def test_a_dataset_counts_by_its_files_but_not_by_its_other_paths(tmp_path):
    file = tmp_path / "file.bin"
    file.write_bytes(b"one")
    dataset = reading(tmp_path, "dataset", file)["training"]["dataset"]
    assert dataset["options"] == {"file": f"sha256:{hashlib.sha256(b'one').hexdigest()}"}


def test_a_folder_counts_by_the_files_in_it(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"one")
    before = reading(tmp_path, "tokenizer", folder, "folder")
    folder = folder.rename(tmp_path / "moved")
    assert changed(before, reading(tmp_path, "tokenizer", folder, "folder")) == set()
    (folder / "b.bin").write_bytes(b"more")
    assert changed(before, reading(tmp_path, "tokenizer", folder, "folder")) == {"training"}
    with pytest.raises(SuiteError, match="Not a directory"):
        reading(tmp_path, "tokenizer", folder / "a.bin", "folder")
