"""Every reference plug-in passes the conformance kit: a new one is checked by being registered.

Options are the defaults; `OPTIONS` says others where the kit's small data needs them, or a plug-in reads files.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

import pytest
from tencentgr_release import write_release

from grbench.interfaces import Embedder
from grbench.registry.component import Component
from grbench.registry.discovery import Registry, missing_interfaces
from grbench.registry.options import options_of
from grbench.testing import parametrize_with_checks
from grbench.testing.checks.all_checks import CHECKS
from grbench.testing.checks.check_world import check_world
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.encoders_training import require_nothing_kept
from grbench.testing.checks.rankings import mixed
from grbench.testing.checks.run_checks import run_check

REGISTRY = Registry.load()
_PLACE = tempfile.TemporaryDirectory(prefix="grbench-conformance-")
FILES = Path(_PLACE.name)
OPTIONS = {
    "dataset:tencentgr": {"path": str(FILES / "release"), "embeddings": []},
    "dataset:tencentgr_synthetic": {"users": 60, "items": 80},
    "dataset:interactions": {"path": str(FILES / "log.json")},
    "tokenizer:codes_file": {"path": str(FILES / "codes.json")},
    "tokenizer:rq_kmeans": {"sizes": [12, 12]},
    "tokenizer:rq_vae": {"sizes": [12, 12], "widths": [8, 4], "steps": 20, "batch_size": 32, "restart_every": 5},
    "encoder:preference_memory": {"segment": 3},  # the longest history has few events
    "tokenizer:uni_sid": {"sizes": [12, 12], "coder_widths": [8], "steps": 20, "batch_size": 32, "restart_every": 5},
    "retriever:faiss": {"index": "Flat"},
    "retriever:beam": {"width": 60},  # as wide as the pool
    "retriever:beam_rerank": {"width": 60},
    "tracker:mlflow": {"tracking_uri": f"sqlite:///{FILES / 'mlflow.db'}"},
    "tracker:wandb": {"mode": "offline"},
}
EXPECTED_FAILURES = {
    f"tracker:{name}-writes_in_its_folder": "its package keeps all runs in a place of its own, from which it shows them"
    for name in ("trackio", "wandb")
}


@pytest.fixture(scope="module", autouse=True)
def files():
    """What the options name."""
    write_release(FILES / "release")
    (FILES / "log.json").write_text(json.dumps({"u1": ["a", "b", "a"], "u2": ["b", "c"], "u3": ["c", "a", "b", "c"]}))
    ids = check_world().store.catalogue.item_ids[1:]
    (FILES / "codes.json").write_text(json.dumps({str(item): [row % 2, row % 3] for row, item in enumerate(ids)}))
    with pytest.MonkeyPatch.context() as patch:
        for place in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR"):
            patch.setenv(place, str(FILES))
        patch.chdir(FILES)  # where MLflow's artifacts go
        yield


def reference(kind, interface=None):
    """The reference plug-ins of a kind; of encoders, those that show an interface."""
    ours = [plugin for plugin in REGISTRY.plugins(kind) if plugin.distribution == "grbench"]
    return [each for each in ours if interface is None or not missing_interfaces((interface,), each.factory)]


def checked(plugin, **options):
    singular = CheckedPlugin(REGISTRY, plugin.kind, plugin.name).id
    return CheckedPlugin(REGISTRY, plugin.kind, plugin.name, {**OPTIONS.get(singular, {}), **options})


def result_of(name, plugin):
    (check,) = (each for each in CHECKS[plugin.kind] if each.name == name)
    return run_check(check, plugin)


@parametrize_with_checks("grbench", options=OPTIONS, registry=REGISTRY, expected_failures=EXPECTED_FAILURES)
def test_reference_plugins(check):
    check()


HEADS = {"encoder": {"name": "sid_decoder", "verifier": True, "value_head": True}}


@parametrize_with_checks("encoder:sid_decoder", options={"verifier": True, "value_head": True}, registry=REGISTRY)
def test_heads_that_judge_paths(check):
    check()


@parametrize_with_checks("loss:path_verification", "loss:path_value", partners=HEADS, registry=REGISTRY)
def test_losses_of_heads(check):
    check()


@parametrize_with_checks("retriever:beam", options={"width": 60, "verify": 60}, partners=HEADS, registry=REGISTRY)
def test_a_search_that_a_verifier_guides(check):
    check()


@parametrize_with_checks(
    "retriever:beam", options={"width": 60, "value_weight": 0.1}, partners=HEADS, registry=REGISTRY
)
def test_a_search_that_a_value_head_guides(check):
    check()


@parametrize_with_checks("retriever:beam", options={"width": 60, "temperature": 1.0, "seed": 3}, registry=REGISTRY)
def test_a_search_that_draws(check):
    check()


# --- what the kit lets a plug-in leave out, and the reference does not


@pytest.mark.parametrize("tokenizer", reference("tokenizers"), ids=lambda each: each.name)
def test_memory_is_forecast_before_a_tokenizer_is_fitted(tokenizer):
    assert result_of("stand_in_has_the_same_shape", checked(tokenizer)).verdict == "passed"


@pytest.mark.parametrize("optimizer", reference("optimizers"), ids=lambda each: each.name)
def test_optimizers_train_sparse_tables(optimizer):
    assert result_of("sparse_tables", checked(optimizer)).verdict == "passed"


@pytest.mark.parametrize("metric", reference("metrics"), ids=lambda each: each.name)
def test_metrics_are_not_negative_in_the_mean(metric):
    assert checked(metric).make()(mixed(check_world())).mean() >= 0


# --- combinations of plug-ins


CONDITIONINGS = ["additive", "gate", "film", "attention_bias"]
CONDITIONED = [each for each in reference("encoders", Embedder) if "action_conditioning" in options_of(each.factory)]
TRAINED = [each for each in reference("encoders") if each.name != "most_popular"]  # which has no weights


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("encoder", CONDITIONED, ids=lambda each: each.name)
def test_half_precision_with_every_conditioning(encoder, conditioning):
    outcome = result_of("half_precision", checked(encoder, action_conditioning=conditioning))
    assert outcome.verdict == "passed", outcome.seen


@pytest.mark.parametrize("optimizer", [each.name for each in reference("optimizers")])
@pytest.mark.parametrize("encoder", TRAINED, ids=lambda each: each.name)
def test_nothing_is_kept_of_weights_that_an_optimizer_has_changed(encoder, optimizer):
    require_nothing_kept(checked(encoder), partial(REGISTRY.build, "optimizers", Component(optimizer)))
