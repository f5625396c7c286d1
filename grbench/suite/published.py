"""The key `published` of a suite: what others report of its methods, to stand beside our figures.

A figure belongs to the method that it is listed under and to no other: neither `extends` nor a grid passes it on,
because a row quotes a number only where it has that number's recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import pydantic

from grbench.errors import Problems, SuiteError, cut
from grbench.registry.option_types import Count
from grbench.registry.options import bind, suggestion

Text = Annotated[str, pydantic.Field(min_length=1)]

Published = dict[str, tuple[dict[str, Any], ...]]
"""{method: its figures}, each a mapping of those `figure_options` that are given."""


def figure_options(
    *,
    metric: Text,
    value: float,
    source: Text,
    same_protocol: bool,
    differs: Text | None = None,
    interval: tuple[float, float] | None = None,
    standard_error: Annotated[float, pydantic.Field(ge=0)] | None = None,
    seeds: Count | None = None,
    users: Count | None = None,
) -> None:
    """A published figure, bound like a plug-in's options.

    Args:
        metric: one of the suite's metrics, as it is called in tables of this suite, such as ndcg@10.
        value: the figure, as it was published.
        source: where it was published: an arXiv id, a DOI, an address, with the table or section.
        same_protocol: whether it was measured on these data, with this split, these candidates and this metric.
        differs: what differs, in the protocol or in the method; must be given where same_protocol is false.
        interval: the published interval, [low, high].
        standard_error: the published standard error.
        seeds: the number of seeds of the published mean.
        users: the number of users that were evaluated; where ours differ from them, the figure is marked.
    """


def read_published(value: Any, methods: Collection[str] | None, where: str, problems: Problems) -> Published:
    """The figures of a suite, checked. methods: all names, after grids are expanded, None where these are not known;
    what is wrong is added to `problems`, and left out."""
    where = f"{where}: published"
    if value is None:
        return {}
    if not isinstance(value, dict):
        with problems:
            raise SuiteError(f"{where}: should be a mapping of methods to lists of figures")
        return {}
    found: Published = {}
    for method, figures in value.items():
        with problems:
            if methods is not None and method not in methods:
                raise SuiteError(f"{where}: there is no method {cut(method)!r}; {suggestion(method, methods)}")
            if not isinstance(figures, list) or not figures:
                raise SuiteError(
                    f"{where}.{cut(method)}: should be a list of figures, such as "
                    "[{metric: ndcg@10, value: .05, source: arXiv 2305.05065, same_protocol: true}]"
                )
            found[method] = _read_figures(figures, f"{where}.{method}")
    return found


def _read_figures(figures: Sequence[Any], where: str) -> tuple[dict[str, Any], ...]:
    read: dict[str, dict[str, Any]] = {}
    problems = Problems()
    for number, figure in enumerate(figures):
        with problems:
            key = f"{where}.{number}"
            if not isinstance(figure, dict):
                raise SuiteError(f"{key}: should be a mapping with metric, value, source and same_protocol")
            bound = {name: option for name, option in bind(figure_options, figure, key).items() if option is not None}
            _check(bound, key)
            if bound["metric"] in read:
                raise SuiteError(
                    f"{key}.metric: there is a figure of {cut(bound['metric'])} already; give one of each metric"
                )
            read[bound["metric"]] = bound
    problems.raise_found()
    return tuple(read.values())


def _check(figure: Mapping[str, Any], key: str) -> None:
    if not figure["same_protocol"] and "differs" not in figure:
        raise SuiteError(f"{key}.differs: must be given, because same_protocol is false: what differs?")
    low, high = figure.get("interval", (figure["value"], figure["value"]))
    if not low <= figure["value"] <= high:
        raise SuiteError(f"{key}.interval: should be [low, high] with the value {figure['value']} between them")
    if "interval" in figure and "standard_error" in figure:
        raise SuiteError(f"{key}.standard_error: the interval is given as well; give one of them")


def check_metrics_of(published: Published, metrics: Collection[str], where: str) -> None:
    """Raises SuiteError for figures of metrics that the suite lacks. metrics: the names of those that it has."""
    problems = Problems()
    for method, figures in published.items():
        for number, figure in enumerate(figures):
            if (metric := figure["metric"]) not in metrics:
                with problems:
                    raise SuiteError(
                        f"{where}: published.{method}.{number}.metric: this suite has no metric {cut(metric)!r}; "
                        f"{suggestion(metric, metrics)}"
                    )
    problems.raise_found()


def after_overrides(
    published: Published, before: Mapping[str, Any], after: Mapping[str, Any], overrides: Sequence[str]
) -> Published:
    """The figures, with what `overrides` changed about dataset, protocol or method added to what differs.

    before, after: {dataset, protocol, methods} of the suite without and with the overrides. Another path of the dataset
    is no difference, as the same data may lie anywhere: `users` tells whether they are the same.
    """
    return {
        method: tuple(_changed(figure, method, before, after, overrides) for figure in figures)
        for method, figures in published.items()
    }


def _changed(
    figure: dict[str, Any],
    method: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    overrides: Sequence[str],
) -> dict[str, Any]:
    keys: list[str] = []
    if before["methods"].get(method) != after["methods"].get(method):
        keys += ["methods", "defaults"]
    other_data = [key for key in ("dataset", "protocol") if _without_path(before.get(key)) != _without_path(after[key])]
    keys += other_data
    if not keys:
        return figure
    given = ", ".join(override for override in overrides if override.partition("=")[0].partition(".")[0] in keys)
    differs = "; ".join(filter(None, [figure.get("differs"), f"here changed by --set {cut(given, 200)}"]))
    return {**figure, "differs": differs, "same_protocol": figure["same_protocol"] and not other_data}


def _without_path(part: Any) -> Any:
    return {key: value for key, value in part.items() if key != "path"} if isinstance(part, dict) else part
