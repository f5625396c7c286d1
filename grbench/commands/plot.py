"""`grbench plot`: pictures for papers."""

from __future__ import annotations

from pathlib import Path

import click

from grbench.commands.streams import complain, say
from grbench.errors import RunError

KINDS = ("pareto", "curves", "slices", "difference")
COSTS = (
    *("train_seconds", "train_cpu_seconds", "peak_process_bytes", "peak_gpu_bytes"),
    *("search_p50_ms", "search_p99_ms", "parameters"),
)


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What is shown.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The picture: .pdf (fonts embedded), .svg (text as outlines) or .png.",
)
@click.option(
    "--metric",
    metavar="NAME",
    help="The metric; of curves also loss or one of its terms  [default: the first; of curves that of validation]",
)
@click.option(
    "--against", "--baseline", metavar="ROW", help="difference: from this row  [default: the suite's baseline]"
)
@click.option("--cost", type=click.Choice(COSTS), help="pareto: the cost  [default: train_seconds]")
@click.option("--slice", "by", metavar="NAME", help="slices: which  [default: the first that there is]")
@click.option(
    "--over",
    type=click.Choice(["epoch", "step", "seconds"]),
    help="curves: the horizontal axis  [default: epoch]",
)
@click.option(
    "--rows",
    multiple=True,
    metavar="NAME[=LABEL],...",
    help="These methods, in this order; * stands for all others. Intervals and tests stay those over all methods.",
)
@click.option(
    "--width",
    default="column",
    show_default=True,
    metavar="WIDTH",
    help="column (3.33 inches), page (7 inches), or a number of inches.",
)
@click.option("--title", metavar="TEXT", help="A title above the picture  [default: none]")
def plot(
    *,
    results: tuple[Path, ...],
    kind: str,
    out: Path,
    metric: str | None,
    against: str | None,
    cost: str | None,
    by: str | None,
    over: str | None,
    rows: tuple[str, ...],
    width: str,
    title: str | None,
) -> None:
    """Draw a picture for a paper from records in folders of results or in single record files.

    pareto: a metric against a cost, with the rows that no other one beats in both. curves: validation or loss by epoch,
    a line for each seed. slices: a metric within groups of users. difference: of each row from the baseline, paired
    over users. Numbers, intervals and tests are those of `grbench table`; what the picture shows is printed, for its
    caption.

    \b
    grbench plot results/quickstart --kind pareto --metric ndcg@10 --out pareto.pdf
    grbench plot results/quickstart --kind curves --over seconds --out curves.svg
    grbench plot results/quickstart --kind slices --slice popularity --width page --out slices.pdf
    grbench plot results/quickstart --kind difference --rows '*,transformer_infonce=Ours' --out difference.png
    """
    given = {"difference": ("--against", against), "pareto": ("--cost", cost), "slices": ("--slice", by)}
    for other, (option, value) in {**given, "curves": ("--over", over)}.items():
        if value is not None and other != kind:
            raise click.UsageError(f"{option} goes with --kind {other}")
    from grbench.report.plots.plot import PlotRequest
    from grbench.report.plots.plot import plot as draw
    from grbench.report.plots.write import check_suffix
    from grbench.report.selection import picks
    from grbench.results.integrity import intact_records

    check_suffix(out)
    request = PlotRequest(
        metric, against, by, cost or "train_seconds", over or "epoch", picks(rows, "--rows"), width, title
    )
    records = intact_records(results, note=lambda text: complain(f"note: {text}"))
    if not records:
        raise RunError(f"{', '.join(map(str, results))}: there are no records; grbench run SUITE writes them")
    lines = draw(records, kind, out, request)
    say(f"{out}: {' '.join(lines)}")
