"""UniSID: its losses worked by hand, its categories, and what holds of codes that are learnt by it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from worlds import made_with

from grbench.audit.changed_futures import with_changed_futures
from grbench.data.training_data import TrainingData
from grbench.errors import RunError, SuiteError
from grbench.registry.options import bind, bound_contents
from grbench.testing import tiny_store
from grbench_reference.codes.item_categories import item_categories
from grbench_reference.codes.parallel_coder import (
    CoderOptions,
    ItemInputs,
    ParallelCoder,
    contrastive,
    same_category,
    straight_through,
)
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.tokenizers.uni_sid import UniSID

SMALL: dict[str, Any] = {"sizes": [4, 4], "coder_widths": [8], "steps": 60, "batch_size": 32, "lr": 0.01}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    faiss.omp_set_num_threads(1)


def store_of(folder: Path) -> Any:
    """64 items of four kinds, which the field `kind` names, each of four makes; item 64 has no vector and no make."""
    noise = np.random.default_rng(0).normal(size=(64, 8)) * 0.1
    vectors = np.repeat(np.eye(8)[:4], 16, axis=0) + np.tile(np.repeat(np.eye(8)[4:] * 0.3, 4, axis=0), (4, 1)) + noise
    vectors[63] = np.nan
    kinds, makes = [item // 16 + 1 for item in range(64)], [item // 4 + 1 for item in range(63)]
    histories = [[(item, 1, item) for item in range(first, first + 8)] for first in (1, 9, 17)]
    features = {"make": [*makes, None], "kind": kinds}
    return tiny_store(folder, histories, num_items=64, embeddings={"81": vectors}, item_features=features)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return LeaveLastOut().split(store_of(tmp_path_factory.mktemp("store"))).training


def test_the_contrastive_loss_worked_by_hand() -> None:
    left, right = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    own = torch.eye(2, dtype=torch.bool)
    # Cosine similarities are 1 to the own one and 0 to the other, so the logits at temperature .5 are 2 and 0.
    alone = math.log(math.exp(2) + 1) - 2
    assert contrastive(left, right, own, 0.5).item() == pytest.approx(alone, rel=1e-6)
    # Where the first has both as positives, its loss is the mean of -log of both shares.
    both = torch.tensor([[True, True], [False, True]])
    first = (alone + math.log(math.exp(2) + 1)) / 2
    assert contrastive(left, right, both, 0.5).item() == pytest.approx((first + alone) / 2, rel=1e-6)


def test_an_argmax_with_the_gradient_of_the_softmax() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    choice = straight_through(logits, torch.tensor([1]))
    assert choice.tolist() == [[0.0, 1.0]]
    (gradient,) = torch.autograd.grad(choice[0, 1], logits)
    assert gradient[0].tolist() == pytest.approx([-0.25 * 0.75, 0.75 * 0.25])  # shares are 1/4 and 3/4


def test_items_without_a_category_have_only_themselves() -> None:
    assert same_category(torch.tensor([3, 3, -1, -1])).int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]


def test_losses_are_weighted_and_the_vector_is_reconstructed() -> None:
    options = CoderOptions(coder_widths=(2,), hidden_share=0.0, level_weight=2.0, reconstruction_weight=0.5)
    coder = ParallelCoder(2, [], [2], options, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        coder.trunk[0].weight.copy_(torch.eye(2))
        coder.heads[0].copy_(torch.eye(2))
        coder.codebooks[0].copy_(torch.tensor([[0.0, 3.0], [7.0, 0.0]]))
        coder.embedding_head.copy_(torch.eye(2))
        coder.decoder[0].weight.zero_()
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    inputs = ItemInputs(vectors, torch.zeros(2, 0, dtype=torch.int64), torch.tensor([[-1], [-1]]))
    terms, coded = coder.losses(inputs)
    assert coded.codes.tolist() == [[1], [0]]
    apart = math.log(1 + math.exp(-10))  # two items, two directions at right angles, temperature .1
    assert terms["code_levels"].item() == pytest.approx(2 * apart, rel=1e-3)
    assert terms["code_embedding"].item() == pytest.approx(apart, rel=1e-3)
    assert terms["code_reconstruction"].item() == 0.5  # of squared length 1, decoded to 0


def test_categories_are_coarse_first_and_an_item_that_lacks_one_has_none(data: TrainingData) -> None:
    read = item_categories(data.catalogue, CoderOptions(), 2, "tokenizer")
    kinds, makes = read.categories[1:].T  # fields of fewest values first: the kind, then kind and make
    assert read.categories[0].tolist() == [-1, -1]
    assert [len({*each.tolist()} - {-1}) for each in (kinds, makes)] == [4, 16]
    assert (kinds == kinds[np.arange(64) // 16 * 16]).all()
    assert (makes == -1).nonzero()[0].tolist() == [63]
    assert read.fields.shape == (65, 2)
    none = item_categories(data.catalogue, CoderOptions(coder_fields=False), 2, "tokenizer")
    assert none.fields.shape == (65, 0)
    assert (none.categories == -1).all()
    named = item_categories(data.catalogue, CoderOptions(coder_fields=False, categories=("make",)), 2, "tokenizer")
    assert [len({*each.tolist()} - {-1}) for each in named.categories[1:].T] == [16, 16]
    with pytest.raises(SuiteError, match=r"encoder\.categories: no item field 'brand' of one value .* make, kind"):
        item_categories(data.catalogue, CoderOptions(categories=("brand",)), 2, "encoder")


def test_codes_come_to_follow_the_categories(data: TrainingData) -> None:
    options = {**SMALL, "collision": "none", "coder_fields": False, "categories": ["kind", "make"], "lr": 0.01}
    before, after = (made_with(UniSID, **{**options, "steps": steps}).fit(data) for steps in (0, 150))
    kinds = torch.arange(63) // 16

    def agreement(codes: Any) -> float:
        """The share of items that have the first code most frequent in their kind."""
        first = codes.table[1:64, 0]
        return sum(first[kinds == kind].bincount().max().item() for kind in range(4)) / 63

    assert agreement(after) > 0.9 > agreement(before)
    assert after.report["relative_residual"] < before.report["relative_residual"]


@pytest.mark.parametrize("collision", ["none", "extra_level", "next_nearest"])
def test_codes_within_sizes_and_nothing_of_global_generators(data: TrainingData, collision: Any) -> None:
    tables = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        codes = made_with(UniSID, **{**SMALL, "sizes": [4, 32], "steps": 10}, collision=collision).fit(data)
        assert torch.equal(torch.get_rng_state(), before)
        assert (codes.table[1:].amax(0) < torch.tensor(codes.sizes)).all()
        tables.append(codes.table)
    assert torch.equal(*tables)
    distinct = len(torch.unique(tables[0][1:], dim=0))
    assert distinct == 64 if collision != "none" else distinct < 64


def test_codes_depend_on_training_events_only(tmp_path: Path) -> None:
    """Where the vectors come from co-occurrence, on which events bear."""
    store = store_of(tmp_path)
    split = LeaveLastOut().split(store)
    changed = with_changed_futures(store, split, LeaveLastOut())
    options = {**SMALL, "sizes": [3, 3], "source": "cooccurrence", "width": 4, "steps": 10}
    one, other = (made_with(UniSID, **options).fit(each.training) for each in (split, changed.split))
    assert torch.equal(one.table, other.table)


def test_the_content_of_a_file_of_vectors_is_in_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    options = {"source": "file", "vectors": str(path)}
    hashes = []
    for value in (0.0, 1.0):
        np.save(path, np.full((3, 2), value, np.float32))
        hashes.append(bound_contents(UniSID, options, "tokenizer")["vectors"])
    assert hashes[0] != hashes[1]
    assert all(each.startswith("sha256:") for each in hashes)
    assert bind(UniSID, {}, "tokenizer")["reconstruction_weight"] == 0.1  # the paper's


def test_what_is_wrong_is_said(data: TrainingData) -> None:
    for made in (UniSID.fit, UniSID.stand_in):
        with pytest.raises(SuiteError, match=r"tokenizer\.coder_fields: no item field 'colour'"):
            made(made_with(UniSID, **SMALL, coder_fields=["colour"]), data)
    with pytest.raises(SuiteError, match=r"training_items: a level of 256 codes cannot be learnt from 255 items"):
        made_with(UniSID, training_items=255)
    with pytest.raises(RunError, match=r"uni_sid: its weights are infinite or NaN after 60 steps; lower its lr"):
        made_with(UniSID, **{**SMALL, "lr": 1e30}).fit(data)
