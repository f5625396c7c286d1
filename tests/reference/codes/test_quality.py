"""The figures that a tokenizer is judged by, in worlds small enough to work them out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from grbench.data.training_data import TrainingData
from grbench.testing import tiny_store
from grbench.types import Codes
from grbench_reference.codes.item_vectors import ArrayVectors
from grbench_reference.codes.quality import code_quality
from grbench_reference.protocols.leave_last_out import LeaveLastOut

FOUR = Codes(torch.tensor([[0, 0], [0, 1], [0, 1], [0, 2], [1, 1]]), (4, 3))


def seen(folder: Path, *rows: Sequence[int], num_items: int = 4) -> TrainingData:
    """Training on these histories whole; two events are added to each and held out again."""
    histories = [[(item, 1, time) for time, item in enumerate([*row, 1, 1])] for row in rows]
    return LeaveLastOut().split(tiny_store(folder, histories, num_items=num_items)).training


def test_counts_are_of_all_items(tmp_path: Path) -> None:
    report = code_quality(FOUR, seen(tmp_path, [1, 2]))
    assert report["items"] == 4
    assert report["distinct_codes"] == 3
    assert report["colliding_items"] == 2
    assert report["colliding_share"] == 0.5
    assert report["most_items_on_a_code"] == 2
    assert [(level["used"], level["share"]) for level in report["utilisation"]] == [(2, 0.5), (2, 2 / 3)]
    # Three quarters and one quarter: exp(-(.75 log .75 + .25 log .25)), on both levels.
    assert [level["perplexity"] for level in report["utilisation"]] == pytest.approx([1.7547654] * 2)


def test_fan_out_counts_the_codes_that_follow_a_prefix(tmp_path: Path) -> None:
    first, second = code_quality(FOUR, seen(tmp_path, [1, 2]))["fan_out"]
    assert (first["prefixes"], first["mean"], first["most"], first["most_items"]) == (1, 2.0, 2, 4)
    # Behind 0 come 1 and 2; behind 1 comes 1 alone.
    assert (second["prefixes"], second["mean"], second["most"], second["most_items"]) == (2, 1.5, 2, 3)
    assert second["single"] == 0.5


def test_neighbouring_events_are_compared_with_the_same_events_in_another_order(tmp_path: Path) -> None:
    # Pairs: 1 2 and 2 3 share the first code, 1 2 the whole; 3 4 nothing; 4 4 is one item and says nothing.
    agreement = code_quality(FOUR, seen(tmp_path, [1, 2, 3, 4, 4]))["cooccurrence_agreement"]
    assert agreement["pairs"] == 3
    assert agreement["same_prefix"] == pytest.approx([2 / 3, 1 / 3])
    random = np.random.default_rng(0)
    table = np.concatenate([[[0, 0]], random.integers(0, 4, (50, 2))])
    by_half = Codes(torch.from_numpy(table), (4, 4))
    rows = random.integers(1, 51, (200, 30))
    chance = code_quality(by_half, seen(tmp_path, *rows.tolist(), num_items=50))["cooccurrence_agreement"]
    frequency = np.bincount(table[rows.ravel(), 0]) / rows.size
    assert chance["by_chance"][0] == pytest.approx((frequency**2).sum(), abs=0.03)
    assert chance["same_prefix"][0] == pytest.approx(chance["by_chance"][0], abs=0.03)


def test_agreement_with_vectors_is_that_of_the_nearest_by_cosine(tmp_path: Path) -> None:
    # Two bundles of 11 in opposite directions, so that an item's ten nearest are its bundle; lengths do not matter.
    angles = np.concatenate([np.linspace(0, 0.1, 11), np.pi + np.linspace(0, 0.1, 11)])
    lengths = np.arange(1, 23)[:, None]
    values = np.concatenate([[[0, 0]], np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths])
    first = np.repeat([0, 1], 11)
    table = np.concatenate([[[0, 0]], np.stack([first, np.arange(22)], axis=1)])
    data = seen(tmp_path, [1, 2], num_items=22)
    vectors = ArrayVectors(values.astype(np.float32), "made up")
    agreement = code_quality(Codes(torch.from_numpy(table), (2, 22)), data, vectors=vectors)["embedding_agreement"]
    assert agreement["of"] == "made up"
    assert (agreement["queries"], agreement["among"], agreement["neighbours"]) == (22, 22, 10)
    assert agreement["same_prefix"] == [1.0, 0.0]  # were an item its own neighbour, the second would not be 0
    assert agreement["by_chance"][0] == pytest.approx(10 / 21, abs=0.3)
    assert agreement["by_chance"][1] == 0


def test_doubles_are_neighbours_but_an_item_is_not_its_own(tmp_path: Path) -> None:
    values = np.concatenate([np.zeros((1, 2)), np.tile([[1.0, 0.0]], (6, 1))]).astype(np.float32)
    codes = Codes(torch.arange(7)[:, None], (7,))
    agreement = code_quality(codes, seen(tmp_path, [1], num_items=6), vectors=ArrayVectors(values, "one"))
    assert agreement["embedding_agreement"]["same_prefix"] == [0.0]
    assert agreement["embedding_agreement"]["neighbours"] == 5


def test_there_is_no_agreement_with_vectors_that_do_not_exist(tmp_path: Path) -> None:
    report = code_quality(FOUR, seen(tmp_path, [1]))
    assert report["embedding_agreement"] is None
    assert report["cooccurrence_agreement"] is None  # a single training event has no neighbour


def test_popular_rare_and_unseen_items_are_told_apart(tmp_path: Path) -> None:
    # Of ten seen, item 1 is the head (1 % rounded up), 2 the middle (up to 20 %), eight the tail; 11, 12 are unseen.
    data = seen(tmp_path, [1] * 5, [2] * 3, range(3, 11), num_items=12)
    table = torch.tensor([[0], [0], [1], *([2 + item % 2] for item in range(8)), [4], [5]])
    bands = {band["band"]: band for band in code_quality(Codes(table, (6,)), data)["popularity"]}
    assert [bands[name]["items"] for name in ("head", "middle", "tail", "unseen")] == [1, 1, 8, 2]
    assert [bands[name]["share_of_events"] for name in bands] == pytest.approx([5 / 16, 3 / 16, 8 / 16, 0])
    assert bands["tail"]["colliding_share"] == 1.0
    assert bands["tail"]["distinct_codes"] == bands["tail"]["first_codes_used"] == 2
    assert bands["tail"]["first_code_perplexity"] == pytest.approx(2.0)
    assert bands["head"]["colliding_share"] == 0.0
    assert bands["unseen"]["share_of_items"] == pytest.approx(2 / 12)


def test_samples_bound_the_work_and_the_same_seed_repeats_it(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    values = np.concatenate([np.zeros((1, 4)), random.normal(size=(300, 4))]).astype(np.float32)
    codes = Codes(torch.from_numpy(np.concatenate([[[0]], random.integers(0, 8, (300, 1))])), (8,))
    data = seen(tmp_path, *random.integers(1, 301, (40, 10)).tolist(), num_items=300)
    vectors = ArrayVectors(values, "random")
    report, again = (
        code_quality(codes, data, vectors=vectors, queries=20, base=100, users=5, seed=7) for _ in range(2)
    )
    assert report == again
    assert (report["embedding_agreement"]["queries"], report["embedding_agreement"]["among"]) == (20, 100)
    assert report["cooccurrence_agreement"]["pairs"] <= 5 * 9
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_item_ids_as_codes_are_found_in_full_use(tmp_path: Path) -> None:
    report = code_quality(Codes(torch.arange(5)[:, None], (5,)), seen(tmp_path, [1, 2, 3, 4]))
    assert report["colliding_share"] == 0
    assert report["utilisation"][0]["used"] == 4
    assert report["cooccurrence_agreement"]["same_prefix"] == [0.0]
