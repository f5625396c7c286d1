"""The checkpoints of a trained cell, in the folder `<digest>.checkpoint` beside its record.

    tokenizer.safetensors   the codes of the fitted tokenizer, written once
    training.safetensors    all that training has come to, the best state by validation included; the newest replaces it
    attempt                 when the last attempt began, the seconds lost and the resumptions before it; it is touched
                            while training goes on, so that the next attempt knows how much was lost

Each carries the costs so far. They are removed once the cell's record is ok.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from grbench.checkpoint.file import DamagedFileError, read_about, read_file, write_file
from grbench.checkpoint.stage import saved_codes, saved_results
from grbench.checkpoint.tokenizer import codes_that_were_saved, load_tokenizer, saved_tokenizer
from grbench.cost.environment import environment
from grbench.distributed.ranks import current
from grbench.distributed.row_table import divided_weights
from grbench.errors import RunError, first_line
from grbench.results.record_files import checkpoint_folder, remove_checkpoints
from grbench.run.beside_file import kept_beside
from grbench.temporary import replacing
from grbench.training.state import TrainingResult
from grbench.types import Codes

if TYPE_CHECKING:
    from grbench.cost.meter import Meter
    from grbench.cost.monitor import Throughput
    from grbench.results.record import Record
    from grbench.run.backends.child_process import ChildMessages
    from grbench.suite.suite import Cell
    from grbench.training.state import TrainState

KIND = "checkpoint"
TOKENIZER, TRAINING, ATTEMPT = "tokenizer.safetensors", "training.safetensors", "attempt"
LARGEST_SHARE = 0.05
"""The checkpoint of an epoch is left out where writing the last one took more than this share of the time since."""
BEAT_SECONDS = 1.0
"""So often the attempt's file is touched."""
ABOUT = {
    "machine": dict,
    "seconds": float,
    "phases": dict,
    "devices": int,
    "device_seconds": float,
    "throughput": dict,
    "stage": str,
    "total_steps": int,
}
"""What a checkpoint says of itself besides its training digest."""
MACHINE = ("device", "devices", "cpu", "gpu", "torch_threads", "python", "torch", "cuda", "numpy")
"""What of the environment a last bit may depend on."""


@dataclass
class Left:
    """What an earlier attempt left. about: of the newest checkpoint; stage: None where training had not begun; beside:
    the record's `cost.beside` until then, None where it is not known."""

    about: dict[str, Any]
    tokenizer: Mapping[str, Any] | None
    stage: Mapping[str, Any] | None
    beside: dict[str, Any] | None = None

    @property
    def position(self) -> str:
        """How far it is, in words."""
        if self.stage is None:
            return "from the fitted tokenizer"
        stage = f"stage {self.about['stage']}, " if self.about["stage"] else ""
        epoch, step = self.stage["epoch"], self.stage["step"]
        return f"from {stage}epoch {epoch}, step {step}" if step else f"after {stage}epoch {epoch - 1}"

    def curve(self) -> list[dict[str, Any]]:
        """The rows of the epochs that are done."""
        if self.stage is None:
            return []
        rows = [row for result in saved_results(self.stage) for row in result["curve"]]
        return [*rows, *self.stage["curve"]]


def checkpoints_of(cell: Cell, blank: Record, job: Mapping[str, Any], events: ChildMessages) -> Checkpoints | None:
    """The checkpoints of the cell that a child runs; None where nothing is trained. A trial writes none and goes on
    from none, because its search compares the validations of a whole training as they come."""
    trial = blank.trial is not None
    if not cell.method.stages or job["weights"]:
        return None
    return Checkpoints(
        checkpoint_folder(Path(job["folder"]), blank.digest),
        blank.training_digest,
        minutes=0 if trial else job["checkpoint_minutes"],
        device=job["device"],
        anew=trial or job["anew"],
        say=lambda text: events("note", text=text),
        tell=lambda first, rows: events("curve", first=first, rows=rows),
        written=lambda **facts: events("checkpoint", **facts),
        follows=not current().first,
    )


class Checkpoints:
    """Goes on from what an earlier attempt at the cell left, and leaves the same for the next one.

    training_digest: of the cell; a checkpoint of another one is not used. minutes: after so many a checkpoint is
    written within an epoch; 0 = none is ever written. anew: what was left is removed, and not used. say: is told in a
    sentence what was found and what went wrong, none of which ends the cell. tell: is told the rows of the training
    curve, and the place of the first of them. written: is told of each checkpoint what ran beside the earlier attempts
    that it goes on from, and how many seconds these took: `beside` and `earlier_seconds`.

    left: what the cell goes on from, None = it starts at its beginning. total_steps: that are done. tokenizer: the
    fitted tokenizer, as `saved_tokenizer` gives it.
    """

    def __init__(
        self,
        folder: Path,
        training_digest: str,
        *,
        minutes: float,
        device: str,
        anew: bool,
        say: Callable[[str], None],
        tell: Callable[[int, list[dict[str, Any]]], None],
        written: Callable[..., None] = lambda **_: None,
        follows: bool = False,
    ) -> None:
        """folder: of the cell's checkpoints; it need not exist, and is looked for among its siblings too. follows: of
        a rank that goes on from what the first one does, and changes no file."""
        self.folder, self.minutes, self._follows = folder, 0 if follows else minutes, follows
        self.tokenizer: Mapping[str, Any] = {}
        self.curve: list[dict[str, Any]] = []
        self._digest, self._device, self._say, self._tell = training_digest, torch.device(device), say, tell
        self._machine = {key: value for key, value in environment(device, git=False).items() if key in MACHINE}
        self._started = self._written = self._beaten = 0.0  # of this process's monotonic clock
        self._took = self._earlier_seconds = 0.0
        self._meter: Meter
        self._throughput: Throughput
        self._tell_written, self._complained = written, False
        self._trains = self._stops = False
        self._beside: dict[str, Any] | None = None
        if not follows and (anew or folder.is_symlink()):  # nothing is written through a link
            remove_checkpoints(folder.parent, folder.stem)
        self._lost_seconds, self._resumptions = self._lost_before()
        self._begin(None if anew else self._find())

    @property
    def total_steps(self) -> int:
        """Steps of training that need not be made again."""
        return 0 if self.left is None else int(self.left.about["total_steps"])

    def follow(self, meter: Meter, throughput: Throughput) -> None:
        """The clocks of the cell, which go on from those of the checkpoint."""
        self._meter, self._throughput = meter, throughput
        if self.left is not None:
            about = self.left.about
            meter.go_on_from(about["phases"], devices=about["devices"], device_seconds=about["device_seconds"])
            throughput.load_state_dict(self.left.about["throughput"])

    def discard(self, reason: str) -> None:
        """What was left turns out to be of no use: the cell starts at its beginning."""
        self._say(f"{TRAINING}: {reason}; training starts again")
        if not self._follows:
            (self.folder / TRAINING).unlink(missing_ok=True)
        self._resumptions -= 1
        self._begin(None)

    def costs(self) -> dict[str, Any]:
        """The record's entries: how often the cell went on from a checkpoint, the seconds of work after one that were
        lost, the seconds of earlier attempts that were not, and what of the machine was another then."""
        return {
            "resumptions": self._resumptions,
            "lost_seconds": self._lost_seconds,
            "earlier_seconds": self._earlier_seconds,
            **({"begun_with": self._elsewhere} if self._elsewhere else {}),
            **({"beside": self._beside} if self._beside else {}),
        }

    @contextlib.contextmanager
    def kept_when_stopped(self) -> Iterator[None]:
        """A context in which a process that is interrupted between two steps of training leaves a checkpoint of where
        it is, before KeyboardInterrupt is raised. Elsewhere it is raised at once."""
        if not self.minutes or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            if not self._trains or self._stops:
                raise KeyboardInterrupt
            self._stops = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._trains = False

    # --- what training calls

    def take_codes(self) -> Codes | None:
        """The codes of the tokenizer that was fitted before; sets the random generators as they were then."""
        if self.left is None or self.left.tokenizer is None:
            return None
        self.tokenizer, self.left.tokenizer = self.left.tokenizer, None
        if self.minutes and not (self.folder / TOKENIZER).is_file():  # it was another cell's
            self._write(TOKENIZER, {"tokenizer": self.tokenizer}, stage="", total_steps=0)
        return load_tokenizer(self.tokenizer, self._device)

    def tokenizer_fitted(self, codes: Codes) -> None:
        """Writes the fitted tokenizer."""
        self.tokenizer = saved_tokenizer(codes, self._device)
        if self.minutes:
            self._write(TOKENIZER, {"tokenizer": self.tokenizer}, stage="", total_steps=0)

    def take_stage(self) -> Mapping[str, Any] | None:
        """The saved state, which is not kept here: it is as large as the model."""
        if self.left is None or self.left.stage is None:
            return None
        stage, self.left.stage = self.left.stage, None
        return stage

    def __call__(self, state: TrainState) -> None:
        """Called after each step and epoch: writes a checkpoint where one is due."""
        now = time.monotonic()
        ends_epoch = state.step == 0
        if ends_epoch:
            rows = [row for result in state.finished for row in result.curve] + state.curve
            self._tell(len(self.curve), rows[len(self.curve) :])
            self.curve = [dict(row) for row in rows]
        divided = bool(divided_weights(state.modules))  # then the ranks save together, when the first one says so
        if not self.minutes and not divided:
            return
        if self.minutes and now - self._beaten >= BEAT_SECONDS:
            self._beaten = now
            with contextlib.suppress(OSError):  # then a second more or less counts as lost
                os.utime(self.folder / ATTEMPT)
        since = now - self._written
        # Not after an epoch's last step: its validation comes next, which would be logged twice.
        within = state.step < state.steps and (since >= 60 * self.minutes or self._stops)
        due = (ends_epoch and (since * LARGEST_SHARE >= self._took or self._stops)) or (within and not ends_epoch)
        due = due and bool(self.minutes)
        if divided:
            due = bool(current().from_first(due))
        if due:
            self._write(TRAINING, {"stage": state.state_dict()}, stage=state.name, total_steps=state.total_steps)
            if self._stops:
                raise KeyboardInterrupt
        self._trains = True

    # --- files

    def _begin(self, left: Left | None) -> None:
        self.left = left
        self._elsewhere = {} if left is None else self._begun_with(left.about)
        self._beside = None if left is None else left.beside
        self.curve = [] if left is None else left.curve()
        self._earlier_seconds = 0.0 if left is None else float(left.about["seconds"])
        self._started = self._written = self._beaten = time.monotonic()
        self._took = 0.0
        self._tell(0, self.curve)
        if left is not None:
            self._resumptions += 1
            other = ", ".join(f"{key} {was}" for key, was in self._elsewhere.items())
            note = f"; it was begun with {other}, so that the last digits of its scores may be others" if other else ""
            self._say(f"going on {left.position}{note}")
        if not self._follows and (self.minutes or self.folder.is_dir()):
            attempt = {"began": time.time(), "lost_seconds": self._lost_seconds, "resumptions": self._resumptions}
            with self._complaining():
                self.folder.mkdir(parents=True, exist_ok=True)
                with replacing(self.folder / ATTEMPT) as partial, partial.open("x") as file:
                    json.dump(attempt, file)

    def _find(self) -> Left | None:
        """What was left of this cell, else of one that trains the same model."""
        others = [other for other in sorted(self.folder.parent.glob("*.checkpoint")) if other != self.folder]
        for folder in (self.folder, *others):
            if (fitted := self._read(folder / TOKENIZER)) is None:
                continue
            about, tokenizer = fitted
            if (newest := self._read(folder / TRAINING)) is None:
                return Left(about, tokenizer["tokenizer"], None, kept_beside(folder))
            return Left(newest[0], tokenizer["tokenizer"], newest[1]["stage"], kept_beside(folder))
        return None

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """What the file holds, None where there is none that can be used; of the cell's own, this is said."""
        if not path.is_file():
            return None
        try:
            if (whose := read_about(path, KIND).get("training_digest")) != self._digest:
                raise DamagedFileError(f"{path}: it is of another experiment (training digest {whose})")
            about, content = read_file(path, KIND)
            _check(path, about, content)
            return about, content
        except DamagedFileError as error:
            if path.parent == self.folder:
                self._say(f"{error}; it is not used, the work starts again")
            return None

    def _write(self, name: str, content: Mapping[str, Any], *, stage: str, total_steps: int) -> None:
        """Writes a file, outside of the time of training. Where it cannot be written, this is said once."""
        if self._follows:
            return
        with self._throughput.paused(), self._meter.phase(KIND), self._complaining():
            began = time.monotonic()
            about = {
                "training_digest": self._digest,
                "machine": self._machine | self._elsewhere,
                "seconds": self._earlier_seconds + began - self._started,
                "phases": self._meter.costs(),
                "devices": current().size,
                "device_seconds": self._meter.device_seconds,
                "throughput": self._throughput.state_dict(),
                "stage": stage,
                "total_steps": total_steps,
            }
            try:
                write_file(self.folder / name, KIND, about, content)
            finally:
                self._written = time.monotonic()
                self._took = self._written - began
            self._tell_written(beside=self._beside, earlier_seconds=self._earlier_seconds)

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RunError) as error:
            if not self._complained:
                self._say(f"no checkpoint is written: {error}; the cell goes on without")
            self._complained = True

    def _lost_before(self) -> tuple[float, int]:
        """(seconds of work that earlier attempts lost, their resumptions), as their files tell."""
        path = self.folder / ATTEMPT
        try:
            said, ended = json.loads(path.read_text()), path.stat().st_mtime
            began, lost, resumptions = float(said["began"]), float(said["lost_seconds"]), int(said["resumptions"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, 0
        kept = [began]
        for name in (TOKENIZER, TRAINING):
            with contextlib.suppress(OSError):
                kept.append((self.folder / name).stat().st_mtime)
        return lost + max(0.0, ended - max(kept)), resumptions

    def _begun_with(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """What of the machine was another where the training began."""
        return {key: was for key, was in about["machine"].items() if self._machine.get(key) != was}


def _check(path: Path, about: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Raises DamagedFileError where a part is missing that is read before the cell is put together."""
    try:
        Left({**about}, content.get("tokenizer"), content.get("stage")).position  # noqa: B018 - whether it can be said
        for key, kind in ABOUT.items():
            if not isinstance(about[key], kind):
                raise ValueError(f"its {key} is no {kind.__name__}")
        if path.name == TRAINING:
            for result in saved_results(content["stage"]):
                TrainingResult(**result)
            saved_codes(content["stage"])
        else:
            tokenizer = content["tokenizer"]
            codes_that_were_saved(tokenizer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(f"{path}: it lacks what a checkpoint holds ({first_line(error)})") from error
