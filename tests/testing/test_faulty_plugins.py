"""Each check of the conformance kit fails a plug-in that is right but for one fault, and passes those that are "
"right."""

from __future__ import annotations

import faulty_data
import faulty_models  # noqa: F401 - they are collected in `faulty_parts.FAULTY`
import faulty_scores
import faulty_search  # noqa: F401
import faulty_trackers
import faulty_training  # noqa: F401
import pytest
from faulty_parts import FAULTY, checked

from grbench.hookspecs import KINDS
from grbench.registry.options import options_of
from grbench.testing.checks.all_checks import CHECKS
from grbench.testing.checks.plain_parts import PlainMetric, PlainParts
from grbench.testing.checks.run_checks import run_check

EVERY = [check for checks in CHECKS.values() for check in checks]
OF_SEVERAL_KINDS = {check.name for check in EVERY if sum(check.run is other.run for other in EVERY) > 1}
RIGHT = {
    **{(kind, name): part for kind, parts in PlainParts.FACTORIES.items() for name, part in parts.items()},
    ("datasets", "lines"): faulty_data.Lines,
    ("slices", "parity"): faulty_scores.Parity,
    ("trackers", "lines"): faulty_trackers.Lines,
}


@pytest.mark.parametrize("check", [pytest.param(check, id=f"{check.kind}-{check.name}") for check in EVERY])
def test_a_faulty_plugin_fails_the_check(check, tmp_path):
    if check.name in OF_SEVERAL_KINDS and (check.kind, check.name) not in FAULTY:
        assert any(name == check.name for _, name in FAULTY)
        return
    assert (check.kind, check.name) in FAULTY, "write a plug-in that fails this check (tests/support/faulty_*.py)"
    factory, options = FAULTY[check.kind, check.name]
    if "path" in options_of(factory):
        options = {"path": str(faulty_data.write_lines(tmp_path / "lines.txt"))}
    outcome = run_check(check, checked(check.kind, factory, **options))
    assert outcome.verdict == "failed", outcome.seen
    assert outcome.seen


@pytest.mark.parametrize(("kind", "name"), RIGHT, ids=map("-".join, RIGHT))
def test_a_right_plugin_passes_all(kind, name, tmp_path):
    options = {"path": str(faulty_data.write_lines(tmp_path / "lines.txt"))} if kind == "datasets" else {}
    outcomes = [run_check(check, checked(kind, RIGHT[kind, name], **options)) for check in CHECKS[kind]]
    wrong = {each.check.name: each.seen for each in outcomes if each.verdict == "failed"}
    assert not wrong
    assert sum(each.verdict == "passed" for each in outcomes) > len(outcomes) / 2


def test_no_fault_is_without_a_check():
    assert {*FAULTY} <= {(check.kind, check.name) for check in EVERY}
    assert {*CHECKS} == {*KINDS}


def test_every_check_says_what_it_means_and_how_to_mend_it():
    for check in EVERY:
        assert check.means.endswith(".")
        assert check.mend.endswith(".")
        assert check.run.__doc__
    assert len({(check.kind, check.name) for check in EVERY}) == len(EVERY)


def test_a_plugin_that_ends_the_program_fails_its_check_alone():
    class Ends(PlainMetric):
        def __call__(self, ranking):
            raise SystemExit(3)

    (check,) = [each for each in CHECKS["metrics"] if each.name == "one_value_a_query"]
    outcome = run_check(check, checked("metrics", Ends))
    assert outcome.verdict == "failed"
    assert outcome.seen.startswith("raised SystemExit: 3")
