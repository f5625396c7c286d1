"""An autoencoder whose latents are quantised level by level: the model of RQ-VAE.

As in TIGER (Rajput et al., arXiv 2305.05065), after Lee et al. (arXiv 2203.01941): each level has its own codebook, and
gradients pass the quantisation straight through.

Shapes: B vectors of a batch, n items, D their width, d width of a latent, L levels, K_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from grbench_reference.codes.code_levels import Assignment, CodeLevels
from grbench_reference.codes.item_vectors import VectorSource, in_blocks


@dataclass(frozen=True)
class Quantised:
    """codes: [B, L]; residuals: for each level [B, d], before it, without gradient; values: [B, d], the sums of the
    codes' centres, whose gradient goes to the latents unchanged; codebook, commitment: the two losses, scalars."""

    codes: Tensor
    residuals: list[Tensor]
    values: Tensor
    codebook: Tensor
    commitment: Tensor


class ResidualAutoencoder(nn.Module):
    """Perceptrons as encoder and decoder, and the codebooks between them, which start as zeros.

    width: D; widths: of the encoder's layers, the last is d; the decoder has them in reverse; none = the vectors
    themselves are quantised. cosine: a residual's code is the centre of the most similar direction, not the nearest.
    generator: of the initial weights, on the CPU.
    """

    def __init__(
        self, width: int, widths: Sequence[int], sizes: Sequence[int], *, cosine: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        layers = [width, *widths]
        self.encoder, self.decoder = perceptron(layers, generator), perceptron(layers[::-1], generator)
        self.codebooks = nn.ParameterList(torch.zeros(size, layers[-1]) for size in sizes)
        self.cosine = cosine

    def forward(self, vectors: Tensor) -> tuple[Tensor, Quantised]:
        """vectors [B, D] -> the loss of reconstruction, a scalar, and their quantised latents. All losses are squared
        distances, summed over dimensions and levels, and averaged over vectors."""
        quantised = self.quantise(self.encoder(vectors))
        return squared_distance(self.decoder(quantised.values), vectors), quantised

    def quantise(self, latents: Tensor) -> Quantised:
        """latents [B, d], which the commitment loss draws to the centres of their codes, and the codebook loss the
        centres of each level to the residuals before it."""
        total = torch.zeros_like(latents)
        codebook, commitment = latents.new_zeros(()), latents.new_zeros(())
        codes, residuals = [], []
        for centres in self.codebooks:
            residual = latents - total
            code = self.nearest(residual.detach(), centres.detach())
            chosen = functional.embedding(code, centres)
            codebook = codebook + squared_distance(chosen, residual.detach())
            commitment = commitment + squared_distance(residual, chosen.detach())
            codes.append(code)
            residuals.append(residual.detach())
            total = total + chosen.detach()
        values = latents + (total - latents).detach()
        return Quantised(torch.stack(codes, dim=1), residuals, values, codebook, commitment)

    def nearest(self, residuals: Tensor, centres: Tensor) -> Tensor:
        """residuals [B, d], centres [K, d] -> [B] int64."""
        if self.cosine:
            return (functional.normalize(residuals, dim=1) @ functional.normalize(centres, dim=1).T).argmax(dim=1)
        return (centres.square().sum(dim=1) - 2 * (residuals @ centres.T)).argmin(dim=1)

    @torch.no_grad()
    def restart(self, level: int, dead: Tensor, residuals: Tensor, generator: torch.Generator) -> int:
        """Moves the centres of a level that are dead [K] bool to different ones of the residuals [B, d] before it, and
        returns how many; where there are fewer residuals, the rest stay as they are."""
        rows = dead.nonzero()[:, 0][: len(residuals)]
        chosen = torch.randperm(len(residuals), generator=generator)[: len(rows)]
        self.codebooks[level][rows] = residuals[chosen.to(residuals.device)]
        return len(rows)


class LatentVectors:
    """The latents of another source's vectors, as a source of vectors. A model without layers gives the vectors."""

    def __init__(self, source: VectorSource, model: ResidualAutoencoder) -> None:
        self.name, self.present = f"latents of {source.name}", source.present
        self.width = model.codebooks[0].shape[1]
        self._source, self._model = source, model

    def rows(self, items: np.ndarray) -> np.ndarray:
        """items [n] -> [n, d] float32."""
        latents = np.empty((len(items), self.width), np.float32)
        for block in in_blocks(len(items), self._source.width):
            latents[block] = apply(self._model.encoder, self._source.rows(items[block]))
        return latents


@torch.no_grad()
def apply(layers: nn.Module, rows: np.ndarray) -> np.ndarray:
    """rows [n, width] float32 -> what the layers, on whatever device, make of them."""
    parameter = next(layers.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    values: np.ndarray = layers(torch.from_numpy(rows).to(device)).cpu().numpy()
    return values


def left_by_decoder(
    decoder: nn.Module, levels: CodeLevels, assigned: Assignment, vectors: VectorSource, items: np.ndarray
) -> tuple[float, float]:
    """The summed squared distance of the vectors of items [n] from what is decoded of their codes' centres: with the
    last level's nearest codes, and with the codes as placed."""
    left = np.zeros(2)
    for block in in_blocks(len(items), vectors.width):
        rows = vectors.rows(items[block])
        for which, codes in enumerate((assigned.nearest_codes, assigned.codes)):
            left[which] += np.square(apply(decoder, levels.quantised(codes[block])) - rows).sum(dtype=np.float64)
    return float(left[0]), float(left[1])


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """[B, D], [B, D] -> a scalar, summed over dimensions and averaged over rows."""
    return (left - right).square().sum(dim=1).mean()


def perceptron(widths: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers with ReLU between them. Without weights of torch's own, which come from the global generator."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
