"""Checks of plug-ins as tests of pytest.

from grbench.testing import parametrize_with_checks

@parametrize_with_checks("encoder:my_encoder", options={"width": 8})
def test_my_encoder(check):
    check()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from grbench.errors import SuiteError, cut
from grbench.registry.discovery import Registry
from grbench.registry.options import suggestion
from grbench.testing.checks.all_checks import CHECKS
from grbench.testing.checks.check import Check, CheckFailedError
from grbench.testing.checks.checked_plugin import CheckedPlugin
from grbench.testing.checks.chosen import Options, chosen_plugins
from grbench.testing.checks.run_checks import run_check
from grbench.testing.workbench import PluginChoice


@dataclass(frozen=True)
class PluginCheck:
    """One check of one plug-in. Called, it passes, skips the test with a reason, or raises CheckFailedError with what
    was seen, what it means and how to mend it."""

    plugin: CheckedPlugin
    check: Check

    @property
    def id(self) -> str:
        """`encoder:my_encoder-shapes`."""
        return f"{self.plugin.id}-{self.check.name}"

    def __call__(self) -> None:
        outcome = run_check(self.check, self.plugin)
        if outcome.verdict == "skipped":
            pytest.skip(outcome.seen)
        if outcome.verdict == "failed":
            raise CheckFailedError(
                f"{self.id}\nseen:  {outcome.seen}\nmeans: {self.check.means}\nmend:  {self.check.mend}"
            )


def parametrize_with_checks(
    *plugins: str,
    options: Options | None = None,
    partners: Mapping[str, PluginChoice] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Callable[[Any], Any]:
    """Parametrises a test's argument `check` with all checks of the plug-ins. Ids are `kind:name-check`.

    plugins: `kind:name`, or the name of a distribution, which stands for all its plug-ins.
    options: of the plug-in, or {`kind:name`: its options} where there are several; a plug-in of a distribution that
        needs options and has none here is skipped with a reason.
    partners: {"tokenizer", "encoder" or "loss": the plug-in that those checked are put together with}.
    expected_failures: {check, or `kind:name-check`: reason}. A check that is expected to fail and passes fails the
        test.
    registry: where plug-ins are found; by default what is installed.

    Raises PluginError and SuiteError where a name is unknown or options do not fit.
    """
    chosen = chosen_plugins(registry or Registry.load(), plugins, options, partners)
    every = [PluginCheck(plugin, check) for plugin in chosen.plugins for check in CHECKS[plugin.kind]]
    expected = dict(expected_failures or {})
    known = {each.id for each in every} | {each.check.name for each in every}
    for name in expected:
        if name not in known:
            raise SuiteError(f"expected_failures: there is no check {cut(name)}; {suggestion(name, known)}")
    parameters = []
    for each in every:
        reason = expected.get(each.id, expected.get(each.check.name))
        marks = () if reason is None else (pytest.mark.xfail(raises=CheckFailedError, reason=reason, strict=True),)
        parameters.append(pytest.param(each, id=each.id, marks=marks))
    parameters += [
        pytest.param(None, id=plugin, marks=pytest.mark.skip(reason=reason))
        for plugin, reason in chosen.not_checked.items()
    ]
    return pytest.mark.parametrize("check", parameters)
