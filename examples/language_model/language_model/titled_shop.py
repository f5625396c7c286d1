"""The dataset `titled_shop`: made-up purchases of things with titles, such as `blue wool scarf`."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from grbench.interfaces import Dataset
from grbench.registry.option_types import Count, Seed
from grbench.types import FIRST_ACTION

COLOURS = ("red", "blue", "green", "black", "white", "grey", "yellow", "brown")
MATERIALS = ("wool", "cotton", "leather", "linen", "silk", "denim")
THINGS = ("scarf", "shirt", "jacket", "bag", "hat", "skirt", "belt", "coat", "glove", "shoe")


class TitledShop(Dataset):
    """Users buy a thing of the kind of their last purchase, or of its colour, or any.

    Args:
        users: how many.
        length: purchases of each.
        habit: share of purchases of the last one's kind; half of the rest are of its colour.
        seed: of all that is random.
    """

    def __init__(
        self, *, users: Count = 600, length: Count = 8, habit: Annotated[float, Field(ge=0, le=1)] = 0.6, seed: Seed = 0
    ) -> None:
        self.users, self.length, self.habit, self.seed = users, length, habit, seed

    def digest(self) -> str:
        return f"titled_shop 1: {self.users} {self.length} {self.habit} {self.seed}"

    def write(self, writer) -> None:
        random = np.random.default_rng(self.seed)
        titles = [f"{colour} {material} {thing}" for thing in THINGS for colour in COLOURS for material in MATERIALS]
        per_thing, per_colour = len(COLOURS) * len(MATERIALS), len(MATERIALS)
        bought = np.zeros((self.users, self.length), np.int64)
        bought[:, 0] = random.integers(len(titles), size=self.users)
        for place in range(1, self.length):  # over places, all users at once
            last, anything = bought[:, place - 1], random.integers(len(titles), size=self.users)
            same_kind = last // per_thing * per_thing + anything % per_thing
            colour = last % per_thing // per_colour
            same_colour = anything // per_thing * per_thing + colour * per_colour + anything % per_colour
            drawn = random.random(self.users)
            otherwise = np.where(drawn < (1 + self.habit) / 2, same_colour, anything)
            bought[:, place] = np.where(drawn < self.habit, same_kind, otherwise)
        writer.actions, writer.has_times = ("purchase",), True
        events = self.users * self.length
        writer.add_users(
            np.arange(self.users),
            np.full(self.users, self.length),
            (bought.ravel() + 1).astype(np.int32),
            np.full(events, FIRST_ACTION, np.int8),
            np.tile(np.arange(self.length) * 3600, self.users),
        )
        writer.set_items(np.arange(len(titles) + 1))
        writer.create_item_text("title").append(titles)
