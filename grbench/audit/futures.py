"""Does any statistic know what evaluated users did after their cutoff?"""

from __future__ import annotations

from grbench.audit.audit import Audit
from grbench.audit.audited_method import AuditedMethod
from grbench.audit.changed_futures import overlaps
from grbench.results.audit_file import AuditResult


class EvaluatedFutures(Audit):
    """Trains with other events from the cutoff on, and compares what is learnt from: training events, item counts,
    codes, graphs, dates, corrections, candidates. Where a test query's history holds the validation target, its lists
    are left out."""

    name = "evaluated_futures"
    meaning = (
        "A statistic (popularity, logQ, graph, codes, dates, candidates) counts events of evaluated users after their "
        "cutoff. Compute it from the training data that the part is given; a protocol must end histories at the cutoff."
    )

    def run(self, method: AuditedMethod) -> AuditResult:
        """See Audit."""
        ranked = not overlaps(method.split)
        return self.compared(method, method.on_changed, changed=method.changed.changed, ranked=ranked)
