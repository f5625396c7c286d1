"""An encoder that reads a file of word vectors and the items' texts, and a dataset that has texts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from grbench import DataFile, hookimpl
from grbench.data.store_writer import StoreWriter
from grbench.data.training_data import TrainingData
from grbench.errors import SuiteError
from grbench.interfaces import Dataset, Encoder
from grbench.types import Batch, Codes

TITLES = ["red shoes", "red hat", "blue shoes", "blue hat"]


class Titles(Dataset):
    """Users who like one colour: items 1 and 2 are red, 3 and 4 blue."""

    def digest(self) -> str:
        return "titles 1"

    def write(self, writer: StoreWriter) -> None:
        writer.actions, writer.has_times = ("click",), True
        likes = np.array([[1, 2, 1, 2], [2, 1, 2, 1], [3, 4, 3, 4], [4, 3, 4, 3]] * 5, np.int32)
        users, events = likes.shape
        times = np.tile(np.arange(events, dtype=np.int64), users)
        writer.add_users(
            np.arange(users), np.full(users, events), likes.ravel(), np.full(likes.size, 2, np.int8), times
        )
        writer.set_items(np.arange(len(TITLES) + 1, dtype=np.int64))
        writer.create_item_text("title").append(TITLES)


class WordVectors(nn.Module, Encoder):
    """An item is the mean of its words' vectors, a history the mean of its items, each through a linear map.

    Args:
        vectors: a line a word: the word, then its numbers
        text: the dataset's column of texts
    """

    history_length = 4
    items: Tensor

    def __init__(self, data: TrainingData, codes: Codes, *, vectors: DataFile, text: str = "title") -> None:
        super().__init__()
        if text not in data.catalogue.texts:
            raise SuiteError(
                f"encoder.text: no text {text!r} in this dataset; it has {', '.join(data.catalogue.texts)}"
            )
        lines = [line.split() for line in vectors.read_text().splitlines()]
        known = {word: np.array(numbers, np.float32) for word, *numbers in lines}
        titles = data.catalogue.texts[text].of(np.arange(data.catalogue.num_items + 1))
        zero = np.zeros(len(next(iter(known.values()))), np.float32)
        means = [np.mean([known.get(word, zero) for word in title.split()] or [zero], axis=0) for title in titles]
        self.register_buffer("items", torch.from_numpy(np.stack(means)), persistent=False)
        self.map = nn.Linear(len(zero), 8)

    def embed(self, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        seen = (batch.items > 0).unsqueeze(-1).cumsum(1).clamp(min=1)
        return self.map(self.items[batch.items].cumsum(1) / seen), self.embed_items(items)

    def embed_histories(self, batch: Batch) -> Tensor:
        return self.embed(batch, batch.items[:, -1])[0][:, -1]

    def embed_items(self, items: Tensor) -> Tensor:
        return self.map(self.items[items])


@hookimpl
def register_datasets(register):
    register("titles", Titles)


@hookimpl
def register_encoders(register):
    register("word_vectors", WordVectors)
