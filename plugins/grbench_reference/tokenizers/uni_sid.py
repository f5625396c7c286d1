"""UniSID: the codes of all levels in parallel, learnt with an item's embedding by contrast and not by residuals.

After Jiang et al. (arXiv 2602.10445), here from frozen vectors and categorical fields, trained before the encoder.
`sid_decoder` with `learn_codes` goes on training them with the recommender. `docs/methods.md` says what is ours.

Shapes: n items, L levels, D width of vectors, d width of codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from grbench.data.training_data import TrainingData
from grbench.errors import RunError
from grbench.types import Codes, Progress
from grbench_reference.codes.code_levels import Assignment, CodeLevels, Level
from grbench_reference.codes.item_batches import item_batches
from grbench_reference.codes.item_categories import item_categories
from grbench_reference.codes.item_vectors import VectorSource, read_vectors, sample_items
from grbench_reference.codes.parallel_coder import CODER, CoderOptions, ItemInputs, ParallelCoder
from grbench_reference.codes.residual_autoencoder import left_by_decoder
from grbench_reference.tokenizers.kmeans import index_of
from grbench_reference.tokenizers.vector_tokenizer import Learnt, VectorTokenizer, VectorTokenizerOptions


@dataclass(frozen=True)
class ParallelLevels(CodeLevels):
    """Levels whose codes do not depend on each other. fields: [N+1, F]."""

    coder: ParallelCoder
    fields: np.ndarray

    @torch.no_grad()
    def compared(self, number: int, codes: np.ndarray, items: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """What the head of level `number` makes of items [n]: [n, d] of length 1, whatever the codes before."""
        device = self.coder.rows.device
        vectors = torch.from_numpy(self.vectors.rows(items)).to(device)
        fields = torch.from_numpy(self.fields[items]).long().to(device)
        made: np.ndarray = self.coder.head(number, self.coder.trunk_of(vectors, fields)).cpu().numpy()
        return made


class UniSID(VectorTokenizer):
    """Semantic IDs by parallel code heads learnt by contrast, on a GPU where torch sees one, else on the CPU.

    Args:
        lr: learning rate of Adam.
        batch_size: items of a training step, which are each other's negatives.
        steps: training steps; 0 = codes by random projections.
        restart_every: steps after which the codes that no item of them got restart; null = never.
        training_items: size of the random sample of items that is trained on, in memory at once; null = all.
    """

    def __init__(
        self,
        *,
        options: VectorTokenizerOptions = VectorTokenizerOptions(collision="extra_level"),
        coder: CoderOptions = CoderOptions(),
        lr: Annotated[float, Field(gt=0)] = 1e-3,
        batch_size: Annotated[int, Field(ge=2)] = 1024,
        steps: NonNegativeInt = 5_000,
        restart_every: PositiveInt | None = 100,
        training_items: PositiveInt | None = 262_144,
    ) -> None:
        super().__init__(options)
        self.coder_options, self.lr, self.batch_size, self.steps = coder, lr, batch_size, steps
        self.restart_every, self.training_items = restart_every, training_items
        self.check_training_items(training_items)

    def learn(self, data: TrainingData, vectors: VectorSource, progress: Progress) -> Learnt:
        """The coder, trained on a sample of items. Raises SuiteError for a field that the items lack, RunError where
        the loss is no number any more."""
        read = item_categories(data.catalogue, self.coder_options, len(self.sizes), "tokenizer")
        items = sample_items(vectors.present, self.training_items, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        coder = ParallelCoder(vectors.width, read.sizes, self.sizes, self.coder_options, generator=generator)
        coder.to("cuda" if torch.cuda.is_available() else "cpu")
        points = torch.from_numpy(read_vectors(vectors, items))
        inputs = ItemInputs(
            points, torch.from_numpy(read.fields[items]).long(), torch.from_numpy(read.categories[items])
        )
        self._start(coder, inputs, generator)
        report = self._train(coder, inputs, generator, progress)
        self._coder = coder
        centres = [coder.centres(level).detach().cpu().numpy() for level in range(len(self.sizes))]
        levels = [Level(each, each, index_of(each)) for each in centres]
        weights = {f"{CODER}{name}": value.cpu() for name, value in coder.state_dict().items()}
        return Learnt(ParallelLevels(vectors, levels, coder, read.fields), report, weights)

    def left_by(
        self, levels: CodeLevels, assigned: Assignment, vectors: VectorSource, items: np.ndarray
    ) -> tuple[float, float]:
        """What the decoder leaves of the vectors."""
        return left_by_decoder(self._coder.decoder, levels, assigned, vectors, items)

    def stand_in(self, data: TrainingData) -> Codes:
        """Raises SuiteError also for a field that the items lack."""
        item_categories(data.catalogue, self.coder_options, len(self.sizes), "tokenizer")
        return super().stand_in(data)

    @torch.no_grad()
    def _start(self, coder: ParallelCoder, inputs: ItemInputs, generator: torch.Generator) -> None:
        """Sets each level's codes to what its head makes of different items."""
        device = coder.rows.device
        rows = torch.randperm(len(inputs.vectors), generator=generator)[: max(self.sizes)]
        states = coder.trunk_of(inputs.vectors[rows].to(device), inputs.fields[rows].to(device))
        for level, size in enumerate(self.sizes):
            every = torch.ones(size, dtype=torch.bool, device=device)
            coder.start_at(level, every, coder.head(level, states), generator)

    def _train(
        self, coder: ParallelCoder, inputs: ItemInputs, generator: torch.Generator, progress: Progress
    ) -> dict[str, Any]:
        """Trains on the inputs of n items. Returns what goes into the report."""
        device = coder.rows.device
        views = torch.Generator(device).manual_seed(self.seed)
        optimizer = torch.optim.Adam(coder.parameters(), lr=self.lr)
        used = [torch.zeros(size, dtype=torch.bool, device=device) for size in self.sizes]
        restarted = 0
        for step, rows in enumerate(item_batches(len(inputs.vectors), self.batch_size, self.steps, generator), 1):
            progress("training", step, self.steps)
            terms, coded = coder.losses(ItemInputs(*(each[rows].to(device) for each in inputs)), views)
            optimizer.zero_grad()
            torch.stack([*terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            for level, codes in enumerate(coded.codes.unbind(1)):
                used[level][codes] = True
            if self.restart_every and step % self.restart_every == 0:
                for level, compared in enumerate(coded.compared):
                    restarted += coder.start_at(level, ~used[level], compared.detach(), generator)
                    used[level].zero_()
        if not all(bool(parameter.isfinite().all()) for parameter in coder.parameters()):
            raise RunError(f"tokenizer uni_sid: its weights are infinite or NaN after {self.steps} steps; lower its lr")
        return {"device": device.type, "steps": self.steps, "restarted_codes": restarted}
