"""The page of the options of training, from their class."""

from __future__ import annotations

from grbench.registry.options import describe
from grbench.training.options import TrainingOptions
from reference.markdown import code, escaped, table


def training_page() -> str:
    """The keys of a method's `training:`."""
    rows = [
        [code(option.name), code(option.type), code(option.default), escaped(option.doc)]
        for option in describe(TrainingOptions)
    ]
    return (
        "# Training options\n\nThe keys of `training` in a suite's `defaults`, a method or a stage "
        "([validation](../running_a_suite.md#validation), [stages](../running_a_suite.md#stages)).\n\n"
        + table(["option", "type", "default", "what it does"], rows)
    )
