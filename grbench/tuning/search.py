"""The search for the best values of a method's options: an Optuna study in a file that several runs may share.

What a trial tries is a function of the trials before it, or where they come in batches, of the batches before its own:
each one's sampler has a seed of its own, by the trial's number, and sees those of them that are finished. So a search
that was killed goes on as if it had not been, and a search by one run alone gives the same trials each time, however
many of a batch it runs at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from grbench.errors import RunError, first_line
from grbench.suite.tuning import Choices, Interval, Space, Tuning

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

State = Literal["running", "complete", "pruned", "failed"]

STUDIES = "optuna.log"
"""The file of a folder's searches."""

INTERRUPTED = ("killed", "timeout", "oom")
"""How a trial may end on one machine, or at one time, and not on another."""


@dataclass(frozen=True)
class Trial:
    """One trial. number: 0 = the first; scores: {epoch: validation score} as far as they came; value: the best of them,
    by which trials are compared, None unless it is complete; seconds: of training; status: of its record; sequential:
    whether all trials that it depends on had ended when it began."""

    number: int
    values: dict[str, Any]
    state: State
    value: float | None = None
    seconds: float = 0.0
    status: str = "ok"
    sequential: bool = True
    scores: dict[int, float] = field(default_factory=dict)


class Search:
    """The search for one method. folder: of the trials' records, where the study's file lies; name: of the study, which
    stands for all that a trial's value depends on, but for the values that it tries. Raises RunError where the file is
    damaged."""

    def __init__(self, folder: Path, name: str, space: Space, tuning: Tuning, *, higher_is_better: bool) -> None:
        self.folder, self.name, self.space, self.tuning = folder, name, space, tuning
        self.higher_is_better = higher_is_better
        self._claims: dict[int, IO[bytes]] = {}
        self._lock = threading.RLock()  # trials that run at once report from threads of their own
        self._study: Study | None = None
        self._read_only: JournalStorage | None = None

    @property
    def trials(self) -> list[Trial]:
        """All trials within the budget, by number. Before any was claimed, the file is only read."""
        with self._lock:
            study = self._study or self._read()
            return [] if study is None else self._within_budget(self._all(study))

    @property
    def finished(self) -> bool:
        """Whether the budget is used, and no trial runs."""
        trials = self.trials
        used = self.tuning.budget.used(trial.seconds for trial in trials) is not None
        return used and all(trial.state != "running" for trial in trials)

    @property
    def chosen(self) -> Trial | None:
        """The complete trial of the best value, the first of equals; None before the search is finished, and where no
        trial was completed."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        if not complete or not self.finished:
            return None
        sign = 1 if self.higher_is_better else -1
        return max(complete, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))

    @property
    def not_repeatable(self) -> list[str]:
        """Why the same search may end otherwise another time; empty where it does not."""
        trials, reasons = self.trials, []
        if self.tuning.budget.trials is None:
            reasons.append("its budget is in seconds")
        if not all(trial.sequential for trial in trials):
            reasons.append("trials ran beside each other")
        if ended := [trial.status for trial in trials if trial.status in INTERRUPTED]:
            reasons.append(f"trials ended as {' and '.join(sorted(set(ended)))}")
        return reasons

    @property
    def waits(self) -> bool:
        """Whether the next trial depends on one that this process is at."""
        with self._lock:
            known = self.tuning.known_before(len(self._all(self._opened)))
            return any(number < known for number in self._claims)

    def claim(self) -> Trial | None:
        """The next trial to run, which no other run has until `finish` or the end of this process: one that another run
        was killed in, or else a new one. None where all have ended or are run by others."""
        with self._locked():
            trials = self._all(self._opened)
            for trial in trials:
                if trial.state == "running" and self._take(trial.number):
                    return trial
            if self.tuning.budget.used(trial.seconds for trial in trials) is not None:
                return None
            known = trials[: self.tuning.known_before(len(trials))]
            return self._begin(len(trials), sequential=all(trial.state != "running" for trial in known))

    def report(self, trial: Trial, epoch: int, scores: Mapping[int, float]) -> bool:
        """Keeps the validation score of an epoch; true where the trial is to be pruned. scores: {epoch: score} of the
        trial so far. Only the trials that it depends on count, so that others that run beside it change nothing."""
        from optuna.trial import TrialState, create_trial

        with self._lock:
            if epoch not in trial.scores:
                self._storage.set_trial_intermediate_value(self._id(trial.number), epoch, scores[epoch])
            if self.tuning.pruner == "none":
                return False
            before = self._copy(trial.number)
            known = {each: score for each, score in scores.items() if each <= epoch}
            return bool(before.pruner.prune(before, create_trial(state=TrialState.RUNNING, intermediate_values=known)))

    def finish(self, trial: Trial, state: State, value: float | None, seconds: float, status: str) -> None:
        """The trial has ended; no other run can claim it any more."""
        from optuna.trial import TrialState

        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        with self._locked():
            for key, fact in {"seconds": seconds, "status": status}.items():
                self._storage.set_trial_user_attr(self._id(trial.number), key, fact)
            self._opened.tell(trial.number, value if state == "complete" else None, state=states[state])
            self._release(trial.number)

    def facts(self) -> dict[str, Any]:
        """The search as a record has it, without the chosen trial."""
        trials, tuning = self.trials, self.tuning
        states = [trial.state for trial in trials]
        return {
            "budget": tuning.budget.to_json(),
            "trials": len(trials),
            **{state: states.count(state) for state in ("complete", "pruned", "failed")},
            **tuning.facts(),
            "space": {key: values.to_json() for key, values in self.space.items()},
            "seconds": math.fsum(trial.seconds for trial in trials),
            "not_repeatable": self.not_repeatable,
        }

    def _begin(self, number: int, *, sequential: bool) -> Trial:
        from optuna.trial import TrialState, create_trial

        drawn = self._copy(number).ask(self._distributions()).params
        self._opened.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=drawn,
                distributions=self._distributions(),
                user_attrs={"sequential": sequential},
            )
        )
        self._take(number)
        return self._all(self._opened)[number]

    def _copy(self, number: int) -> Study:
        """A study in memory of the finished trials that this one depends on, with this trial's sampler."""
        import optuna

        copy = optuna.create_study(
            direction=self._direction, sampler=_sampler(self.tuning, number), pruner=_pruner(self.tuning)
        )
        before = self._opened.get_trials(deepcopy=False)[: self.tuning.known_before(number)]
        copy.add_trials([trial for trial in before if trial.state.is_finished()])
        return copy

    @property
    def _opened(self) -> Study:
        """The study, made where it is not there."""
        import optuna

        from grbench.tuning.journal import open_journal

        if self._study is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            with self._named_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._storage = open_journal(self._file)
                self._study = optuna.create_study(
                    storage=self._storage, study_name=self.name, direction=self._direction, load_if_exists=True
                )
        return self._study

    def _read(self) -> Study | None:
        """The study in the file, of which nothing is written; None where it is not there."""
        if not self._file.is_file():
            return None
        import optuna

        from grbench.tuning.journal import read_journal

        with self._named_errors():
            self._read_only = self._read_only or read_journal(self._file)
            if self.name not in optuna.get_all_study_names(self._read_only):
                return None
            return optuna.load_study(study_name=self.name, storage=self._read_only)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raises RunError, which names the file, for one that cannot be opened or is damaged."""
        try:
            yield
        except OSError as error:
            raise RunError(f"{self._file}: cannot be opened ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self._file}: is damaged ({first_line(error)}); move it away or delete it: the records of the "
                "trials beside it are kept, so that none is trained again"
            ) from error

    @property
    def _file(self) -> Path:
        return self.folder / STUDIES

    @property
    def _direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.higher_is_better else "minimize"

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self.name)
        found: int = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        return found

    def _all(self, study: Study) -> list[Trial]:
        return [self._trial(trial) for trial in study.get_trials(deepcopy=False)]

    def _within_budget(self, trials: Sequence[Trial]) -> list[Trial]:
        return list(trials[: self.tuning.budget.used(trial.seconds for trial in trials)])

    def _trial(self, trial: FrozenTrial) -> Trial:
        states: dict[str, State] = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        state = states[trial.state.name]
        return Trial(
            number=trial.number,
            values={key: _value(values, trial.params[key]) for key, values in self.space.items()},
            state=state,
            value=trial.value if state == "complete" else None,
            scores=dict(trial.intermediate_values),
            **{key: trial.user_attrs[key] for key in ("seconds", "status", "sequential") if key in trial.user_attrs},
        )

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {key: _distribution(values) for key, values in self.space.items()}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other runs from claiming and finishing trials meanwhile. The kernel lets go of a killed process's
        lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock, (self.folder / "claims.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _claim_file(self, number: int) -> Path:
        return self.folder / f"{hashlib.sha256(self.name.encode()).hexdigest()[:16]}-{number}.lock"

    def _take(self, number: int) -> bool:
        """Claims a trial; false where another run has it."""
        file = self._claim_file(number).open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._claims[number] = file
        return True

    def _release(self, number: int) -> None:
        self._claim_file(number).unlink(missing_ok=True)
        self._claims.pop(number).close()


def _sampler(tuning: Tuning, number: int) -> Any:
    from optuna.samplers import RandomSampler, TPESampler

    seed = int.from_bytes(hashlib.sha256(f"{tuning.seed} {number}".encode()).digest()[:4])
    if tuning.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(n_startup_trials=tuning.startup_trials, multivariate=False, seed=seed)


def _pruner(tuning: Tuning) -> Any:
    from optuna.pruners import MedianPruner, NopPruner

    return NopPruner() if tuning.pruner == "none" else MedianPruner(n_startup_trials=tuning.startup_trials)


def _distribution(values: Interval | Choices) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choices):
        return CategoricalDistribution([json.dumps(value) for value in values.values])
    low, high, step = values.low, values.high, values.step
    if step is not None:  # the largest value that the steps reach
        count = (Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step))
        high = float(Decimal(str(low)) + count * Decimal(str(step)))
    if values.whole:
        return IntDistribution(round(low), round(high), log=values.log, step=1 if step is None else round(step))
    return FloatDistribution(float(low), float(high), log=values.log, step=step)


def _value(values: Interval | Choices, drawn: Any) -> Any:
    """The value that an option gets for what Optuna has drawn."""
    return json.loads(drawn) if isinstance(values, Choices) else values.value(drawn)


def values_text(values: Mapping[str, Any]) -> str:
    """`optimizer.lr=0.001234, encoder.blocks=2`, as a suite would have them."""
    return ", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
