"""Reference plug-ins of all families pass all audits, and the sizes of a method are cut to be audited in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from audited import audited, cell_of, results_of

from grbench.audit.cut_sizes import audited_size
from grbench.audit.world import cut_down, made_up_store, open_world
from grbench.registry.component import Component
from grbench.registry.discovery import Registry

WIDE = {
    "encoder": {
        "name": "hstu",
        "width": 512,
        "blocks": 1,
        "heads": 2,
        "action_conditioning": ["gate", "film", "attention_bias"],
        "next_action": ["click"],
        "time_features": ["hour", "weekday", "day", "gap", "request", "session", "cross_day", "fourier"],
        "popularity_windows": [1, 7],
        "item_dates": True,
        "hashed_ids": [2000003, 3000017],
    },
    "loss": {"name": "infonce", "negatives": {"uniform": 32, "in_batch": True, "bank": 1024}, "logq": "negatives"},
    "filters": ["history"],
}
METHODS: dict[str, dict[str, Any]] = {
    "popular": {"encoder": "most_popular"},
    "dense": WIDE,
    "generative": {
        "tokenizer": {"name": "rq_kmeans", "source": "cooccurrence", "width": 8, "sizes": [24, 24]},
        "encoder": {"name": "sid_decoder", "width": 16, "history": "codes", "blocks": 1, "next_action": True},
        "loss": ["next_code", "next_action"],
        "retriever": {"name": "beam", "width": 8},
    },
    "verified": {
        "tokenizer": {"name": "rq_kmeans", "source": "cooccurrence", "width": 8, "sizes": [24, 24]},
        "encoder": {"name": "sid_decoder", "width": 16, "blocks": 1, "verifier": True},
        "loss": ["next_code", {"name": "path_verification", "negatives": 8, "positions": 2}],
        "retriever": {"name": "beam", "width": 8, "verify": 32, "rank_weight": 0.5},
    },
    "valued": {
        "tokenizer": {"name": "rq_kmeans", "source": "cooccurrence", "width": 8, "sizes": [24, 24]},
        "encoder": {"name": "sid_decoder", "width": 16, "blocks": 1, "value_head": True},
        "loss": ["next_code", {"name": "path_value", "samples": 4}],
        "retriever": {"name": "beam", "width": 8, "value_weight": 0.1},
    },
    "drawn": {
        "tokenizer": {"name": "rq_kmeans", "source": "cooccurrence", "width": 8, "sizes": [24, 24]},
        "encoder": {"name": "sid_decoder", "width": 16, "blocks": 1},
        "loss": "next_code",
        "retriever": {"name": "beam", "width": 16, "temperature": 1.0},
    },
    "recurrent": {"encoder": {"name": "prism", "width": 16, "blocks": 1}, "loss": "full_softmax"},
    "memory": {
        "encoder": {"name": "preference_memory", "width": 16, "blocks": 1, "segment": 3, "memories": 2},
        "loss": "full_softmax",
    },
    "ranked": {
        "encoder": {"name": "one_ranker", "width": 16, "blocks": 1, "tokens_per_task": 1, "fake_items": 4},
        "loss": ["task_prediction", {"name": "value_ranking", "places": 4}],
        "retriever": {"name": "retrieve_rank", "items": 20},
    },
    "lazy": {
        "tokenizer": {"name": "rq_kmeans", "source": "cooccurrence", "width": 8, "sizes": [24, 24]},
        "encoder": {"name": "lazy_decoder", "width": 16, "blocks": 1, "action_conditioning": "attention_bias"},
        "loss": "next_code",
        "trainer": {"name": "supervised", "examples": "prefixes"},
        "retriever": {"name": "beam", "width": 8},
    },
    "reinforced": {
        "tokenizer": {"name": "rq_kmeans", "source": "cooccurrence", "width": 8, "sizes": [24, 24]},
        "encoder": {"name": "sid_decoder", "width": 16, "blocks": 1},
        "retriever": {"name": "beam", "width": 8, "softmax": "tree"},
        "stages": [
            {"name": "supervised", "loss": {"name": "next_code", "softmax": "tree"}},
            {"name": "reinforced", "trainer": {"name": "grpo", "samples": 4, "reward": "prefix"}},
        ],
    },
    "diffused": {
        "encoder": {"name": "diffu_reason", "width": 16, "blocks": 1, "steps": 2},
        "loss": [{"name": "full_softmax", "temperature": 0.1}, "denoising"],
        "trainer": {"name": "diffuse", "samples": 4},
    },
    "codes_learnt_on": {
        "tokenizer": {"name": "uni_sid", "sizes": [8, 8], "coder_widths": [8], "steps": 20, "collision": "none"},
        "encoder": {"name": "sid_decoder", "width": 16, "blocks": 1, "learn_codes": True, "coder_widths": [8]},
        "loss": "next_code",
        "retriever": {"name": "beam", "width": 8},
    },
    "learnt_codes": {
        "tokenizer": {
            **{"name": "rq_vae", "source": "cooccurrence", "width": 8, "sizes": [8, 8], "widths": [8, 4]},
            **{"steps": 20, "restart_every": 5, "missing": "neighbours"},
        },
        "encoder": {"name": "sid_decoder", "width": 16, "blocks": 1},
        "loss": "next_code",
        "retriever": {"name": "beam", "width": 8},
    },
    "graph": {
        "encoder": {"name": "gnn", "width": 16, "neighbours": [3, 2], "positions": "learned_from_end"},
        "loss": "full_softmax",
        "retriever": {"name": "faiss", "index": "Flat"},
    },
    "lightgcn": {"encoder": {"name": "lightgcn", "width": 8}, "loss": "bpr"},
}
LOOKS_AHEAD = {"dense": "the action of the next event", "graph": "how many events", "generative": "the action of"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.mark.parametrize("name", METHODS)
def test_all_audits_pass(registry: Registry, tmp_path: Path, name: str) -> None:
    results = results_of(audited(registry, tmp_path, METHODS[name]))
    assert {
        audit: (result.verdict, result.detail) for audit, result in results.items() if result.verdict != "pass"
    } == {}
    detail = results["causality"].detail
    assert ("as declared" in detail) == (name in LOOKS_AHEAD)
    assert LOOKS_AHEAD.get(name, "") in detail


def test_sizes_are_cut_and_named(registry: Registry, tmp_path: Path) -> None:
    method = cell_of(
        registry, tmp_path, {**WIDE, "training": {"epochs": 9, "batch_size": 512, "precision": "bf16"}}
    ).method
    cut, cuts = audited_size(method, registry, full_size=False)
    assert cuts["encoder.width"] == [512, 64]
    assert cuts["encoder.hashed_ids"] == [[2000003, 3000017], [128, 127]]
    assert cuts["loss.negatives"][1] == {"uniform": 32, "in_batch": True, "bank": 64}
    assert cut.encoder.options["heads"] == 2
    assert (cut.stages[0].training["epochs"], cut.stages[0].training["batch_size"]) == (1, 32)
    assert cut.stages[0].training["precision"] == "fp32"
    whole, none = audited_size(method, registry, full_size=True)
    assert none == {}
    assert whole.encoder == method.encoder
    assert whole.stages[0].training["epochs"] == 1


def test_users_and_their_oldest_events_are_left_out(tmp_path: Path) -> None:
    store = made_up_store(tmp_path)
    small = cut_down(store, users=50, events=4)
    assert small.catalogue.num_users == len(small.offsets) - 1 == 50
    assert small.catalogue.num_items == store.catalogue.num_items
    for row, user in enumerate(small.catalogue.user_ids):
        place = int((store.catalogue.user_ids == user).argmax())
        end = store.offsets[place + 1]
        newest = slice(max(store.offsets[place], end - 4), end)
        own = slice(small.offsets[row], small.offsets[row + 1])
        assert (small.items[own] == store.items[newest]).all()
        assert (small.times[own] == store.times[newest]).all()
        assert (small.catalogue.user_features.values[row] == store.catalogue.user_features.values[place]).all()


def test_a_dataset_says_what_stands_in_for_it(registry: Registry, tmp_path: Path) -> None:
    absent = Component("tencentgr", {"path": str(tmp_path / "absent"), "actions": 2})
    world = open_world(absent, registry, tmp_path / "cache", own_data=False)
    assert not world.own
    assert world.description == "tencentgr_synthetic, as tencentgr says"
    assert world.store.catalogue.actions == ("exposure", "click")
    assert "103" in [field.name for field in world.store.catalogue.user_features.fields]
    log = Component("interactions", {"path": str(tmp_path / "absent")})
    assert open_world(log, registry, tmp_path, own_data=False).description == "made up"
