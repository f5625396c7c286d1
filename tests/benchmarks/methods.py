"""How each registered plug-in is benchmarked. One that is not named here is benchmarked with its default options; a
line here gives it others, or other partners, or the reason why nothing of it is timed.

A new plug-in needs nothing but `make bench-reference`, which adds its ratios to reference.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from calibration import Kind

from grbench.registry.discovery import Registry

ANCHOR = {"name": "causal_transformer", "width": 32, "blocks": 1, "heads": 1, "history_length": 100, "embeddings": [81]}
"""The challenge baseline's encoder: 101 tokens with the user's, all features, emb_81."""


SEMANTIC_IDS = {"name": "rq_kmeans", "sizes": [64, 64, 64]}
DECODING = {"encoder": {"name": "sid_decoder", "next_action": True}, "tokenizer": SEMANTIC_IDS}
JUDGING = {"encoder": {"name": "sid_decoder", "verifier": True, "value_head": True}, "tokenizer": SEMANTIC_IDS}
RANKING = {"name": "one_ranker", "width": 32, "blocks": 1, "heads": 1, "tokens_per_task": 1, "embeddings": [81]}


@dataclass(frozen=True)
class Case:
    """options: of the plug-in; parts: batch_size and partners, as `versus` takes them; like: the kinds of work that it
    consists of, where they are others than those of its kind of plug-in; skip: why it is not timed."""

    options: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    like: tuple[Kind, ...] = ()
    skip: str | None = None


LIKE: dict[str, tuple[Kind, ...]] = {
    "protocols": ("memory", "sort"),
    "tokenizers": ("compute", "memory"),
    "encoders": ("compute", "memory"),
    "losses": ("compute", "memory"),
    "trainers": ("compute", "memory"),
    "optimizers": ("compute", "memory"),
    "retrievers": ("compute", "memory"),
    "metrics": ("memory",),
}
"""The kinds of work that plug-ins of each kind consist of."""

CASES: dict[str, dict[str, Case]] = {
    "tokenizers": {
        "ids": Case(like=("memory",)),
        "rq_kmeans": Case({"sizes": [64, 64, 64]}),
        "uni_sid": Case({"sizes": [64, 64, 64], "coder_widths": [32], "steps": 20}),
        "rq_vae": Case({"sizes": [64, 64, 64], "widths": [32, 8], "steps": 20}),
        "codes_file": Case(skip="it reads a file that comes with a dataset"),
    },
    "encoders": {
        "causal_transformer": Case(ANCHOR, {"loss": {"name": "bce", "negatives": 1}}),
        "hstu": Case(
            {"width": 32, "blocks": 1, "history_length": 100, "embeddings": [81]},
            {"loss": {"name": "bce", "negatives": 1}},
        ),
        "prism": Case({"width": 32, "blocks": 1, "embeddings": [81]}, {"loss": {"name": "bce", "negatives": 1}}),
        "diffu_reason": Case(
            {"width": 32, "blocks": 1, "embeddings": [81]}, {"loss": {"name": "bce", "negatives": 1}, "batch_size": 64}
        ),
        "preference_memory": Case(
            {"width": 32, "blocks": 1, "heads": 1, "embeddings": [81]}, {"loss": {"name": "bce", "negatives": 1}}
        ),
        "one_ranker": Case(
            {"width": 32, "blocks": 1, "heads": 1, "tokens_per_task": 1, "embeddings": [81]},
            {"loss": {"name": "bce", "negatives": 1}, "batch_size": 64},
        ),
        "lazy_decoder": Case(parts={"loss": "next_code", "tokenizer": SEMANTIC_IDS, "batch_size": 64}),
        "sid_decoder": Case(parts={"loss": "next_code", "tokenizer": SEMANTIC_IDS, "batch_size": 64}),
        "gnn": Case({**ANCHOR, "name": "gnn"}, {"loss": {"name": "bce", "negatives": 1}}),
        "lightgcn": Case(parts={"loss": {"name": "bce", "negatives": 1}}),
        "most_popular": Case(skip="it has nothing to learn"),
    },
    "losses": {
        "bce": Case(parts={"batch_size": 128}),
        "bpr": Case(skip="it is bce but for what becomes of the logits"),
        "infonce": Case(parts={"batch_size": 128}),
        "denoising": Case(parts={"encoder": "diffu_reason", "batch_size": 128}),
        "next_code": Case(parts={**DECODING, "batch_size": 64}),
        "next_action": Case(parts={**DECODING, "batch_size": 64}),
        "path_verification": Case(parts={**JUDGING, "batch_size": 64}),
        "path_value": Case(parts={**JUDGING, "batch_size": 64}),
        "task_prediction": Case(parts={"encoder": RANKING, "batch_size": 64}),
        "value_ranking": Case(parts={"encoder": RANKING, "batch_size": 64}),
        # Every position against 100,000 items, whose features would take longer than the loss itself.
        "full_softmax": Case(parts={"batch_size": 8, "encoder": {**ANCHOR, "item_features": False, "embeddings": []}}),
    },
    "trainers": {
        "grpo": Case(parts={**DECODING, "loss": "next_code", "batch_size": 64}),
        "diffuse": Case(parts={"encoder": "diffu_reason", "loss": "denoising", "batch_size": 64}),
    },
    "retrievers": {
        "faiss": Case({"index": "IVF256,Flat", "search": {"nprobe": 8}}),
        "beam": Case(parts=DECODING),
        "beam_rerank": Case(parts=DECODING),
        "retrieve_rank": Case(parts={"encoder": RANKING}),
    },
    "metrics": {"coverage": Case(like=("sort",))},  # distinct items
}


def cases(kind: str) -> list[Any]:
    """A pytest parameter for each reference plug-in of the kind: (plug-in with options, parts, kinds of work)."""
    registry, parameters = Registry.load(), []
    for name in registry.names(kind):
        if registry.origin(kind, name)[0] != "grbench":  # a stranger's plug-in is benchmarked by its own tests
            continue
        case = CASES.get(kind, {}).get(name, Case())
        marks = [pytest.mark.skip(reason=case.skip)] if case.skip else []
        plugin, like = {"name": name, **case.options}, case.like or LIKE[kind]
        parameters.append(pytest.param(plugin, case.parts, like, id=name, marks=marks))
    return parameters
