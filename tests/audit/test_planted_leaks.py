"""Each audit catches the leaks that were planted for it, and nothing in the same method without the leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from audited import CLEAN, audited, registry_with_leaks, results_of

from grbench.audit.audits import AUDITS
from grbench.registry.discovery import Registry

LAST_CLICK = {"positives": ["click"], "evaluation_share": 0.4}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_with_leaks()


def faults(registry: Registry, folder: Path, method: dict[str, Any], *names: str, **options: Any) -> dict[str, str]:
    """{audit that does not pass: what it says}."""
    results = results_of(audited(registry, folder, method, **options), *names)
    assert {result.verdict for result in results.values()} <= {"pass", "leak"}
    return {name: result.detail for name, result in results.items() if result.verdict == "leak"}


@pytest.mark.parametrize("protocol", ["leave_last_out", {"name": "last_positive", **LAST_CLICK}])
def test_the_same_method_without_a_leak_passes(registry: Registry, tmp_path: Path, protocol: Any) -> None:
    assert faults(registry, tmp_path, CLEAN, protocol=protocol) == {}


@pytest.mark.parametrize(
    ("part", "plugin", "maker"),
    [
        ("tokenizer", "CountingTokenizer", "the codes of tokenizer CountingTokenizer"),
        ("encoder", "CountingEncoder", "as made, of encoder CountingEncoder"),
        ("loss", "CountingLoss", "as made, of loss CountingLoss"),
    ],
)
def test_a_statistic_of_the_whole_store_is_a_leak_of_the_part_that_made_it(
    registry: Registry, tmp_path: Path, part: str, plugin: str, maker: str
) -> None:
    found = faults(registry, tmp_path, {**CLEAN, part: plugin}, "test_targets", "evaluated_futures")
    assert set(found) == {"test_targets", "evaluated_futures"}
    assert all(detail.endswith(maker) for detail in found.values())


def test_a_protocol_that_trains_on_targets_is_a_leak_of_both(registry: Registry, tmp_path: Path) -> None:
    found = faults(registry, tmp_path, CLEAN, "test_targets", "evaluated_futures", protocol="TrainsOnTargets")
    assert set(found) == {"test_targets", "evaluated_futures"}
    assert all(detail.endswith("change the training events of the protocol") for detail in found.values())


def test_events_behind_the_target_are_the_future_too(registry: Registry, tmp_path: Path) -> None:
    protocol = {"name": "TrainsAfterCutoff", **LAST_CLICK}
    found = faults(registry, tmp_path, CLEAN, "evaluated_futures", protocol=protocol)
    assert found["evaluated_futures"].endswith("change the training events of the protocol")


def test_a_pool_may_depend_on_targets_only_where_the_protocol_says_so(registry: Registry, tmp_path: Path) -> None:
    found = faults(registry, tmp_path, CLEAN, "test_targets", protocol="RanksTargets")
    assert found["test_targets"].endswith("change the candidates of the protocol")
    adds = {"name": "last_positive", **LAST_CLICK, "out_of_pool": "add"}
    assert faults(registry, tmp_path, CLEAN, "test_targets", "evaluated_futures", "chance", protocol=adds) == {}


def test_an_encoder_that_looks_targets_up_finds_more_than_chance(registry: Registry, tmp_path: Path) -> None:
    found = faults(registry, tmp_path, {**CLEAN, "encoder": "Clairvoyant"})
    assert set(found) == {"test_targets", "chance"}
    assert found["test_targets"].endswith("the lists of retriever exact")
    hits, _, drawn = found["chance"].split()[:3]
    assert int(hits) > 0.9 * int(drawn)


def test_a_metric_by_which_the_oracle_is_worst_is_wrong(registry: Registry, tmp_path: Path) -> None:
    found = faults(registry, tmp_path, CLEAN, "chance", metric={"name": "UpsideDown", "k": 5})
    assert found == {"chance": "hit_rate@5 says that lists without any target are better than those of an oracle"}


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("Bidirectional", "the state after an event changes"),
        ("SeesTargets", "the state after an event changes"),
        ("SeesFirstTime", "the state of the user's token changes"),
        ("TellsNextAction", "states depend on the action of the next event, which the encoder does not declare"),
        ("TellsEventsLeft", "states depend on how many events of the history follow"),
    ],
)
def test_a_state_that_knows_what_comes_is_a_leak(registry: Registry, tmp_path: Path, encoder: str, said: str) -> None:
    found = faults(registry, tmp_path, {**CLEAN, "encoder": encoder}, "causality")
    assert found["causality"].startswith(said)


def test_a_decoder_that_is_taught_by_the_target_itself_is_a_leak(registry: Registry, tmp_path: Path) -> None:
    found = faults(registry, tmp_path, {"encoder": "TaughtTooMuch", "loss": "next_code"}, "causality")
    assert found["causality"].startswith("the prediction of a code of level 1 changes")


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("DeclaresNextAction", "the action of the next event (at test the protocol's, exposure)"),
        ("DeclaresEventsLeft", "how many events of the history follow"),
    ],
)
def test_what_is_declared_is_told(registry: Registry, tmp_path: Path, encoder: str, said: str) -> None:
    result = results_of(audited(registry, tmp_path, {**CLEAN, "encoder": encoder}), "causality")["causality"]
    assert result.verdict == "pass"
    assert f"as declared, they depend on {said}" in result.detail


@pytest.mark.parametrize(
    ("part", "plugin", "reader"),
    [
        ("tokenizer", "ReadingTokenizer", "tokenizer ReadingTokenizer"),
        ("encoder", "ReadingEncoder", "encoder ReadingEncoder"),
        ("loss", "ReadingLoss", "ReadingLoss"),
        ("metric", "ReadingMetric", "a metric"),
    ],
)
def test_an_undeclared_file_is_named_with_its_reader(
    registry: Registry, tmp_path: Path, part: str, plugin: str, reader: str
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("1 2\n")
    reading = {"name": plugin, "source": str(secret)}
    method, options = (CLEAN, {"metric": {**reading, "k": 5}}) if part == "metric" else ({**CLEAN, part: reading}, {})
    found = faults(registry, tmp_path, method, "files", **options)
    assert found["files"].startswith(f"undeclared: {secret} (")
    assert reader in found["files"]


def test_declared_files_and_own_ones_pass(registry: Registry, tmp_path: Path) -> None:
    secret = tmp_path / "codes.txt"
    secret.write_text("1 2\n")
    for tokenizer, said in (
        ({"name": "DeclaringTokenizer", "source": str(secret)}, f"declared: {secret} (tokenizer DeclaringTokenizer)"),
        ({"name": "OwnFilesTokenizer", "folder": str(tmp_path)}, "no file is read"),
    ):
        result = results_of(audited(registry, tmp_path, {**CLEAN, "tokenizer": tokenizer}), "files")["files"]
        assert (result.verdict, result.detail) == ("pass", said)


def test_codes_of_other_data_are_replaced_and_it_is_said(registry: Registry, tmp_path: Path) -> None:
    foreign = {"name": "ForeignTokenizer", "source": str(tmp_path / "absent.json")}
    method = audited(registry, tmp_path, {"tokenizer": foreign, "encoder": "Vectors", "loss": "full_softmax"})
    assert {result.verdict for result in results_of(method).values()} == {"pass"}
    (note,) = method.notes
    assert note.startswith("tokenizer ForeignTokenizer reads a file of the suite's own data")


@pytest.mark.parametrize(
    ("method", "name", "said"),
    [
        ({"retriever": "Restless"}, "test_targets", "two equal runs differ, first in the lists of retriever Restless"),
        ({"encoder": "Raises"}, "causality", "ValueError: deliberate"),
        ({"encoder": "DeclaresNonsense"}, "causality", "encoder DeclaresNonsense: looks_ahead() names 'everything'"),
    ],
)
def test_what_cannot_be_audited_says_why(
    registry: Registry, tmp_path: Path, method: dict[str, Any], name: str, said: str
) -> None:
    result = results_of(audited(registry, tmp_path, {**CLEAN, **method}), name)[name]
    assert result.verdict == "unknown"
    assert result.detail.startswith(said)


def test_every_audit_says_what_a_failure_means() -> None:
    for name, audit in AUDITS.items():
        assert audit.name == name
        assert audit.meaning.endswith(".")
