"""The `tuning` of a suite: which options of which methods are tuned, within which ranges, and each method's budget.

All methods have the same budget, sampler and pruner, and are chosen by the same metric, on validation only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from grbench.errors import Problems, SuiteError, cut
from grbench.registry.component import Component
from grbench.registry.discovery import Registry
from grbench.registry.option_types import Natural, Seed
from grbench.registry.options import bind, suggestion
from grbench.suite.grid import with_values
from grbench.suite.method import METHOD_KEYS, Method, bind_method

MAX_TRIALS = 1_000
"""Of a method, whatever its budget."""

MAX_STEPS = 1_000_000

DIGITS = 4
"""Significant digits of a fraction that is drawn, so that a table shows the value itself and a suite can repeat it."""

NOT_TUNED = ("extends", "grid", "ablation", "trackers")
"""Keys of a method that change nothing that is trained."""

VALIDATION_KEYS = ("validate_every", "validation_users", "select")
"""Keys of `training` that change what a trial's validation score means, so that trials could not be compared."""


def tuning_options(
    *,
    budget: dict[str, Any],
    space: Annotated[dict[str, dict[str, Any]], Field(min_length=1)],
    sampler: Literal["tpe", "random"] = "tpe",
    pruner: Literal["median", "none"] = "median",
    startup_trials: Natural = 5,
    batch: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 1,
    metric: str | None = None,
    seed: Seed = 0,
) -> None:
    """The keys of `tuning`, bound like a plug-in's options.

    Args:
        budget: what each tuned method has, `{trials: 12}` or `{training_seconds: 3600}`. Validations count as training;
            a trial that begins within its seconds is finished.
        space: for each method that is tuned, its options by dotted keys such as optimizer.lr, each with a list of
            values or a range.
        sampler: tpe (Bergstra and others, NeurIPS 2011, as Optuna has it, arXiv 1907.10902), or random.
        pruner: median = a trial is stopped where its best validation score so far is worse than the median of the
            others' at the same validation (Optuna's); none.
        startup_trials: trials that are drawn at random before tpe learns from them, and that are completed before any
            is pruned.
        batch: so many trials are drawn together, from what the batches before them came to, so that they may run at
            once (--jobs, --backend); how many do changes nothing. 1 = each trial knows all before it. With sampler
            random and pruner none, trials know nothing of each other, and all may run at once.
        metric: the metric of validation that trials are compared by; null = `select` of the method's training.
        seed: of the sampler. Trials are trained with the first of the suite's seeds.
    """


def budget_options(
    *,
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None,
    training_seconds: Annotated[float, Field(gt=0)] | None = None,
) -> None:
    """The keys of `tuning.budget`, of which one is given.

    Args:
        trials: number of trials.
        training_seconds: seconds of training of all trials together; at most 1,000 trials begin.
    """


def range_options(*, low: float, high: float, log: bool = False, step: float | None = None) -> None:
    """The keys of a range of numbers. They are whole numbers where the option takes no others.

    Args:
        low: smallest value.
        high: largest value.
        log: draw from the logarithms.
        step: distance between the values, from `low`.
    """


@dataclass(frozen=True)
class Budget:
    """What each tuned method may use: a number of trials, or seconds of training. One of them is None."""

    trials: int | None = None
    training_seconds: float | None = None

    def used(self, seconds: Iterable[float]) -> int | None:
        """How many trials of those that there are, of these seconds, are within the budget; None where another one may
        begin."""
        spent, count = 0.0, 0
        for each in seconds:
            if not self._left(count, spent):
                return count
            spent, count = spent + each, count + 1
        return None if self._left(count, spent) else count

    def to_json(self) -> dict[str, Any]:
        """As in the suite."""
        given = {"trials": self.trials, "training_seconds": self.training_seconds}
        return {key: value for key, value in given.items() if value is not None}

    def _left(self, count: int, spent: float) -> bool:
        if self.training_seconds is not None:
            return count < MAX_TRIALS and spent < self.training_seconds
        return count < (self.trials or 0)


@dataclass(frozen=True)
class Interval:
    """A range of numbers. whole: the option takes whole numbers only."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def value(self, drawn: float) -> float:
        """The value that an option gets for a number that was drawn: on the step's grid without an error of rounding, a
        fraction without a step with DIGITS significant digits."""
        if self.whole:
            return round(drawn)
        if self.step is not None:
            low, step = Decimal(str(self.low)), Decimal(str(self.step))
            return float(low + round((drawn - self.low) / self.step) * step)
        return min(max(float(f"{drawn:.{DIGITS}g}"), float(self.low)), float(self.high))

    def examples(self) -> list[float]:
        """Values by which a range is checked against its option."""
        return [self.low, self.high]

    def to_json(self) -> dict[str, Any]:
        """As in the suite, with defaults."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


@dataclass(frozen=True)
class Choices:
    """A list of values, in no order."""

    values: tuple[Any, ...]

    def examples(self) -> list[Any]:
        """Values by which the list is checked against its option."""
        return list(self.values)

    def to_json(self) -> list[Any]:
        """As in the suite."""
        return list(self.values)


Space = dict[str, Interval | Choices]
"""{dotted key of a method: its range}"""


@dataclass(frozen=True)
class Tuning:
    """spaces: of each tuned method. The other fields are the keys of `tuning_options`."""

    budget: Budget
    spaces: dict[str, Space] = field(default_factory=dict)
    sampler: str = "tpe"
    pruner: str = "median"
    startup_trials: int = 5
    batch: int = 1
    metric: str | None = None
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        """What the trials that are tried depend on, besides budget and space; of batches of one, nothing is said."""
        batch = {"batch": self.batch} if self.batch != 1 else {}
        return {key: getattr(self, key) for key in ("sampler", "pruner", "startup_trials", "seed")} | batch

    def known_before(self, number: int) -> int:
        """The trials with a smaller number than this one are what trial `number` depends on."""
        return 0 if self.sampler == "random" and self.pruner == "none" else number - number % self.batch

    def metric_of(self, method: Method) -> str:
        """The metric that the trials of a method are compared by."""
        return self.metric or str(method.stages[-1].training["select"])


def read_tuning(
    content: Any, methods: Iterable[str], grids: Iterable[str], where: str, problems: Problems
) -> Tuning | None:
    """The `tuning` of a suite file, None without. methods: names of those without a grid; grids: of those with one.
    What is wrong is added to `problems`; None where nothing can be made of it."""
    if content is None:
        return None
    with problems:
        if not isinstance(content, dict):
            raise SuiteError(f"{where}: should be a mapping of keys such as budget and space")
        bound = bind(tuning_options, content, where)
        budget = bind(budget_options, bound["budget"], f"{where}.budget")
        if (budget["trials"] is None) == (budget["training_seconds"] is None):
            raise SuiteError(
                f"{where}.budget: should be one of trials and training_seconds, such as {{trials: 12}}, got "
                f"{cut(json.dumps(bound['budget']))}"
            )
        spaces = {}
        for name, options in bound["space"].items():
            with problems:
                if name in grids:
                    raise SuiteError(
                        f"{where}.space.{cut(name)}: the method has a grid, whose rows are methods of their own; "
                        "remove the grid, and give its values here"
                    )
                if name not in methods:
                    raise SuiteError(f"{where}.space: unknown method {cut(name)!r}; {suggestion(name, methods)}")
                spaces[name] = _read_space(options, f"{where}.space.{name}", problems)
        given = {key: bound[key] for key in ("sampler", "pruner", "startup_trials", "batch", "metric", "seed")}
        return Tuning(Budget(**budget), spaces, **given)
    return None


def _read_space(options: Mapping[str, Any], where: str, problems: Problems) -> Space:
    if not options:
        raise SuiteError(f"{where}: should map keys such as optimizer.lr to a list of values or a range")
    space: Space = {}
    known = [key for key in METHOD_KEYS if key not in NOT_TUNED]
    for key, values in options.items():
        with problems:
            first = key.partition(".")[0]
            if first not in known:
                raise SuiteError(f"{where}: unknown key {cut(key)!r}; {suggestion(first, known)}")
            if key.rpartition(".")[2] in VALIDATION_KEYS and "training" in key.split("."):
                raise SuiteError(
                    f"{where}.{key}: changes what validation scores mean, so that trials cannot be compared"
                )
            space[key] = _read_range(values, f"{where}.{key}")
    return space


def _read_range(values: Any, where: str) -> Interval | Choices:
    if isinstance(values, list) and values:
        texts = [json.dumps(value, sort_keys=True) for value in values]
        if len(set(texts)) < len(texts):
            raise SuiteError(f"{where}: a value is given twice")
        return Choices(tuple(values))
    if not isinstance(values, dict):
        raise SuiteError(
            f"{where}: should be a list of values, or a range such as {{low: 0.001, high: 0.1, log: true}}, got "
            f"{cut(json.dumps(values))}"
        )
    bind(range_options, values, where)
    given = Interval(**values)  # as written: 1 is a whole number, 1.0 is none
    if not given.low < given.high:
        raise SuiteError(f"{where}.high: should be above low, {given.low}; got {given.high}")
    if given.log and given.low <= 0:
        raise SuiteError(f"{where}.low: should be above 0 where log is true, got {given.low}")
    if given.log and given.step is not None:
        raise SuiteError(f"{where}.step: log is true, which has no steps; give one of them")
    if given.step is not None and not (given.high - given.low) / MAX_STEPS <= given.step <= given.high - given.low:
        raise SuiteError(
            f"{where}.step: should be above 0 and at most high - low, with at most {MAX_STEPS:,} values, got "
            f"{given.step}"
        )
    return given


def tuned_method(
    registry: Registry, name: str, keys: Mapping[str, Any], values: Mapping[str, Any], where: str
) -> Method:
    """The method with other values of these keys. keys: of the method, as its suite has them, with `extends` and
    defaults merged. Raises SuiteError and PluginError as `bind_method` does."""
    return bind_method(registry, name, with_values(keys, values, where), where, [])


def check_tuning(
    tuning: Tuning,
    registry: Registry,
    methods: Mapping[str, tuple[Method, Mapping[str, Any]]],
    *,
    protocol: Component,
    cutoffs: Mapping[str, int | None],
    path: str,
) -> dict[str, Space]:
    """{tuned method: its space} of the methods given, with what is known once their options are. methods: {name: (the
    method, its keys in the suite)}; cutoffs: {metric: its k}; path: of the suite.

    Raises SuiteError where a method cannot be tuned so, or a value does not fit its option.
    """
    problems, spaces = Problems(), dict[str, Space]()
    tuned = {name: space for name, space in tuning.spaces.items() if name in methods}
    with problems:
        if tuned and protocol.options.get("validation_share") == 0:
            raise SuiteError(
                f"{path}: protocol.validation_share: is 0, so that there are no validation users to tune on; set it "
                "above 0, such as 0.05: they are taken from the training users"
            )
    for name, space in tuned.items():
        method, keys = methods[name]
        with problems:
            _check_method(tuning, method, cutoffs, path)
        checked: Space = {}
        for key, values in space.items():
            with problems:
                checked[key] = _check_range(registry, name, keys, (key, values), f"{path}: tuning.space.{name}")
        spaces[name] = checked
    problems.raise_found()
    return spaces


def _check_method(tuning: Tuning, method: Method, cutoffs: Mapping[str, int | None], path: str) -> None:
    where = f"{path}: tuning.space.{method.name}"
    if not method.stages:
        raise SuiteError(f"{where}: nothing of this method is trained, so there is nothing to choose on validation")
    training = method.stages[-1].training
    if not training.get("validate_every"):
        key = f"{path}: methods.{method.name}.{method.training_key(len(method.stages) - 1)}.validate_every"
        raise SuiteError(f"{key}: is needed, because trials are chosen on validation; set it to a number of epochs")
    metric, selected = tuning.metric_of(method), str(training["select"])
    if metric not in cutoffs:
        raise SuiteError(
            f"{path}: tuning.metric: this suite has no metric {cut(metric)!r}; {suggestion(metric, cutoffs)}"
        )
    # Validation measures what its lists are long enough for.
    if metric != selected and not 0 < (cutoffs[metric] or 0) <= (cutoffs.get(selected) or 0):
        raise SuiteError(
            f"{path}: tuning.metric: {metric} is not validated where training selects by {selected}, whose lists are "
            f"too short for it; let {method.name}'s training select by {metric}"
        )


def _check_range(
    registry: Registry, name: str, keys: Mapping[str, Any], option: tuple[str, Interval | Choices], where: str
) -> Interval | Choices:
    key, values = option
    for value in values.examples():
        tuned_method(registry, name, keys, {key: value}, where)
    if not isinstance(values, Interval):
        return values
    try:
        tuned_method(registry, name, keys, {key: math.floor(values.low) + 0.5}, where)
    except SuiteError as error:
        ends = (values.low, values.high, values.low if values.step is None else values.step)
        if any(end != round(end) for end in ends):
            raise SuiteError(f"{where}.{key}: takes whole numbers, so low, high and step should be whole") from error
        return replace(values, whole=True)
    return values
