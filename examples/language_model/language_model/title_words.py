"""The tokenizer `title_words`: an item's semantic ID is its title, a word a level.

Beam search over these codes writes titles of items and nothing else.

Shapes: N items, L words, V words of the vocabulary.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from grbench.errors import SuiteError
from grbench.interfaces import Tokenizer
from grbench.registry.option_types import Count
from grbench.types import Codes

END = 0
"""The word behind a title's last one."""


class TitleWords(Tokenizer):
    """The first words of each item's text, in lower case, and one more level that numbers items of the same words.

    Args:
        text: the dataset's text column; null = its first.
        words: how many words of the text; shorter texts end in a word of their own.
    """

    def __init__(self, *, text: str | None = None, words: Count = 4) -> None:
        self.text, self.words = text, words

    def fit(self, data) -> Codes:
        """Raises SuiteError where the dataset has no such text."""
        texts = data.catalogue.texts
        if not texts or (self.text is not None and self.text not in texts):
            raise SuiteError(
                f"tokenizer.text: no text {self.text or ''} in this dataset; it has {', '.join(texts) or 'none'}"
            )
        column = texts[self.text or next(iter(texts))]
        lists = pc.utf8_split_whitespace(pc.utf8_lower(pa.array(column.all()[1:].astype(object), pa.large_string())))
        owner = np.repeat(np.arange(1, len(column)), pc.list_value_length(lists).to_numpy(zero_copy_only=False))
        words = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(str)
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        kept = (place < self.words) & (words != "")
        vocabulary, numbers = np.unique(words[kept], return_inverse=True)
        table = np.full((len(column), self.words), END, np.int64)
        table[owner[kept], place[kept]] = numbers + 1
        table[0] = 0
        # Items of the same words are numbered.
        _, same = np.unique(table[1:], axis=0, return_inverse=True)
        order = np.argsort(same, kind="stable")
        first = np.searchsorted(same[order], same[order])
        copies = np.zeros(len(column), np.int64)
        copies[1 + order] = np.arange(len(order)) - first
        sizes = (len(vocabulary) + 1,) * self.words
        report = {"vocabulary": len(vocabulary), "items_of_the_same_words": int((copies > 0).sum())}
        table, sizes = np.column_stack([table, copies]), (*sizes, int(copies.max()) + 1)
        return Codes(torch.from_numpy(table), sizes, report)

    def stand_in(self, data) -> Codes:
        """The codes themselves: there is nothing to learn."""
        return self.fit(data)
