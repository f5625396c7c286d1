"""Computing metrics of rankings, for each query, and the validation scores that select the best state of training.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from grbench.cost.meter import Meter
from grbench.data.split import Split
from grbench.distributed.ranks import current
from grbench.errors import RunError, SuiteError
from grbench.evaluation.ranking import Ranker
from grbench.interfaces import Metric, Retriever
from grbench.types import Codes, Ranking


def score(metrics: Sequence[Metric], ranking: Ranking) -> dict[str, np.ndarray]:
    """{metric's name: [Q] float64, one value per query}.

    Raises RunError where a metric returns another shape or a value that is not finite, SuiteError where two metrics
    have the same name.
    """
    values: dict[str, np.ndarray] = {}
    for metric in metrics:
        each = np.asarray(metric(ranking), np.float64)
        if each.shape != (len(ranking.users),):
            raise RunError(
                f"metric {metric.name}: returned shape {each.shape}; it should return one value per query, "
                f"({len(ranking.users)},)"
            )
        if not np.isfinite(each).all():
            user = int(ranking.users[~np.isfinite(each)][0])
            raise RunError(f"metric {metric.name}: its value for user row {user} is not finite")
        if metric.name in values:
            raise SuiteError(f"metric {metric.name}: listed twice")
        values[metric.name] = each
    return values


def score_lists(
    metrics: Sequence[Metric], cutoffs: Sequence[int | None], length: int, scored: Ranking, kept: Ranking | None
) -> dict[str, np.ndarray]:
    """Metrics of the lists of a finished cell: {name: [Q] float64}, one value per query.

    cutoffs: each metric's k, None where it has none; length: of the lists that a search for these metrics would give;
    scored, kept: the lists that were scored, and longer ones. A metric gets the scored lists where they have at least k
    items, else the longer ones, in both cases cut to `length`. Raises RunError where none are long enough.
    """
    values: dict[str, np.ndarray] = {}
    for metric, k in zip(metrics, cutoffs, strict=True):
        long_enough = (lists for lists in (scored, kept) if lists is not None and (k or 1) <= lists.items.shape[1])
        lists = next(long_enough, None)
        if lists is None:
            raise RunError(f"metric {metric.name}: the recorded lists have fewer than {k} items")
        values |= score([metric], lists.cut(length))
    return values


def check_metrics(metrics: Sequence[Metric], split: Split, k: int) -> None:
    """Computes the metrics of a ranking without queries, so that an error of a metric that does not fit the dataset is
    raised before training. Raises what `score` and the metrics raise."""
    score(metrics, empty_ranking(split, k))


def empty_ranking(split: Split, k: int) -> Ranking:
    """A ranking without queries, with lists of k."""
    empty, targets, lists = np.zeros(0, np.int64), np.zeros((0, 1), np.int64), np.zeros((0, k), np.int64)
    return Ranking(
        users=empty,
        items=lists,
        scores=lists.astype(np.float32),
        targets=targets,
        target_actions=targets,
        ranks=targets,
        actions=split.training.catalogue.actions,
        pool=len(split.candidates),
        history_lengths=empty,
        training=split.training,
        histories=split.test.histories.select(empty),
        target_times=None if split.test.target_times is None else targets,
    )


def validation_scores(
    retriever: Retriever,
    encoder: Any,
    split: Split,
    codes: Codes,
    metrics: Sequence[Metric],
    *,
    k: int,
    users: int | None = None,
    filters: Sequence[str] = (),
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    meter: Meter | None = None,
) -> dict[str, float]:
    """The metrics' means, by name, over the split's validation queries or a sample of so many `users` of them
    (`Queries.sample`). k: length of the lists.

    Timed as the phase `validate`, which is not part of training. Raises SuiteError where the split has no validation
    queries. On several devices the first rank scores all lists.
    """
    if split.validation is None or not len(split.validation):
        raise SuiteError(
            "training.validate_every: the protocol holds out no validation users; set its validation share above 0"
        )
    with meter.phase("validate") if meter else nullcontext():
        ranker = Ranker(retriever, encoder, split, codes, k=k, filters=filters, batch_size=batch_size, device=device)
        ranking = ranker.rank(split.validation.sample(users))
        return current().done_by_first(
            lambda: {name: float(values.mean()) for name, values in score(metrics, ranking).items()}
        )
