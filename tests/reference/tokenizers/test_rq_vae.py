"""RQ-VAE: its quantiser worked by hand, and what holds of codes that are learnt by it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor
from worlds import made_with

from grbench.data.training_data import TrainingData
from grbench.errors import RunError, SuiteError
from grbench.testing import tiny_store
from grbench_reference.codes.item_batches import item_batches
from grbench_reference.codes.item_vectors import EmbeddingVectors
from grbench_reference.codes.random_k import neighbours_of
from grbench_reference.codes.residual_autoencoder import LatentVectors, ResidualAutoencoder
from grbench_reference.protocols.leave_last_out import LeaveLastOut
from grbench_reference.tokenizers.rq_kmeans import RQKMeans
from grbench_reference.tokenizers.rq_vae import RQVAE

SMALL: dict[str, Any] = {"sizes": [4, 4], "widths": [8, 3], "steps": 60, "batch_size": 16, "lr": 0.01}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    faiss.omp_set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """64 items: four far corners, about each four small corners, four items at each of these; item 64 has no vector."""
    noise = np.random.default_rng(0).normal(size=(64, 8)) * 0.002
    vectors = np.repeat(np.eye(8)[:4], 16, axis=0) + np.tile(np.repeat(np.eye(8)[4:] * 0.2, 4, axis=0), (4, 1)) + noise
    vectors[63] = np.nan
    histories = [[(item, 1, item) for item in range(1, 9)]]
    store = tiny_store(tmp_path_factory.mktemp("store"), histories, num_items=64, embeddings={"81": vectors})
    return LeaveLastOut().split(store).training


def autoencoder(*, widths: tuple[int, ...] = (), width: int = 2, cosine: bool = False) -> ResidualAutoencoder:
    generator = torch.Generator().manual_seed(0)
    model = ResidualAutoencoder(width, widths, (2, 2), cosine=cosine, generator=generator)
    with torch.no_grad():
        model.codebooks[0].copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
        model.codebooks[1].copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    return model


def left_by(model: ResidualAutoencoder, latent: list[float]) -> Tensor:
    return model.quantise(torch.tensor([latent])).residuals[1][0]


def test_codes_losses_and_gradients_worked_by_hand() -> None:
    model = autoencoder()
    latents = torch.tensor([[5.5, 0.5]], requires_grad=True)
    found = model.quantise(latents)
    # Nearest to (5.5, .5) is (4, 0), which leaves (1.5, .5); nearest to that is (1, 0), which leaves (.5, .5).
    assert found.codes.tolist() == [[1, 1]]
    assert [each.tolist() for each in found.residuals] == [[[5.5, 0.5]], [[1.5, 0.5]]]
    assert found.values.tolist() == [[5.0, 0.0]]
    assert found.codebook.item() == found.commitment.item() == (1.5**2 + 0.5**2) + (0.5**2 + 0.5**2)

    (straight,) = torch.autograd.grad(found.values @ torch.tensor([3.0, 7.0]), latents, retain_graph=True)
    assert straight.tolist() == [[3.0, 7.0]]  # as if nothing had been quantised
    (drawn,) = torch.autograd.grad(found.commitment, latents, retain_graph=True)
    assert drawn.tolist() == [[2 * (1.5 + 0.5), 2 * (0.5 + 0.5)]]  # to the centres of both levels
    assert torch.autograd.grad(found.codebook, latents, allow_unused=True, retain_graph=True) == (None,)
    first, second = torch.autograd.grad(found.codebook, list(model.codebooks))
    assert first.tolist() == [[0, 0], [-2 * 1.5, -2 * 0.5]]  # each centre to its own residual only
    assert second.tolist() == [[0, 0], [-2 * 0.5, -2 * 0.5]]


def test_by_cosine_a_code_is_a_direction_and_centres_are_subtracted_as_they_are() -> None:
    model = autoencoder()
    with torch.no_grad():
        model.codebooks[0].copy_(torch.tensor([[2.0, 1.0], [0.1, 0.0]]))
    assert left_by(model, [2.0, 0.2]).tolist() == pytest.approx([0.0, -0.8])  # (2, 1) is nearer
    model.cosine = True
    assert left_by(model, [2.0, 0.2]).tolist() == pytest.approx([1.9, 0.2])  # (.1, 0) is the more similar direction


def test_dead_codes_restart_at_different_residuals_of_the_batch() -> None:
    model, generator = autoencoder(), torch.Generator().manual_seed(0)
    residuals = torch.tensor([[7.0, 7.0], [8.0, 8.0], [9.0, 9.0]])
    assert model.restart(0, torch.tensor([True, False]), residuals, generator) == 1
    assert model.codebooks[0][0].tolist() in residuals.tolist()
    assert model.codebooks[0][1].tolist() == [4.0, 0.0]
    assert model.restart(1, torch.tensor([True, True]), residuals[:1], generator) == 1  # there is only one
    assert model.codebooks[1].tolist() == [[7.0, 7.0], [1.0, 0.0]]
    assert model.restart(1, torch.tensor([False, False]), residuals, generator) == 0


def test_training_restarts_dead_codes(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    def far_away(self: RQVAE, model: ResidualAutoencoder, points: np.ndarray) -> None:
        """No code but the first of each level is the nearest to anything."""
        with torch.no_grad():
            for codebook in model.codebooks:
                codebook[1:] = 1000

    monkeypatch.setattr(RQVAE, "_start", far_away)
    dead, restarted = (made_with(RQVAE, **SMALL, restart_every=every).fit(data).report for every in (None, 5))
    assert [level["used"] for level in dead["utilisation"][:2]] == [2, 1]  # of the first, one is that without a vector
    assert dead["restarted_codes"] == 0
    assert [level["used"] for level in restarted["utilisation"][:2]] == [5, 4]
    assert restarted["restarted_codes"] >= 6
    assert restarted["relative_residual"] < 0.7 * dead["relative_residual"]


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_training_lowers_what_reconstruction_leaves(data: TrainingData, distance: Any) -> None:
    options = {**SMALL, "distance": distance, "collision": "none"}
    before, after = (made_with(RQVAE, **{**options, "steps": steps}).fit(data).report for steps in (0, 400))
    assert after["relative_residual"] < 0.1 < before["relative_residual"]


@pytest.mark.parametrize("collision", ["none", "extra_level", "next_nearest"])
def test_without_autoencoder_and_training_it_is_residual_kmeans(data: TrainingData, collision: Any) -> None:
    """Codes, what they leave, and the treatment of collisions and of items without a vector are the same."""
    options = {"sizes": [4, 16], "collision": collision, "random_k": 2}
    ours = made_with(RQVAE, **options, widths=[], steps=0).fit(data)
    theirs = made_with(RQKMeans, **options).fit(data)
    assert torch.equal(ours.table, theirs.table)
    assert ours.sizes == theirs.sizes
    for key in ("relative_residual", "relative_residual_as_placed"):
        assert ours.report[key] == pytest.approx(theirs.report[key], rel=1e-4)
    same = {"moved_items", "spilled_items", "colliding_items", "utilisation", "fan_out", "items_without_vector"}
    assert {key: ours.report[key] for key in same} == {key: theirs.report[key] for key in same}
    assert len(ours.tensors) == len(ours.sizes)
    assert all(map(torch.equal, neighbours_of(ours), neighbours_of(theirs)))


def test_collisions_of_learnt_codes_are_resolved_in_the_latent_space(data: TrainingData) -> None:
    options = {**SMALL, "sizes": [4, 32]}
    shared, placed = (made_with(RQVAE, **options, collision=policy).fit(data) for policy in ("none", "next_nearest"))
    assert len(torch.unique(placed.table[1:], dim=0)) == 64
    assert torch.equal(placed.table[:, 0], shared.table[:, 0])
    moved = int((placed.table != shared.table).any(dim=1).sum())
    assert placed.report["moved_items"] == moved > 0
    assert placed.report["relative_residual"] == pytest.approx(shared.report["relative_residual"])


def test_fitting_neither_reads_nor_moves_global_generators(data: TrainingData) -> None:
    tables = []
    for seed in (1, 2):
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what is watched
        before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        tables.append(made_with(RQVAE, **SMALL, restart_every=5, training_items=40).fit(data).table)
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002
    assert torch.equal(*tables)
    assert not torch.equal(made_with(RQVAE, **SMALL, seed=3).fit(data).table, tables[0])


def test_fitting_says_how_far_it_is(data: TrainingData) -> None:
    heard: list[tuple[str, int, int | None]] = []
    tokenizer = made_with(RQVAE, **SMALL)
    codes = tokenizer.fit_reporting(data, lambda *progress: heard.append(progress))
    assert [*dict.fromkeys(what for what, *_ in heard)] == [
        "reading vectors",
        "k-means",
        "training",
        "codes of all items",
    ]
    assert [(done, total) for what, done, total in heard if what == "training"] == [(step, 60) for step in range(1, 61)]
    assert torch.equal(codes.table, tokenizer.fit(data).table)


def test_every_item_is_in_one_batch_of_an_epoch() -> None:
    batches = [*item_batches(7, 3, 5, torch.Generator().manual_seed(0))]
    assert [len(rows) for rows in batches] == [3] * 5  # what is left over of an epoch is in another one
    assert [len({*torch.cat(batches[at : at + 2]).tolist()}) for at in (0, 2)] == [6, 6]
    assert [sorted(rows.tolist()) for rows in item_batches(3, 1024, 2, torch.Generator())] == [[0, 1, 2]] * 2


def test_latents_do_not_depend_on_blocks(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = EmbeddingVectors(data.catalogue)
    model = autoencoder(widths=(4, 2), width=8)
    items = np.arange(1, 64)
    latents = LatentVectors(vectors, model).rows(items)
    np.testing.assert_allclose(latents, model.encoder(torch.from_numpy(vectors.rows(items))).detach(), rtol=1e-5)
    monkeypatch.setattr("grbench_reference.codes.item_vectors.BLOCK_BYTES", 8 * 4 * 5)
    np.testing.assert_allclose(LatentVectors(vectors, model).rows(items), latents, rtol=1e-4, atol=1e-6)


def test_refused_before_anything_is_learnt(data: TrainingData) -> None:
    for made in (RQVAE.fit, RQVAE.stand_in):
        with pytest.raises(SuiteError, match=r"tokenizer\.sizes: a level of 256 codes cannot be learnt from the 63 it"):
            made(made_with(RQVAE), data)
    with pytest.raises(SuiteError, match=r"training_items: a level of 256 codes cannot be learnt from 255 items"):
        made_with(RQVAE, training_items=255)
    with pytest.raises(SuiteError, match=r"random_k: 5 is more than the 4 codes"):
        made_with(RQVAE, sizes=[16, 4], random_k=5)


def test_a_diverged_training_is_said_to_be(data: TrainingData) -> None:
    with pytest.raises(RunError, match=r"rq_vae: its weights are infinite or NaN after 60 steps; lower its lr"):
        made_with(RQVAE, **{**SMALL, "lr": 1e30}).fit(data)


def test_vectors_from_a_file(data: TrainingData, tmp_path: Path) -> None:
    values = np.zeros((65, 8), np.float32)
    values[1:64] = EmbeddingVectors(data.catalogue).rows(np.arange(1, 64))
    np.save(tmp_path / "vectors.npy", values)
    filed = made_with(RQVAE, **SMALL, source="file", vectors=str(tmp_path / "vectors.npy"), svd=4).fit(data)
    assert filed.report["vector_width"] == 4
    assert filed.report["items_without_vector"] == 1
