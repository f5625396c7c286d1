"""RQ-VAE: residual quantisation of the latents of an autoencoder, both learnt together.

The tokenizer of TIGER (Rajput et al., arXiv 2305.05065), after Lee et al. (arXiv 2203.01941). Ours: Adam in place of
Adagrad, `steps` in place of 20,000 epochs, k-means on a sample in place of the first batch, and restarts of codes that
no item gets, at residuals of the batch, as in Jukebox (Dhariwal et al., arXiv 2005.00341).

Shapes: n items, L levels, K_l codes of level l, D width of vectors, d width of a latent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from grbench.data.training_data import TrainingData
from grbench.errors import RunError
from grbench.types import Progress
from grbench_reference.codes.code_levels import Assignment, Level
from grbench_reference.codes.item_batches import item_batches
from grbench_reference.codes.item_vectors import (
    VectorSource,
    in_blocks,
    read_vectors,
    sample_items,
    unit,
)
from grbench_reference.codes.residual_autoencoder import LatentVectors, ResidualAutoencoder, apply, left_by_decoder
from grbench_reference.codes.residual_levels import ResidualLevels
from grbench_reference.tokenizers.kmeans import index_of, train_kmeans
from grbench_reference.tokenizers.vector_tokenizer import Learnt, VectorTokenizer, VectorTokenizerOptions

POINTS_PER_CENTROID = 256
"""The most latents per code that k-means starts from; rq_kmeans' default."""


class RQVAE(VectorTokenizer):
    """Semantic IDs by an autoencoder with residual quantisation, on a GPU where torch sees one, else on the CPU.

    Args:
        widths: of the encoder's layers, the last is that of the latent; the decoder has them in reverse. [] = no
            autoencoder: the vectors themselves are quantised.
        distance: by which a residual chooses its code; cosine = by direction only.
        commitment: weight of the loss that draws latents to the centres of their codes.
        lr: learning rate of Adam.
        batch_size: items of a training step.
        steps: training steps; 0 = the codes are those of k-means.
        start_iterations: k-means iterations at each level, from which the codes start.
        restart_every: steps after which the codes that no item of them got restart; null = never.
        training_items: size of the random sample of items that is trained on, in memory at once; null = all.
    """

    def __init__(
        self,
        *,
        options: VectorTokenizerOptions = VectorTokenizerOptions(collision="extra_level"),
        widths: list[PositiveInt] = [512, 256, 128, 32],  # noqa: B006 - never modified
        distance: Literal["euclidean", "cosine"] = "euclidean",
        commitment: Annotated[float, Field(ge=0)] = 0.25,
        lr: Annotated[float, Field(gt=0)] = 1e-3,
        batch_size: PositiveInt = 1024,
        steps: NonNegativeInt = 5_000,
        start_iterations: PositiveInt = 25,
        restart_every: PositiveInt | None = 100,
        training_items: PositiveInt | None = 262_144,
    ) -> None:
        super().__init__(options)
        self.widths, self.cosine, self.commitment = widths, distance == "cosine", commitment
        self.lr, self.batch_size, self.steps, self.restart_every = lr, batch_size, steps, restart_every
        self.start_iterations, self.training_items = start_iterations, training_items
        self.check_training_items(training_items)

    def learn(
        self,
        data: TrainingData,  # noqa: ARG002 - the vectors are all that it reads
        vectors: VectorSource,
        progress: Progress,
    ) -> Learnt:
        """The autoencoder and its codebooks, trained on a sample of items. Raises RunError where the loss is no number
        any more."""
        points = read_vectors(vectors, sample_items(vectors.present, self.training_items, self.seed))
        generator = torch.Generator().manual_seed(self.seed)
        model = ResidualAutoencoder(vectors.width, self.widths, self.sizes, cosine=self.cosine, generator=generator)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        progress("k-means", 0, None)
        self._start(model, points)
        report = self._train(model, torch.from_numpy(points), generator, progress)
        self._model = model
        centres = [codebook.detach().cpu().numpy() for codebook in model.codebooks]
        compared = [unit(each.copy()) if self.cosine else each for each in centres]
        levels = [Level(each, other, index_of(other)) for each, other in zip(centres, compared, strict=True)]
        return Learnt(ResidualLevels(LatentVectors(vectors, model), levels, cosine=self.cosine), report)

    def left_by(
        self, levels: ResidualLevels, assigned: Assignment, vectors: VectorSource, items: np.ndarray
    ) -> tuple[float, float]:
        """What the decoder leaves of the vectors."""
        return left_by_decoder(self._model.decoder, levels, assigned, vectors, items)

    def _start(self, model: ResidualAutoencoder, points: np.ndarray) -> None:
        """Sets each codebook to the k-means of its residuals. points: [n, D]."""
        residuals = np.concatenate(
            [apply(model.encoder, points[block]) for block in in_blocks(len(points), points.shape[1])]
        )
        for level, size in enumerate(self.sizes):
            compared = unit(residuals.copy()) if self.cosine else residuals
            kmeans = train_kmeans(
                compared,
                size,
                iterations=self.start_iterations,
                seed=self.seed + level,
                max_points_per_centroid=POINTS_PER_CENTROID,
                spherical=self.cosine,
            )
            codes = kmeans.index.search(compared, 1)[1][:, 0]
            centres = kmeans.centroids
            if self.cosine:  # a direction, as long as its residuals are in it on average
                lengths = np.einsum("nd,nd->n", residuals, centres[codes])
                counts = np.maximum(np.bincount(codes, minlength=size), 1)
                centres = centres * (np.bincount(codes, lengths, size) / counts)[:, None].astype(np.float32)
            with torch.no_grad():
                model.codebooks[level].copy_(torch.from_numpy(centres))
            residuals = residuals - centres[codes]

    def _train(
        self, model: ResidualAutoencoder, points: Tensor, generator: torch.Generator, progress: Progress
    ) -> dict[str, Any]:
        """Trains on points [n, D]. Returns what goes into the report."""
        device = model.codebooks[0].device
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr)
        used = [torch.zeros(size, dtype=torch.bool, device=device) for size in self.sizes]
        restarted = 0
        for step, rows in enumerate(item_batches(len(points), self.batch_size, self.steps, generator), 1):
            progress("training", step, self.steps)
            reconstruction, quantised = model(points[rows].to(device))
            loss = reconstruction + quantised.codebook + self.commitment * quantised.commitment
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for level, code in enumerate(quantised.codes.unbind(dim=1)):
                used[level][code] = True
            if self.restart_every and step % self.restart_every == 0:
                for level, residuals in enumerate(quantised.residuals):
                    restarted += model.restart(level, ~used[level], residuals, generator)
                    used[level].zero_()
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise RunError(f"tokenizer rq_vae: its weights are infinite or NaN after {self.steps} steps; lower its lr")
        return {"device": device.type, "steps": self.steps, "restarted_codes": restarted}
