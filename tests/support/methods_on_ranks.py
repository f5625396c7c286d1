"""A program: runs every reference encoder, loss and trainer on one process and on two, in a tiny world.

    python methods_on_ranks.py FOLDER RUN...

The last batch of an epoch has so few users that the second process has none of them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells_on_ranks import GENERATIVE, Run, run_all

from grbench.data.store import Store
from grbench.registry.component import Component
from grbench.testing import tiny_store
from grbench_reference.encoders import one_ranker
from grbench_reference.layers.fake_items import FakeItems

USERS, ITEMS, BATCH, EPOCHS = 40, 24, 16, 2
SIZE = {"width": 8, "heads": 2, "dropout": 0.0, "history_length": 6}
ALIKE = Component("infonce", {"negatives": {"uniform": 8}})
NEXT_CODE = Component("next_code", {"action_weights": {"click": 2.5}})
TRAINING = {"epochs": EPOCHS, "batch_size": BATCH}


def dense(encoder: str, *losses: Component, constant: bool = False, trainer: Any = "supervised", **options: Any) -> Run:
    """With attributes of the encoder beside those of all."""
    trainer = trainer if isinstance(trainer, Component) else Component(trainer, {})
    return Run(
        encoder=Component(encoder, {**SIZE, **options}),
        loss=losses,
        training=TRAINING,
        trainer=trainer,
        constant=constant,
    )


def generative(encoder: str, *losses: Component, constant: bool = False, **options: Any) -> Run:
    parts = {"encoder": Component(encoder, {**SIZE, **options}), "loss": losses, "training": TRAINING}
    return replace(GENERATIVE, **parts, constant=constant)


def loss(name: str, **options: Any) -> Component:
    return Component(name, options)


POLICY = {"samples": 4, "updates": 2, "kl": 0.1}
METHODS: dict[str, Run] = {
    "causal_transformer": dense("causal_transformer", ALIKE),
    "full_softmax": dense("causal_transformer", loss("full_softmax", action_weights={"click": 3.0})),
    "bce": dense("causal_transformer", loss("bce", negatives=2), constant=True),
    "bpr": dense("causal_transformer", loss("bpr", action_weights={"click": 3.0}), constant=True),
    "windows": dense("causal_transformer", ALIKE, trainer=Component("supervised", {"examples": "windows"})),
    "prefixes": dense("causal_transformer", ALIKE, trainer=Component("supervised", {"examples": "prefixes"})),
    "hstu": dense("hstu", ALIKE),
    "prism": dense("prism", ALIKE),
    "preference_memory": dense("preference_memory", ALIKE, segment=2),
    "gnn": dense("gnn", ALIKE, neighbours=[2, 2], neighbourhood_dropout=0.0, constant=True),
    "lightgcn": replace(dense("", ALIKE), encoder=Component("lightgcn", {"width": 8})),
    "one_ranker": dense(
        "one_ranker", loss("task_prediction"), loss("value_ranking", drawn=12), fake_items=3, constant=True
    ),
    "fake_items": dense("one_ranker", ALIKE, fake_items=3),
    "diffu_reason": dense(
        "diffu_reason", loss("full_softmax"), loss("denoising", action_weights={"click": 3.0}), constant=True
    ),
    "diffuse": dense(
        "diffu_reason", loss("denoising"), trainer=Component("diffuse", {**POLICY, "scale": "batch"}), constant=True
    ),
    "sid_decoder": generative("sid_decoder", NEXT_CODE, loss("next_action", action_weights={"click": 3.0}), experts=3),
    "history of codes": generative("sid_decoder", NEXT_CODE, history="codes"),
    "path heads": generative(
        "sid_decoder",
        NEXT_CODE,
        loss("path_verification", negatives=4, positions=2, action_weights={"click": 3.0}),
        loss("path_value", samples=3),
        verifier=True,
        value_head=True,
        constant=True,
    ),
    "learn_codes": replace(
        generative("sid_decoder", NEXT_CODE, learn_codes=True, coder_fields=True),
        tokenizer=Component("rq_kmeans", {"source": "cooccurrence", "width": 4, "sizes": (6, 10), "collision": "none"}),
    ),
    "lazy_decoder": generative("lazy_decoder", NEXT_CODE),
    "grpo": replace(
        generative("sid_decoder", NEXT_CODE), trainer=Component("grpo", {**POLICY, "action_weights": {"click": 2.5}})
    ),
    "siblings": replace(
        generative("sid_decoder"),
        trainer=Component(
            "grpo", {**POLICY, "advantage": "siblings", "scale": "batch", "reward": "prefix", "examples": "prefixes"}
        ),
    ),
}
RUNS = {f"{name} {devices}": replace(run, devices=devices) for name, run in METHODS.items() for devices in (1, 2)}


def world(folder: Path) -> Store:
    """Users who walk through the items; two actions, a field of the items and vectors of them."""
    walks = [
        [(1 + (7 * user + step) % ITEMS, (user + step) % 2, 100 + step) for step in range(3 + user % 6)]
        for user in range(USERS)
    ]
    vectors = np.random.default_rng(0).normal(size=(ITEMS, 5)).astype(np.float32)
    return tiny_store(
        folder,
        walks,
        num_items=ITEMS,
        item_features={"kind": [item % 5 for item in range(ITEMS)]},
        embeddings={"content": vectors},
    )


class Begun(FakeItems):
    """Whose centres have begun, at other places than events: each process would draw others."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count, width)
        self.sums.copy_(torch.linspace(-0.1, 0.1, count * width).view(count, width))
        self.counts.fill_(1)


if __name__ == "__main__":
    vars(one_ranker)["FakeItems"] = Begun
    run_all(Path(sys.argv[1]), {name: RUNS[name] for name in sys.argv[2:] or RUNS}, world)
