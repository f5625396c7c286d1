"""The trained model of a cell, kept beside its record as `<digest>.weights.<checksum>.safetensors` (`--keep weights`),
and a cell that is ranked from it: where only retriever, filters or the length of lists are others, nothing is trained
again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from grbench.checkpoint.file import read_about, read_file, write_file
from grbench.checkpoint.generators import generator_states, restore_generators
from grbench.checkpoint.tokenizer import load_tokenizer
from grbench.data.codes import checked_codes
from grbench.distributed.ranks import current
from grbench.distributed.whole import apart, state_of, together
from grbench.errors import RunError, first_line
from grbench.results.checksums import file_checksum
from grbench.results.record import Record
from grbench.results.record_files import new_weights_path, record_path, weights_path
from grbench.run.checkpoints import MACHINE
from grbench.temporary import beside
from grbench.training.stages import Assembled, assemble
from grbench.training.state import TrainingResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from grbench.data.split import Split
    from grbench.registry.discovery import Registry
    from grbench.suite.suite import Cell

KIND = "weights"
OF_THE_LISTS = frozenset({"prepare", "resume", "index", "search", "keep"})
"""Phases of a cell that one which is ranked from its weights has itself."""
TRAIN_AGAIN = "remove it, so that the cell is trained again"


def keep_weights(
    folder: Path, blank: Record, method: Assembled, trained: TrainingResult, tokenizer: Mapping[str, Any]
) -> Record:
    """Writes the trained encoder, with the fitted tokenizer and what training came to, beside the record that is to be
    made of `blank`; returns it with what it says of the file. A model that an earlier record keeps stays until the new
    record is written. tokenizer: as `saved_tokenizer` gave it.

    Every rank calls it, and the first one writes. Raises RunError where it cannot be written.
    """
    encoder = state_of(method.encoder.state_dict(), method.encoder, together)
    if not current().first:
        return blank
    content = {
        "encoder": encoder,
        "tokenizer": tokenizer,
        "trained": asdict(trained),
        "generators": generator_states(_device_of(method.encoder)),
    }
    with beside(folder / f"{blank.digest}.weights") as partial:
        write_file(partial, KIND, {"training_digest": blank.training_digest}, content)
        checksum, size = file_checksum(partial), partial.stat().st_size
        path = new_weights_path(folder, blank.digest, checksum)
        partial.replace(path)
    return replace(blank, weights={"bytes": size, "sha256": checksum}, files={path.name: checksum})


def method_from_weights(
    cell: Cell, registry: Registry, split: Split, source: Record, *, device: str
) -> tuple[Assembled, TrainingResult]:
    """The cell's method with the weights that lie beside the record `source`, as training would have left it.

    Raises RunError, naming the file, where it is not as it was written, or does not fit the method.
    """
    folder = source.folder or Path()
    path = weights_path(folder, source)
    if path is None or not path.is_file():
        where = path or record_path(folder, source.digest)
        raise RunError(f"{where}: the weights are gone; run the same command again, and the cell is trained")
    if file_checksum(path) != source.weights.get("sha256"):
        raise RunError(f"{path}: the weights are not those that its record speaks of; {TRAIN_AGAIN}")
    try:
        if read_about(path, KIND).get("training_digest") != source.training_digest:
            raise RunError(f"{path}: the weights are of another experiment")
        _, saved = read_file(path, KIND)
        codes = load_tokenizer(saved["tokenizer"], torch.device(device))
        codes = checked_codes(codes, split.training.catalogue.num_items, "the codes kept")
        method = assemble(cell, registry, split, codes, device)
        own = state_of(saved["encoder"], method.encoder, apart)
        _check_states(own, method.encoder.state_dict())
        method.encoder.load_state_dict(own)
        method.encoder.eval()
        restore_generators(saved["generators"], torch.device(device))
        return method, TrainingResult(**saved["trained"])
    except (RunError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: the weights cannot be used ({first_line(error)}); {TRAIN_AGAIN}") from error


def costs_of_training(source: Record) -> dict[str, dict[str, Any]]:
    """The phases of the source's costs that a cell takes over which is ranked from its weights."""
    phases = source.cost.get("phases", {})
    return {name: phase for name, phase in phases.items() if name not in OF_THE_LISTS}


def device_seconds_of(source: Record, phases: Mapping[str, Mapping[str, Any]]) -> float:
    """Seconds of these phases of the source's, times the devices that it had."""
    return float(source.environment.get("devices", 1) * sum(phase["seconds"] for phase in phases.values()))


def figures_of_training(source: Record, now: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the source's costs that speak of training, and what of its machine is another `now`."""
    taken = ("train_", "peak_tflops", "resumptions", "lost_seconds")
    own = {key: value for key, value in source.cost.items() if key.startswith(taken) or key in ("peak", "beside")}
    other = {key: source.environment.get(key) for key in MACHINE if source.environment.get(key) != now.get(key)}
    other |= source.cost.get("begun_with", {})
    seconds = sum(phase["seconds"] for phase in costs_of_training(source).values())
    return {**own, "earlier_seconds": seconds, **({"begun_with": other} if other else {})}


def _check_states(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises RunError where names, shapes or types of tensors are not those of the encoder."""
    if missing := [name for name in expected if name not in saved]:
        raise RunError(f"{missing[0]} is missing")
    for name, value in saved.items():
        if name not in expected:
            raise RunError(f"the encoder has no {name}")
        if _kind(value) != _kind(expected[name]):
            raise RunError(f"{name} is {_kind(value)}, and the encoder's is {_kind(expected[name])}")


def _kind(value: Tensor | object) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _device_of(encoder: nn.Module) -> torch.device:
    return next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
