"""A package of plug-ins that leak, each in its own way, beside some that look as if they did. It is also copied to
where a test wants it installed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from grbench import DataFile, hookimpl
from grbench.data.histories import Histories
from grbench.data.training_data import TrainingData
from grbench.interfaces import Embedder, Retriever, Tokenizer
from grbench.types import Codes, TopK
from grbench_reference.encoders.sid_decoder import SIDDecoder
from grbench_reference.metrics.hit_rate import HitRate
from grbench_reference.protocols.last_positive import LastPositive
from grbench_reference.protocols.leave_last_out import LeaveLastOut

WIDTH = 16


def counts_of_the_whole_store(data):
    """What `data.item_counts()` would be if nothing were held out."""
    return np.bincount(data._histories._items, minlength=data.catalogue.num_items + 1)


# --- protocols


class TrainsOnTargets(LeaveLastOut):
    def split(self, store):
        split = super().split(store)
        users = split.training.users
        whole = Histories(store, users, np.asarray(store.offsets[users]), np.asarray(store.offsets[users + 1]))
        return dataclasses.replace(split, training=TrainingData(store.catalogue, whole))


class TrainsAfterCutoff(LastPositive):
    """Leaves the target out, and trains on what the user did then."""

    def split(self, store):
        split = super().split(store)
        users = split.test.users
        starts, stops = split.test.histories._stops + 1, np.asarray(store.offsets[users + 1])
        return dataclasses.replace(
            split, training=TrainingData(store.catalogue, Histories(store, users, starts, stops))
        )


class RanksTargets(LeaveLastOut):
    """The pool is the items that are a target, and a few more."""

    def split(self, store):
        split = super().split(store)
        return dataclasses.replace(split, candidates=np.union1d(split.test.targets, np.arange(1, 40)))


# --- tokenizers


class CountingTokenizer(Tokenizer):
    def fit(self, data):
        return codes_by(counts_of_the_whole_store(data))


class ReadingTokenizer(Tokenizer):
    def __init__(self, *, source: str) -> None:
        self.source = source

    def fit(self, data):
        Path(self.source).read_bytes()
        return codes_by(data.item_counts())


class DeclaringTokenizer(ReadingTokenizer):
    def __init__(self, *, source: DataFile) -> None:
        super().__init__(source=str(source))


class OwnFilesTokenizer(Tokenizer):
    """Reads what it has written itself."""

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder) / "scratch"

    def fit(self, data):
        self.folder.mkdir(exist_ok=True)
        np.save(self.folder / "counts.npy", data.item_counts())
        return codes_by(np.load(self.folder / "counts.npy"))


class ForeignTokenizer(Tokenizer):
    """Its file is of other data."""

    def __init__(self, *, source: DataFile) -> None:
        self.source = Path(source)

    def fit(self, data):
        raise FileNotFoundError(2, "No such file", str(self.source))


def codes_by(counts):
    table = torch.from_numpy(counts % 64).long().unsqueeze(1)
    table[0] = 0
    return Codes(table, (64,))


# --- encoders


class Vectors(nn.Module):
    """A state is the sum of the vectors of the events so far; subclasses add what they must not know."""

    history_length = 6

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__()
        self.items = nn.Embedding(data.catalogue.num_items + 1, WIDTH, padding_idx=0)
        self.actions = nn.Embedding(len(data.catalogue.actions) + 2, WIDTH)

    def states(self, batch):
        return self.items(batch.items).cumsum(1)

    def embed(self, batch, items):
        return self.states(batch), self.embed_items(items)

    def embed_histories(self, batch):
        return self.states(batch)[:, -1]

    def embed_items(self, items):
        return self.items(items)


class CountingEncoder(Vectors):
    counts: Tensor

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__(data, codes)
        self.register_buffer("counts", torch.from_numpy(counts_of_the_whole_store(data)).float())

    def embed_items(self, items):
        return self.items(items) + self.counts[items].unsqueeze(1)


class Clairvoyant(Vectors):
    """Looks up in the store which event comes two after the training events of a user, the target of leave_last_out."""

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__(data, codes)
        self.events, self.places = data._histories._items, np.full(data.catalogue.num_users, -1)
        self.places[data.users] = data._histories._stops + 1

    def embed_histories(self, batch):
        known = self.events[self.places[batch.users.numpy()]].astype(np.int64)
        return 50 * self.items(torch.from_numpy(known))


class Bidirectional(Vectors):
    def states(self, batch):
        return self.items(batch.items).sum(1, keepdim=True).expand(-1, batch.items.shape[1], -1)


class SeesTargets(Vectors):
    def states(self, batch):
        return super().states(batch) + self.items(batch.targets)


class SeesFirstTime(Vectors):
    """Predicts the first event from its own time."""

    def predicts_first_event(self):
        return True

    def states(self, batch):
        hour = batch.user_times % 86_400 / 86_400
        token = hour[:, None, None].expand(-1, 1, WIDTH)
        return torch.cat([token, super().states(batch)], 1)


class TellsNextAction(Vectors):
    def states(self, batch):
        return super().states(batch) + self.actions(batch.next_actions)


class DeclaresNextAction(TellsNextAction):
    def looks_ahead(self):
        return ("next_action",)


class TellsEventsLeft(Vectors):
    def states(self, batch):
        left = torch.arange(batch.items.shape[1]).flip(0)
        return super().states(batch) + left[None, :, None]


class DeclaresEventsLeft(TellsEventsLeft):
    def looks_ahead(self):
        return ("events_left",)


class DeclaresNonsense(Vectors):
    def looks_ahead(self):
        return ("everything",)


class TaughtTooMuch(SIDDecoder):
    """Its first code knows the whole target."""

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__(data, codes, width=8, blocks=1, heads=1)
        self.table = codes.table

    def code_logits(self, batch):
        first, *others = super().code_logits(batch)
        targets = batch.all_targets.reshape(-1)
        known = self.table[targets[targets > 0], 0]
        return [first + nn.functional.one_hot(known, first.shape[1]), *others]


class ReadingEncoder(Vectors):
    def __init__(self, data: TrainingData, codes: Codes, *, source: str) -> None:
        super().__init__(data, codes)
        os.close(os.open(source, os.O_RDONLY))


class Raises(Vectors):
    def __init__(self, data: TrainingData, codes: Codes) -> None:
        raise ValueError("deliberate")


class EndsItsProcess(Vectors):
    def __init__(self, data: TrainingData, codes: Codes) -> None:
        os._exit(3)


# --- losses, retrievers, metrics


class CountingLoss(nn.Module):
    """A softmax corrected by how often items occur anywhere."""

    needs: ClassVar[tuple[type, ...]] = (Embedder,)
    logq: Tensor

    def __init__(self, data: TrainingData, codes: Codes) -> None:
        super().__init__()
        self.register_buffer("logq", torch.from_numpy(counts_of_the_whole_store(data) + 1.0).float().log())

    def forward(self, encoder, batch):
        states, vectors = encoder.embed(batch, torch.arange(len(self.logq)))
        logits = states[:, -batch.items.shape[1] :] @ vectors.T - self.logq
        return {"softmax": nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=0)}


class ReadingLoss(CountingLoss):
    def __init__(self, data: TrainingData, codes: Codes, *, source: str) -> None:
        super().__init__(data, codes)
        self.source = source

    def forward(self, encoder, batch):
        with open(self.source) as file:
            file.read()
        return super().forward(encoder, batch)


class Restless(Retriever):
    """Lists other items each time."""

    needs: ClassVar[tuple[type, ...]] = ()

    def index(self, encoder, candidates, codes):
        self.candidates = candidates

    def search(self, encoder, batch, k):
        order = np.random.default_rng(int.from_bytes(os.urandom(4))).permutation(len(self.candidates))[:k]
        users = len(batch.users)
        items = self.candidates[torch.from_numpy(order)].expand(users, -1)
        return TopK(items, -torch.arange(k).float().expand(users, -1))


class UpsideDown(HitRate):
    """Takes many hits for bad."""

    higher_is_better = False


class ReadingMetric(HitRate):
    def __init__(self, *, k: int, source: str) -> None:
        super().__init__(k=k)
        self.source = source

    def __call__(self, ranking):
        np.loadtxt(self.source)
        return super().__call__(ranking)


PLUGINS = {
    "protocols": (TrainsOnTargets, TrainsAfterCutoff, RanksTargets),
    "tokenizers": (CountingTokenizer, ReadingTokenizer, DeclaringTokenizer, OwnFilesTokenizer, ForeignTokenizer),
    "encoders": (
        *(Vectors, CountingEncoder, Clairvoyant, Bidirectional, SeesTargets, SeesFirstTime, TellsNextAction),
        *(DeclaresNextAction, TellsEventsLeft, DeclaresEventsLeft, DeclaresNonsense, TaughtTooMuch, ReadingEncoder),
        *(Raises, EndsItsProcess),
    ),
    "losses": (CountingLoss, ReadingLoss),
    "retrievers": (Restless,),
    "metrics": (UpsideDown, ReadingMetric),
}


def _registers(kind):
    @hookimpl(specname=f"register_{kind}")
    def hook(register):
        for plugin in PLUGINS[kind]:
            register(plugin.__name__, plugin)

    return hook


register_protocols, register_tokenizers, register_encoders = map(_registers, ("protocols", "tokenizers", "encoders"))
register_losses, register_retrievers, register_metrics = map(_registers, ("losses", "retrievers", "metrics"))
