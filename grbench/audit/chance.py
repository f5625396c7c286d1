"""Does a method score at chance where there is nothing to know, and an oracle as high as the scale goes?

Shapes: Q queries, G targets per query, K list length, n independent events.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grbench.audit.audit import Audit
from grbench.audit.audited_method import AuditedMethod
from grbench.audit.changed_futures import drawn_from
from grbench.audit.oracle import Oracle
from grbench.data.split import Queries
from grbench.evaluation.filters import unreachable_targets
from grbench.evaluation.scoring import score
from grbench.results.audit_file import AuditResult
from grbench.types import Ranking

UNLIKELY = 1e-4
"""Of a clean method, the probability to fail."""


class Chance(Audit):
    """Targets are drawn uniformly from the pool before anything is trained: nothing that may be known says which.
    Whatever a method has learnt, it finds each with the probability (items of its list that would count) / pool, also
    one that learns nothing but statistics, with filters and with ties. Then an oracle takes the retriever's place."""

    name = "chance"
    meaning = (
        "Targets drawn at random are found more or less often than chance has it, so that the lists depend on them; or "
        "an oracle that lists the targets first is not scored as the best: then filters, ranks or a metric are wrong."
    )

    def run(self, method: AuditedMethod) -> AuditResult:
        """See Audit."""
        queries, ranking = _drawn(method)
        found, shares = (ranking.ranks > 0)[queries.targets > 0], self._shares(method, queries, ranking)
        hits = int(found.sum())
        least, most = interval(shares, UNLIKELY)
        of_all = f"{hits:,} of {len(shares):,} targets drawn at random are found, {shares.sum():.1f} are expected"
        if not least <= hits <= most and method.not_repeatable is not None:
            return self.unknown(f"two equal runs differ, first in {method.not_repeatable.text}, so nothing is expected")
        if not least <= hits <= most:
            return self.leak(f"{of_all}, and {least:,} to {most:,} are likely")
        if fault := _fault_of_oracle(method, queries):
            return self.leak(fault)
        return self.passed(f"{of_all} ({least:,} to {most:,} are likely); an oracle finds every target that it can")

    def _shares(self, method: AuditedMethod, queries: Queries, ranking: Ranking) -> np.ndarray:
        """[n] the probability with which each target is found: which of its query's listed items would count as found,
        ties included, is seen by ranking them as targets."""
        listed = method.rank(method.on_redrawn, replace(queries, targets=ranking.items))
        share = (listed.ranks > 0).sum(axis=1) / len(method.on_redrawn.split.candidates)
        shares: np.ndarray = np.broadcast_to(share[:, None], queries.targets.shape)[queries.targets > 0]
        return shares


def interval(shares: np.ndarray, unlikely: float) -> tuple[int, int]:
    """shares [n]: probabilities of independent events -> the least and the most of them that happen, but for a
    probability of at most unlikely / 2 on either side (the Poisson binomial distribution)."""
    at_most = np.cumsum(_distribution(shares))
    least = int(np.searchsorted(at_most, unlikely / 2, side="right"))
    most = int(np.searchsorted(at_most, 1 - unlikely / 2))
    return least, min(most, len(shares))


def _distribution(shares: np.ndarray) -> np.ndarray:
    """[n + 1] the probability of each number of events, from the transform of its generating function."""
    count = len(shares) + 1
    roots = np.exp(2j * np.pi * np.arange(count) / count)
    transform = np.ones(count, np.complex128)
    for block in np.array_split(shares, max(1, len(shares) // 256)):
        transform *= np.prod(1 - block[:, None] + block[:, None] * roots, axis=0)
    return np.clip(np.fft.fft(transform).real / count, 0, 1)


def _drawn(method: AuditedMethod) -> tuple[Queries, Ranking]:
    """Queries whose targets were drawn uniformly from the pool, and their lists. Where the protocol adds targets to the
    pool, they are drawn once the pool is known."""
    run = method.on_redrawn
    if method.redrawn.drawn:
        return run.split.test, run.ranking
    queries = run.split.test
    drawn = drawn_from(run.split.candidates, queries.targets.shape)
    queries = replace(queries, targets=np.where(queries.targets > 0, drawn, 0))
    return queries, method.rank(run, queries)


def _fault_of_oracle(method: AuditedMethod, queries: Queries) -> str | None:
    """What is wrong with the scores of an oracle; None where nothing is."""
    run = method.on_redrawn
    ranking = method.rank(run, queries, Oracle(queries))
    present = queries.targets > 0
    reachable = int(present.sum()) - unreachable_targets(run.split, queries, method.cell.method.filters).get("any", 0)
    first = (ranking.ranks > 0) & (ranking.ranks <= present.sum(axis=1, keepdims=True))
    if int(first.sum()) != reachable:
        return f"an oracle finds {int(first.sum()):,} of the {reachable:,} targets that the filters leave"
    best, worst = score(run.method.metrics, ranking), score(run.method.metrics, _without_targets(ranking))
    for metric in run.method.metrics:
        gain = float(best[metric.name].mean() - worst[metric.name].mean())
        if gain < 0 if metric.higher_is_better else gain > 0:
            return f"{metric.name} says that lists without any target are better than those of an oracle"
    return None


def _without_targets(ranking: Ranking) -> Ranking:
    """The same lists, in which no target is found."""
    return replace(ranking, ranks=np.zeros_like(ranking.ranks))
