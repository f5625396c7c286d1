"""A program: trains small methods, and says after every step what the training has come to.

    python resumable.py FOLDER           trains each method to its end, and saves checkpoints in FOLDER on the way
    python resumable.py FOLDER --resume  goes on from each of them, in a process that has seen nothing of the training

Either writes FOLDER/whole.json or FOLDER/resumed.json: {run: {"steps": [hash of the state after each step and epoch],
"end": hash of the encoder, "curve": rows}}.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learnt_codes import LearntCodes, Mixture, RoundRobin
from policy_gradient import PolicyGradient
from torch import nn

from grbench import hookimpl
from grbench.checkpoint.file import read_file, write_file
from grbench.cost.meter import Meter
from grbench.cost.monitor import no_report
from grbench.interfaces import Loss
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.suite.method import Method, Stage
from grbench.suite.suite import Cell
from grbench.testing import tiny_store
from grbench.training.stages import assemble, learn
from grbench.types import Codes
from grbench_reference.protocols.leave_last_out import LeaveLastOut

ITEMS, USERS, EVENTS = 12, 22, 9
SIZES = (3, 4)
CHECKPOINTS = {0: 5, 1: 17}  # after so many steps and epochs: in the first epoch and in the third, of six steps each
MEASURED = ("users_per_second", "events_per_second")


class Averaging(torch.optim.SGD):
    """Takes its steps from the last point, and is evaluated at the mean of all points, as schedule-free ones are."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.param_groups[0] |= {"training": True, "steps": 0}

    def step(self, closure: Any = None) -> None:
        (group,) = self.param_groups
        assert group["training"], "a step in evaluation mode"
        super().step()
        group["steps"] += 1
        for parameter in group["params"]:
            mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
            mean.lerp_(parameter.detach(), 1 / group["steps"])

    def train(self) -> None:
        self._switch(True)

    def eval(self) -> None:
        self._switch(False)

    @torch.no_grad()
    def _switch(self, training: bool) -> None:
        (group,) = self.param_groups
        if group["training"] == training or not group["steps"]:
            return
        group["training"] = training
        for parameter in group["params"]:
            state = self.state[parameter]
            if training:
                parameter.copy_(state.pop("last"))
            else:
                state["last"] = parameter.clone()
                parameter.copy_(state["mean"])


def averaging(module: nn.Module, *, lr: float = 0.1) -> list[torch.optim.Optimizer]:
    return [Averaging([each for each in module.parameters() if each.requires_grad], lr)]


class Noisy(nn.Module, Loss):
    """Draws from every generator, and counts its steps in a buffer that survives its stage."""

    needs = ()
    steps: torch.Tensor

    def __init__(self, data: Any, codes: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def survives(self) -> tuple[str, ...]:
        return ("steps",)

    def forward(self, encoder: Any, batch: Any) -> dict[str, torch.Tensor]:
        self.steps += 1
        noise = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002 - a plug-in may
        return {"noise": (self.scale * noise).square() / self.steps}


class OwnPlugins:
    @hookimpl
    def register_encoders(self, register: Any) -> None:
        register("learnt_codes", LearntCodes)

    @hookimpl
    def register_losses(self, register: Any) -> None:
        register("mixture", Mixture)
        register("noisy", Noisy)

    @hookimpl
    def register_optimizers(self, register: Any) -> None:
        register("averaging", averaging)

    @hookimpl
    def register_trainers(self, register: Any) -> None:
        register("policy_gradient", PolicyGradient)


def losses(*named: str | tuple[str, dict[str, Any]]) -> tuple[tuple[Component, float], ...]:
    pairs = [(each, {}) if isinstance(each, str) else each for each in named]
    return tuple((Component(name, options), 1.0) for name, options in pairs)


def stage(
    *used: Any,
    name: str = "",
    targets: Any = None,
    trainer: Any = "supervised",
    optimizer: Any = "adam",
    **training: Any,
) -> Stage:
    options = {"epochs": 6, "batch_size": 4, "workers": 0} | training
    parts = [part if isinstance(part, tuple) else (part, {}) for part in (trainer, optimizer)]
    return Stage(name, targets, losses(*used), *(Component(*part) for part in parts), options)


TRANSFORMER = ("causal_transformer", {"width": 8, "heads": 2, "dropout": 0.3, "history_length": 4})
SPARSE = ("causal_transformer", {**TRANSFORMER[1], "sparse": True})
DECODER = ("sid_decoder", {"width": 8, "heads": 2, "dropout": 0.1, "history_length": 4})
HEADED = ("sid_decoder", {**DECODER[1], "verifier": True, "value_head": True})
PRISM = ("prism", {"width": 8, "dropout": 0.3, "history_length": 4})
MEMORY = ("preference_memory", {"width": 8, "dropout": 0.3, "history_length": 4, "segment": 2})
RANKER = ("one_ranker", {"width": 8, "dropout": 0.1, "history_length": 4, "tokens_per_task": 1, "fake_items": 3})
LAZY = ("lazy_decoder", {"width": 8, "dropout": 0.1, "history_length": 4})
DIFFUSED = ("diffu_reason", {"width": 8, "blocks": 1, "dropout": 0.1, "history_length": 4, "steps": 2})
BANK = ("infonce", {"negatives": {"uniform": 4, "bank": 16}})
CHOSEN = {"validate_every": 1, "select": "ndcg@3"}
MUON = ("muon", {"tables": "rowwise_adagrad"})
AVERAGING = {"optimizer": ("averaging", {"lr": 0.1}), **CHOSEN}

METHODS: dict[str, tuple[Any, list[Stage]]] = {
    "dense": (TRANSFORMER, [stage("infonce", "noisy", schedule="cosine", warmup_steps=3)]),
    "two workers": (TRANSFORMER, [stage("infonce", workers=2)]),
    "windows": (TRANSFORMER, [stage("bce", trainer=("supervised", {"examples": "windows"}))]),
    "validated": (TRANSFORMER, [stage("infonce", patience=5, **CHOSEN)]),
    "averaging": (TRANSFORMER, [stage("full_softmax", **AVERAGING)]),
    "accumulating": (SPARSE, [stage("infonce", accumulate=4, clip_norm=0.5)]),
    "half": (TRANSFORMER, [stage("full_softmax", accumulate=2, precision="fp16")]),
    "two optimizers": (SPARSE, [stage("infonce", optimizer=MUON)]),
    "generative": (DECODER, [stage("next_code", BANK)]),
    "judged": (HEADED, [stage("next_code", ("path_verification", {"negatives": 4}), ("path_value", {"samples": 3}))]),
    "recurrent": (PRISM, [stage("infonce")]),
    "memory": (MEMORY, [stage("infonce")]),
    "ranked": (RANKER, [stage("task_prediction", "value_ranking")]),
    "lazy": (LAZY, [stage("next_code")]),
    "two stages": (
        DECODER,
        [
            stage("next_code", "noisy", name="codes", targets=("exposure",), epochs=2, **CHOSEN),
            stage("next_code", BANK, "noisy", name="both", epochs=4, optimizer=("adamw", {}), schedule="linear"),
        ],
    ),
    "learnt codes": (
        ("learnt_codes", {}),
        [
            stage("mixture", name="first", epochs=2, optimizer=("adam", {"lr": 0.1})),
            stage("mixture", name="second", epochs=4),
        ],
    ),
    "reinforced": (
        DECODER,
        [
            stage("next_code", name="supervised", epochs=2),
            stage(name="reinforced", epochs=4, trainer="policy_gradient", clip_norm=1.0),
        ],
    ),
    "sampled": (
        DECODER,
        [
            stage("next_code", name="supervised", epochs=2),
            stage(name="reinforced", epochs=4, trainer=("grpo", {"samples": 4, "updates": 2, "kl": 0.1}), **CHOSEN),
        ],
    ),
    "diffused": (
        DIFFUSED,
        [
            stage("full_softmax", "denoising", name="supervised", epochs=2),
            stage("denoising", name="reinforced", epochs=4, trainer=("diffuse", {"samples": 4, "kl": 0.1})),
        ],
    ),
}


def trained(name: str, folder: Path, resume: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Trains a method; without `resume` from its start, saving checkpoints in the folder."""
    (encoder, options), stages = METHODS[name]
    walks = [[(1 + (3 * user + step) % ITEMS, step % 2, 100 + step) for step in range(EVENTS)] for user in range(USERS)]
    split = LeaveLastOut().split(tiny_store(folder / "store", walks, num_items=ITEMS))
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002 - as a cell does
    registry = Registry.load()
    registry.add("own", "own", "1", OwnPlugins)
    retriever = Component("beam", {"width": 3}) if encoder in ("sid_decoder", "lazy_decoder") else Component("exact")
    parts = Component("ids"), Component(encoder, options), retriever, tuple(stages), (), ()
    metrics = (Component("ndcg", {"k": 3}),)
    cell = Cell("s", Component("tiny"), Component("leave_last_out"), metrics, Method(name, *parts), 7)
    places = torch.arange(ITEMS + 1)
    codes = Codes(torch.stack([(places - 1) // SIZES[1], (places - 1) % SIZES[1]], 1).clamp(min=0), SIZES)
    if encoder == "learnt_codes":
        codes = RoundRobin(clusters=3).fit(split.training)
    method = assemble(cell, registry, split, codes, "cpu")
    said: list[str] = []

    def checkpoint(state: Any) -> None:
        saved = state.state_dict()
        said.append(hashed(saved))
        for number, at in CHECKPOINTS.items():
            if resume is None and len(said) == at:
                write_file(folder / f"{name} {number}.safetensors", "checkpoint", {}, saved)

    result = learn(
        cell,
        registry,
        method,
        split,
        device="cpu",
        report=no_report,
        meter=Meter("cpu"),
        checkpoint=checkpoint,
        resume=resume,
    )
    curve = [{key: value for key, value in row.items() if key not in MEASURED} for row in result.curve]
    return {
        "steps": said,
        "end": hashed(method.encoder.state_dict()),
        "curve": curve,
        "facts": [result.epochs_run, result.steps_run, result.best_epoch, result.best_score, result.flops_per_step],
    }


def hashed(value: Any) -> str:
    """sha256 over all that a state holds, but how fast it was."""
    digest = hashlib.sha256()
    add_to(digest, value)
    return digest.hexdigest()


def add_to(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key not in (*MEASURED, "steps_per_second", "warm_up_steps"):
                digest.update(str(key).encode())
                add_to(digest, each)
    elif isinstance(value, list | tuple):
        for each in value:
            add_to(digest, each)
    elif isinstance(value, torch.Tensor) and value.is_sparse:
        add_to(digest, [value._indices(), value._values(), value.is_coalesced()])
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.detach().contiguous().numpy().tobytes())
    else:
        digest.update(repr(value).encode())


def main(folder: Path, *, resume: bool) -> None:
    torch.set_num_threads(1)
    found = {}
    for name in METHODS:
        if not resume:
            found[name] = trained(name, folder)
            continue
        for number in CHECKPOINTS:
            _, saved = read_file(folder / f"{name} {number}.safetensors", "checkpoint")
            found[f"{name} {number}"] = trained(name, folder, saved)
    (folder / ("resumed.json" if resume else "whole.json")).write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), resume="--resume" in sys.argv)
