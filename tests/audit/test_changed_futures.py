"""Stores whose futures are other ones: who is evaluated and what is known of them stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audited import small_world

from grbench.audit.changed_futures import overlaps, with_changed_futures, with_drawn_targets
from grbench.audit.digests import digest_of
from grbench.interfaces import EvaluationProtocol
from grbench_reference.protocols.last_positive import LastPositive
from grbench_reference.protocols.leave_last_out import LeaveLastOut

PROTOCOLS: dict[str, Any] = {
    "leave_last_out": LeaveLastOut(),
    "last_positive": LastPositive(positives=["click"], evaluation_share=0.3, validation_share=0.2, pool="catalogue"),
    "targets join the pool": LastPositive(positives=["click"], evaluation_share=0.5, out_of_pool="add"),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_targets_differ_and_what_may_be_known_does_not(tmp_path: Path, name: str) -> None:
    protocol: EvaluationProtocol = PROTOCOLS[name]
    store = small_world(tmp_path).store
    split = protocol.split(store)
    other = with_drawn_targets(store, split, protocol)
    assert np.mean(other.split.test.targets != split.test.targets) > 0.9
    assert other.drawn == (name != "targets join the pool")
    assert digest_of(other.split.training, other.split.candidates) == digest_of(split.training, split.candidates)
    assert digest_of(other.split.test.histories) == digest_of(split.test.histories)
    differing = np.flatnonzero(other.store.items != store.items)
    assert len(differing) <= sum(map(len, filter(None, [split.test, split.validation])))
    assert other.store.actions is store.actions


@pytest.mark.parametrize("name", PROTOCOLS)
def test_whole_futures_differ_and_the_cutoffs_do_not(tmp_path: Path, name: str) -> None:
    protocol: EvaluationProtocol = PROTOCOLS[name]
    store = small_world(tmp_path).store
    split = protocol.split(store)
    other = with_changed_futures(store, split, protocol)
    assert digest_of(other.split.training, other.split.candidates) == digest_of(split.training, split.candidates)
    assert np.array_equal(other.split.test.users, split.test.users)
    # Later exposures would become clicks, and the last click another one.
    assert other.changed.startswith(
        "the items, actions and times" if name == "leave_last_out" else "the items and times"
    )
    assert (np.diff(np.asarray(other.store.times))[np.diff(store.times) >= 0] >= 0).mean() > 0.8
    # Where a user is validated and tested, the test history holds the validation target, which is a future too.
    same_histories = digest_of(other.split.test.histories) == digest_of(split.test.histories)
    assert same_histories == (not overlaps(split)) == (name != "leave_last_out")
