"""Runs checks, and keeps what came of each."""

from __future__ import annotations

import traceback
import warnings
from dataclasses import dataclass
from typing import Literal

from grbench.errors import DataError, GRBenchError, SuiteError, first_line
from grbench.testing.checks.check import Check, CheckFailedError, CheckSkippedError
from grbench.testing.checks.check_world import ITEMS, USERS
from grbench.testing.checks.checked_plugin import CheckedPlugin

CheckVerdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class CheckOutcome:
    """What came of a check. plugin: `encoder:my_encoder`; seen: why it failed or was skipped, empty where it passed."""

    plugin: str
    check: Check
    verdict: CheckVerdict
    seen: str = ""


def run_check(check: Check, plugin: CheckedPlugin) -> CheckOutcome:
    """Runs the check, where the plug-in passes those that it needs; else it is skipped. What the plug-in raises is a
    failure. The outcomes of needed checks are kept with the plug-in."""
    for needed in check.needs:
        if needed.name not in plugin.outcomes:
            run_check(needed, plugin)
        if plugin.outcomes[needed.name].verdict == "failed":
            return CheckOutcome(plugin.id, check, "skipped", f"needs {needed.name}, which fails: mend that first")
    outcome = _run(check, plugin)
    plugin.outcomes[check.name] = outcome
    return outcome


def _run(check: Check, plugin: CheckedPlugin) -> CheckOutcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check.run(plugin)
    except CheckSkippedError as skipped:
        return CheckOutcome(plugin.id, check, "skipped", str(skipped))
    except CheckFailedError as failed:
        return CheckOutcome(plugin.id, check, "failed", str(failed))
    except SuiteError as error:
        if plugin.finds_its_encoder:
            seen = f"with the encoder that the checks have found it says: {first_line(error)}; name one as a partner"
            return CheckOutcome(plugin.id, check, "skipped", seen)
        return CheckOutcome(plugin.id, check, "failed", _raised(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise anything, and that is what was seen
        return CheckOutcome(plugin.id, check, "failed", _raised(error))
    return CheckOutcome(plugin.id, check, "passed")


def _raised(error: Exception | SystemExit) -> str:
    """What was raised, and the innermost line outside of torch and of the kit, where the author should look."""
    if isinstance(error, SuiteError | DataError):
        return (
            f"with these options it refuses the data of the checks, {USERS} users and {ITEMS} items: "
            f"{first_line(error)}; give other options"
        )
    said = first_line(error) if isinstance(error, GRBenchError) else f"{type(error).__name__}: {first_line(error)}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in frame.filename and "/grbench/testing/" not in frame.filename
    ]
    return f"raised {said}" + (f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else "")
