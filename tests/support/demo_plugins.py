"""A stranger's plug-ins, small enough to read: what the tests of suites, registry and digests compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from grbench.hookspecs import hookimpl
from grbench.interfaces import Decoder, Embedder
from grbench.registry.discovery import Registry

if TYPE_CHECKING:
    from grbench.data.training_data import TrainingData
    from grbench.types import Codes


class Table:
    """A dataset.

    Args:
        path: where it lies
        size: rows
    """

    def __init__(self, *, path: Path = Path("data/demo"), size: int = 10) -> None: ...


class Ids:
    def fit(self, data): ...


class Dense:
    """Puts histories and items into one space.

    Args:
        width: numbers a vector
        dropout: share of activations
            set to zero
    """

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        width: Annotated[int, Field(gt=0)] = 32,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0,
        norm: Literal["layer", "rms"] = "layer",
    ) -> None: ...

    def embed(self, batch, items): ...
    def embed_histories(self, batch): ...
    def embed_items(self, items): ...


class Generative:
    def __init__(self, data: TrainingData, codes: Codes, *, layers: int = 1) -> None: ...

    def code_logits(self, batch): ...
    def start(self, batch): ...
    def step(self, codes, state): ...


def generative(data: TrainingData, codes: Codes, *, layers: int = 2) -> Generative:
    return Generative(data, codes, layers=layers)


class Contrastive:
    needs: ClassVar[tuple[type, ...]] = (Embedder,)

    def __init__(
        self,
        data: TrainingData,
        codes: Codes,
        *,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        negatives: dict[str, int] = {"uniform": 128},  # noqa: B006 - read, never written
    ) -> None: ...


class NextCode:
    needs: ClassVar[tuple[type, ...]] = (Decoder,)

    def __init__(self, data: TrainingData, codes: Codes) -> None: ...


class Exact:
    needs: ClassVar[tuple[type, ...]] = (Embedder,)


class Beam:
    needs: ClassVar[tuple[type, ...]] = (Decoder,)

    def __init__(self, *, beams: int = 20) -> None: ...


class Hits:
    higher_is_better = True

    def __init__(self, *, k: int, alpha: float = 1.0) -> None:
        if k < 1:
            raise ValueError("k: should be at least 1")
        self.name = f"hits@{k}" if alpha == 1 else f"hits(alpha={alpha})@{k}"

    def __call__(self, ranking): ...


class Supervised:
    def __init__(self, *, examples: Literal["newest", "windows"] = "newest") -> None: ...

    def step(self, state, batch): ...


class OwnTrainer:
    def step(self, state, batch): ...


def adam(module, *, lr: float = 0.001) -> list: ...


def sgd(module, *, lr: float = 0.1, momentum: float = 0.0) -> list: ...


class Log:
    def __init__(self, *, every: int = 1) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a method is trained.

    Args:
        epochs: passes over the training events
    """

    epochs: int = 10
    batch_size: int = 512
    workers: int = 1
    validate_every: int = 0
    select: str = "hits@10"


class DemoPlugins:
    @hookimpl
    def register_datasets(self, register):
        register("table", Table)

    @hookimpl
    def register_protocols(self, register):
        register("last_positive", "grbench_reference.protocols.last_positive:LastPositive")
        register("leave_last_out", "grbench_reference.protocols.leave_last_out:LeaveLastOut")

    @hookimpl
    def register_tokenizers(self, register):
        register("ids", Ids)

    @hookimpl
    def register_encoders(self, register):
        register("dense", "demo_plugins:Dense")
        register("generative", generative)
        register("lost", "demo_plugins_that_are_not_there:Encoder")

    @hookimpl
    def register_losses(self, register):
        register("contrastive", Contrastive)
        register("next_code", NextCode)

    @hookimpl
    def register_retrievers(self, register):
        register("exact", Exact)
        register("exact_too", Exact)
        register("beam", Beam)

    @hookimpl
    def register_metrics(self, register):
        register("hits", Hits)

    @hookimpl
    def register_trainers(self, register):
        register("supervised", Supervised)
        register("own", OwnTrainer)

    @hookimpl
    def register_optimizers(self, register):
        register("adam", adam)
        register("sgd", sgd)

    @hookimpl
    def register_trackers(self, register):
        register("log", Log)


def demo_registry() -> Registry:
    registry = Registry()
    registry.add("demo", "demo-plugins", "1.2", DemoPlugins)
    return registry


SUITE = """
suite: demo
title: A demonstration
dataset: {{name: table, size: 10}}
protocol: leave_last_out
metrics: [hits@10]
seeds: [0, 1]
defaults: {{training: {{batch_size: 64}}}}
methods: {methods}
"""
METHODS = """
  a: {encoder: dense, loss: contrastive}
  b: {encoder: generative, loss: [{name: next_code}], retriever: {name: beam, beams: 3}}
"""


def write_suite(tmp_path: Path, text: str = "", methods: str = METHODS) -> Path:
    """A suite of these plug-ins: `text`, or the usual one with these methods."""
    path = tmp_path / "x.yaml"
    path.write_text(text or SUITE.format(methods=methods))
    return path
