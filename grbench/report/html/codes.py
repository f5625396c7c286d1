"""The quality of tokenizers' codes, as their reports in the records have it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grbench.report.format import counted, number, significant
from grbench.report.html.blocks import Chart, ChartView, Entry, Grid, Heading, Notes, Section
from grbench.report.html.drawing import DASHES, SYMBOLS, figure, shown
from grbench.report.html.results import Results
from grbench.report.rows import flattened
from grbench.results.record import Record

BY = "\N{MULTIPLICATION SIGN}"
EXPLAINED = (
    "In use: how many of a level's codes any item has. Perplexity: how many codes in equal use would be as varied, "
    "so that a value far below the level's size means that a few codes have most items.",
    "Collisions: items that share all their codes with another one; a decoder cannot tell them apart.",
    "Agreement: how often two items that are near each other (by embedding, or met by the same users) share their "
    "first codes, beside how often two items at random do.",
)


@dataclass(frozen=True)
class TokenizerReport:
    """One fitted tokenizer. name: its plug-in; report: as the record has it; methods: that use it."""

    name: str
    report: Mapping[str, Any]
    methods: tuple[str, ...]

    @property
    def label(self) -> str:
        """As a chart names it."""
        sizes = BY.join(str(size) for size in self.report.get("sizes") or ())
        others = f" and {len(self.methods) - 1} more" if len(self.methods) > 1 else ""
        return f"{self.name} {sizes}, {self.methods[0]}{others}"


def code_quality(results: Results) -> Section:
    """A table of the tokenizers, and how much of each level is in use."""
    found = [codes for codes in _codes(results) if codes.report.get("sizes")]
    if not found:
        return Section(
            "codes",
            "Code quality",
            absent="Code quality: no method of these records writes codes, so that no tokenizer reported any.",
        )
    views = [view for part in ("perplexity", "used") if (view := _levels(found, part))]
    charts = (
        [Chart("codes", "By level, as a share of the level's codes.", views, choice="Measure", keyed=True)]
        if views
        else []
    )
    return Section(
        "codes",
        "Code quality of tokenizers",
        "Whether codes are used evenly, tell items apart, and put similar items side by side. Seeds with the same "
        "report are shown once.",
        (_grid(found), *charts, Notes(EXPLAINED, title="What the columns mean")),
    )


def _codes(results: Results) -> list[TokenizerReport]:
    """Each tokenizer's report once, with the methods that it is of."""
    users: dict[str, tuple[Record, list[str]]] = {}
    for row in results.compared.rows:
        for record in row.done:
            if record.tokenizer:
                same = {key: value for key, value in record.tokenizer.items() if key not in ("seconds", "device")}
                users.setdefault(json.dumps(same, sort_keys=True), (record, []))[1].append(row.name)
    return [
        TokenizerReport(
            str((record.identity.get("training", {}).get("tokenizer") or {}).get("name") or "tokenizer"),
            record.tokenizer,
            tuple(dict.fromkeys(names)),
        )
        for record, names in users.values()
    ]


def _grid(found: Sequence[TokenizerReport]) -> Grid:
    rows = []
    for codes in found:
        report = flattened(codes.report)
        items, distinct = _known(report.get("items")), _known(report.get("distinct_codes"))
        shared = _known(report.get("colliding_share"))
        rows.append(
            [
                Entry(
                    ", ".join(codes.methods[:3])
                    + (f" and {len(codes.methods) - 3} more" if len(codes.methods) > 3 else "")
                ),
                Entry(codes.name),
                Entry(f" {BY} ".join(str(size) for size in codes.report["sizes"])),
                _amount(items),
                _amount(distinct),
                Entry("—" if shared is None else f"{shared:.2%}", shared),
                _amount(_known(report.get("most_items_on_a_code"))),
                Entry(_of_levels(codes, "used")),
                Entry(_of_levels(codes, "perplexity")),
                Entry(_agreement(codes.report.get("embedding_agreement"))),
                Entry(_agreement(codes.report.get("cooccurrence_agreement"))),
            ]
        )
    headings = [
        Heading("used by", numeric=False),
        Heading("tokenizer", numeric=False),
        Heading("sizes", numeric=False),
        Heading("items"),
        Heading("distinct codes"),
        Heading("collisions"),
        Heading("most items on a code"),
        Heading("in use, by level", numeric=False),
        Heading("perplexity, by level", numeric=False),
        Heading("agreement with embeddings, first code (chance)", numeric=False),
        Heading("agreement with co-occurrence, first code (chance)", numeric=False),
    ]
    return Grid(counted(len(found), "tokenizer"), headings, rows)


def _levels(found: Sequence[TokenizerReport], part: str) -> ChartView | None:
    import plotly.graph_objects as go

    traces = []
    for place, codes in enumerate(found):
        levels = [
            level for level in codes.report.get("utilisation") or () if isinstance(level, dict) and level.get("size")
        ]
        shares = [_known(level.get(part)) for level in levels]
        if not levels or None in shares:
            continue
        colour = f"var(--series-{place % 8 + 1})"
        traces.append(
            go.Scatter(
                x=list(range(1, len(levels) + 1)),
                y=[(value or 0.0) / level["size"] for value, level in zip(shares, levels, strict=True)],
                mode="lines+markers",
                name=shown(codes.label),
                legendgroup=str(place),
                line={"color": colour, "dash": DASHES[place // 8 % len(DASHES)]},
                marker={"color": colour, "size": 9, "symbol": SYMBOLS[place % len(SYMBOLS)]},
                hovertext=[
                    f"{shown(codes.label)}<br>level {at}: {significant(value)} of {level['size']:,}"
                    for at, (value, level) in enumerate(zip(shares, levels, strict=True), 1)
                ],
                hoverinfo="text",
            )
        )
    if not traces:
        return None
    label = {"perplexity": "Perplexity", "used": "Codes in use"}[part]
    picture = figure(
        traces,
        xaxis={"title": {"text": "Level of the code"}, "dtick": 1},
        yaxis={"title": {"text": f"{label} / codes of the level"}, "range": [0, 1.05], "tickformat": ".0%"},
        height=340,
    )
    return ChartView(
        label, picture, f"{label} as a share of each level's codes, of {counted(len(traces), 'tokenizer')}."
    )


def _known(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _amount(value: float | None) -> Entry:
    return Entry("—" if value is None else f"{value:,.0f}", value)


def _of_levels(codes: TokenizerReport, part: str) -> str:
    levels = [level for level in codes.report.get("utilisation") or () if isinstance(level, dict)]
    values = [_known(level.get(part)) for level in levels]
    texts = [f"{value:,.0f}" if value is not None and value.is_integer() else significant(value) for value in values]
    return " / ".join(texts) or "—"


def _agreement(facts: Any) -> str:
    """`.217 (.039)`: how often near items share their first code, and by chance."""
    if not isinstance(facts, dict):
        return "—"
    same, chance = facts.get("same_prefix") or [None], facts.get("by_chance") or [None]
    return f"{number(_known(same[0]))} ({number(_known(chance[0]))})"
