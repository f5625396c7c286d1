"""What is refused before any cell runs, on a dataset of a few users."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import Heard

from grbench import DataFile, hookimpl
from grbench.errors import DataError, GRBenchError, RunError, SuiteError
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.run.backends.child_process import ChildMessages
from grbench.run.prepare import disk_text, plan_methods, prepare
from grbench.suite.method import Method
from grbench.suite.suite import Cell
from grbench.types import Ranking
from grbench_reference.datasets.interactions.dataset import Interactions


class FirstScore:
    """A metric that has no k."""

    name, higher_is_better = "first_score", True

    def __call__(self, ranking: Ranking) -> np.ndarray:
        return ranking.scores[:, 0].astype(np.float64)


class LabelledLog(Interactions):
    """A log with a file beside it, which its digest does not know of."""

    def __init__(self, *, path: Path, labels: DataFile) -> None:
        super().__init__(path=path)


class OwnPlugins:
    @hookimpl
    def register_datasets(self, register: Any) -> None:
        register("labelled_log", LabelledLog)

    @hookimpl
    def register_metrics(self, register: Any) -> None:
        register("first_score", FirstScore)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Four candidates, and a metric that leaves the length of the lists open."""
    registry = Registry.load()
    registry.add("own", "own", "1", OwnPlugins)
    monkeypatch.setattr(Registry, "load", lambda: registry)
    monkeypatch.setattr("signal.alarm", lambda seconds: 0)  # planning ends its process, which here is pytest's
    (tmp_path / "users.json").write_text(json.dumps({f"u{user}": ["a", "b", "c", "d"] for user in range(4)}))
    popular, nothing = Component("most_popular", {}), Component("ids", {})
    method = Method("m", nothing, popular, Component("exact", {}), (), (), ())
    dataset = Component("interactions", {"path": str(tmp_path / "users.json")})
    cell = Cell("tiny", dataset, Component("leave_last_out", {}), (Component("first_score", {}),), method, 0)
    return {
        "cell": cell.to_json(),
        "cache": str(tmp_path / "cache"),
        "device": "cpu",
        "filters": [[]],
        "validates": False,
        "suite": "x.yaml",
        "methods": [],
    }


def test_lists_longer_than_the_pool_are_refused_also_where_no_metric_has_a_k(job: dict[str, Any]) -> None:
    with pytest.raises(SuiteError, match="k=10 is larger than the pool of 4 candidates"):
        prepare(job, ChildMessages(io.StringIO()))


def test_another_content_of_a_file_that_the_dataset_names_builds_another_store(job: dict[str, Any]) -> None:
    cell = Cell.from_json(job["cell"])
    labels = Path(job["cache"]).with_name("labels.txt")
    dataset = Component("labelled_log", {**cell.dataset.options, "labels": str(labels)})
    job["cell"] = replace(cell, dataset=dataset, metrics=(Component("ndcg", {"k": 3}),)).to_json()
    stores = []
    for content in ("one", "one", "replaced"):
        labels.write_text(content)
        stores.append(prepare(job, ChildMessages(io.StringIO())).store.path)
    assert stores[0] == stores[1] != stores[2]


def test_lists_are_as_long_as_the_largest_k(job: dict[str, Any]) -> None:
    cell = Cell.from_json(job["cell"])
    metrics = (Component("a", {"k": 3}), Component("b", {"k": 20}), Component("c", {}))
    assert replace(cell, metrics=metrics).list_length == 20
    assert replace(cell, metrics=metrics[2:]).list_length == 10


# --- methods that do not go with the data


def with_method(job: dict[str, Any], loss: Any = None, **parts: Any) -> dict[str, Any]:
    """A job of one method, trained, of which some parts are others. A list of four is as long as the pool allows."""
    stage = {
        "name": "",
        "targets": None,
        "losses": [[loss or {"name": "next_code", "options": {}}, 1.0]],
        "trainer": {"name": "supervised", "options": {}},
        "optimizer": {"name": "adam", "options": {}},
        "training": {"epochs": 1, "batch_size": 2, "workers": 0},
    }
    usual = {
        "tokenizer": {"name": "ids", "options": {}},
        "encoder": {"name": "sid_decoder", "options": {"width": 8}},
        "retriever": {"name": "beam", "options": {}},
        "stages": [stage],
    }
    cell = {**job["cell"], "metrics": [{"name": "hit_rate", "options": {"k": 4}}]}
    cell["method"] = cell["method"] | usual | parts
    return {**job, "cell": cell, "methods": [cell]}


def complaint(job: dict[str, Any]) -> GRBenchError:
    events = ChildMessages(io.StringIO())
    with pytest.raises((SuiteError, DataError)) as raised:
        plan_methods(job, prepare(job, events), events)
    return raised.value


def test_a_sample_that_is_larger_than_the_validation_users_is_noted(job: dict[str, Any]) -> None:
    job = with_method(job)
    training = job["methods"][0]["method"]["stages"][0]["training"]
    for sample, notes in ((4, []), (5, ["5 are more than the 4 validation users; all of them are scored"])):
        training |= {"validate_every": 1, "validation_users": sample}
        heard = Heard()
        prepare(job | {"validates": True}, ChildMessages(heard))  # type: ignore[arg-type]
        said = [event["text"] for event in heard.events if event["event"] == "note"]
        assert said == [f"x.yaml: methods.m.training.validation_users: {note}" for note in notes]


def test_a_method_that_fits_is_planned(job: dict[str, Any]) -> None:
    said = io.StringIO()
    right = with_method(job, retriever={"name": "beam", "options": {"width": 4}})
    plan_methods(right, prepare(right, ChildMessages(said)), ChildMessages(said))
    plan = next(event["plan"] for event in map(json.loads, said.getvalue().splitlines()) if event["event"] == "planned")
    assert plan["unknown"] == "the index of beam is not in it"


@pytest.mark.parametrize("retriever", ["beam", "beam_rerank"])
@pytest.mark.parametrize(
    ("width", "message"),
    [
        (5, "retriever.width: a beam of 5 is wider than the pool of 4 candidates"),
        ([4, 4], "retriever.width: 2 widths for codes of 1 levels"),
    ],
)
def test_a_beam_that_does_not_fit_is_refused(job: dict[str, Any], retriever: str, width: Any, message: str) -> None:
    wide = with_method(job, retriever={"name": retriever, "options": {"width": width}})
    assert str(complaint(wide)).startswith(f"x.yaml: methods.m.{message}")


def test_more_lists_than_candidates_are_refused(job: dict[str, Any]) -> None:
    transformer = {"name": "causal_transformer", "options": {"width": 8}}
    lists = {"name": "faiss", "options": {"index": "IVF16,Flat"}}
    error = complaint(with_method(job, encoder=transformer, loss={"name": "bce", "options": {}}, retriever=lists))
    assert str(error).startswith("x.yaml: methods.m.retriever.index: 'IVF16,Flat' has 16 lists, and only 4 candidates")


def test_a_codes_file_that_lacks_items_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text(json.dumps({"a": [0], "b": [1], "c": [2]}))
    error = complaint(with_method(job, tokenizer={"name": "codes_file", "options": {"path": str(path)}}))
    assert isinstance(error, DataError)
    assert str(error).startswith(
        f"x.yaml: methods.m.tokenizer.path: {path}: lacks 1 of the dataset's 4 items, such as d"
    )


def test_codes_that_cannot_hold_the_items_are_refused(job: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.eye(5, dtype=np.float32))
    vectors = {"source": "file", "vectors": str(tmp_path / "vectors.npy")}

    def said(**options: Any) -> str:
        return str(complaint(with_method(job, tokenizer={"name": "rq_kmeans", "options": {**vectors, **options}})))

    assert said(sizes=[1, 3]).startswith(
        "x.yaml: methods.m.tokenizer.sizes: 1 x 3 makes 3 codes, and collision: next_nearest gives each of the 4 "
    )
    assert (
        said(sizes=[2, 2], svd=6)
        == "x.yaml: methods.m.tokenizer.svd: 6 is more than the 5 dimensions of file vectors.npy"
    )
    broken = np.eye(5, dtype=np.float32)
    broken[2, 1] = np.nan
    np.save(tmp_path / "vectors.npy", broken)
    assert said(sizes=[2, 2]).startswith(
        "x.yaml: methods.m: file vectors.npy: 1 of the first 4 vectors hold NaN or infinite values, the first is that "
        "of item b;"
    )


def test_codes_of_cooccurrence_that_cannot_be_are_refused(job: dict[str, Any]) -> None:
    """Of four users two events are trained on: items a and b stand beside each other, c and d beside none."""

    def said(**options: Any) -> str:
        tokenizer = {"name": "rq_kmeans", "options": {"source": "cooccurrence", **options}}
        return str(complaint(with_method(job, tokenizer=tokenizer)))

    assert said(sizes=[2, 2]).startswith("x.yaml: methods.m.tokenizer.width: 128 dimensions, but only 2 items occur")
    assert said(width=1, sizes=[1, 1]).startswith(
        "x.yaml: methods.m.tokenizer.sizes: 1 x 1 makes 1 codes, and collision: next_nearest gives each of the 2"
    )


def test_what_an_encoder_or_a_loss_refuses_is_said_by_the_plan(job: dict[str, Any]) -> None:
    weights = with_method(job, loss={"name": "next_code", "options": {"level_weights": [1.0, 2.0]}})
    assert str(complaint(weights)) == "x.yaml: methods.m.loss.level_weights: 2 weights for codes of 1 levels"


def test_a_plug_in_that_breaks_is_left_to_its_cell(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grbench_reference.retrievers.beam.Beam.check", lambda *_: 1 / 0)
    prepare(with_method(job), ChildMessages(io.StringIO()))


class Known:
    def __init__(self, size: int) -> None:
        self.size = size

    def store_bytes(self) -> int:
        return self.size


def test_the_disk_that_a_store_will_take(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there" / "yet"
    assert "about 3 MiB" in disk_text(Known(3 << 20), cache, oversize=False)
    assert "does not say how large" in disk_text(object(), cache, oversize=False)
    with pytest.raises(RunError, match="GiB are free: free some, set GRBENCH_CACHE to a larger disk"):
        disk_text(Known(1 << 60), cache, oversize=False)
