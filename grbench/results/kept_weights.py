"""What a record says of the trained model that is kept beside it. Reads records only, no model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from grbench.errors import RunError
from grbench.results.record import Record
from grbench.results.record_files import read_record, record_path, weights_path


def weights_of(record: Record) -> dict[str, str]:
    """{name: checksum} of the file of the model that the record keeps; empty where it keeps none."""
    path = weights_path(Path(), record)
    return {} if path is None else {path.name: record.files[path.name]}


def with_kept_weights(folder: Path, failed: Record) -> Record:
    """The record of a cell that failed, as it is to be written. Where it takes the place of one that keeps a trained
    model, it keeps that model too, and what is said of its training, so that the next attempt is ranked from it."""
    try:
        former = read_record(record_path(folder, failed.digest))
    except RunError:  # there is none, or none that can be used
        return failed
    path = weights_path(folder, former)
    if path is None or not path.is_file() or former.training_digest != failed.training_digest:
        return failed
    of_training = ("weights", "weights_from", "counts", "cost", "environment", "tokenizer", "curve")
    return replace(
        failed,
        files=weights_of(former),
        **{name: getattr(former, name) for name in of_training},
    )
