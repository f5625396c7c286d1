"""Pictures for papers: the files, what is embedded in them, and where names stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from records import HIT, MISS, measured

from grbench.cli import main
from grbench.errors import RunError
from grbench.results.record import Record
from grbench.results.record_files import ranking_path, write_record

pytest.importorskip("matplotlib", reason="needs the extra `plots`")

from grbench.report.figures.pareto import on_front
from grbench.report.plots.curves import curves_plot, spread
from grbench.report.plots.difference import difference_plot
from grbench.report.plots.labels import HEIGHT, MARKER, Label, around, place_labels
from grbench.report.plots.numbered_list import NumberedList
from grbench.report.plots.pareto import pareto_plot
from grbench.report.plots.plot import PlotRequest, plot
from grbench.report.plots.style import COLOURS, MARKERS, Sheet, inches, line_styles, paper_style, text_width, wrapped
from grbench.report.selection import picks

GROUPS = {"popularity": ["head"] * 20 + ["tail"] * 20}
NAMES = ("floor", "a_rather_long_name[with_options=everything]", "$dollars_50%", "<b>&")


def some(folder: Path, names: tuple[str, ...] = NAMES) -> list[Record]:
    """Two seeds of each name; the first is the baseline and has no training."""
    records = []
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        hits = [[*HIT, *MISS] if place % 2 else [*MISS, *HIT], rng.permutation([*HIT, *MISS]).tolist()]
        seconds = 30.0 * place or None
        values: dict[str, Any] = {
            "identity": {"training": {"encoder": {"name": name}}, "ranking": {}, "metrics": []},
            "baseline": names[0],
            "cost": {"train_seconds": seconds},
            "counts": {"steps_run": 8, "best_epoch": None},
            "curve": [{"epoch": epoch, "loss": 1.0 / (epoch + place)} for epoch in (1, 2)] if place else [],
        }
        made = measured(folder, f"r{place}", *hits, groups=GROUPS, **values)
        records += [Record(**{**vars(record), "method": name}) for record in made]
    return records


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("pareto", ".pdf"), ("curves", ".svg"), ("slices", ".png"), ("difference", ".pdf"), ("difference", ".svg")],
)
def test_files_are_the_same_from_run_to_run(tmp_path: Path, kind: str, suffix: str) -> None:
    records = some(tmp_path)
    first, again = tmp_path / f"first{suffix}", tmp_path / f"again{suffix}"
    said = plot(records, kind, first, PlotRequest(title="A title"))
    assert plot(records, kind, again, PlotRequest(title="A title")) == said
    assert first.read_bytes() == again.read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or path.suffix == ".part"]
    if suffix == ".svg":
        root = ElementTree.parse(first).getroot()
        assert root.attrib["width"].startswith("239.76")  # points: 3.33 inches
        assert not root.findall(".//{http://www.w3.org/2000/svg}text")  # outlines
    if suffix == ".png":
        assert Image.open(first).size[0] == 999


def test_fonts_are_embedded_as_truetype(tmp_path: Path) -> None:
    path = tmp_path / "x.pdf"
    plot(some(tmp_path), "difference", path, PlotRequest())
    content = path.read_bytes()
    assert b"CreationDate" not in content
    assert b"/FontFile2" in content  # a TrueType font; Type 3 has none
    assert b"/Type3" not in content
    try:
        listed = subprocess.run(["pdffonts", path], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("pdffonts (poppler-utils) is not installed")
    for font in listed.splitlines()[2:]:
        assert "DejaVuSans" in font
        assert "TrueType" in font
        assert font.split()[-5:-2] == ["yes", "yes", "yes"]  # embedded, a subset, with text that can be searched


def test_what_is_said_for_the_caption(tmp_path: Path) -> None:
    records, out = some(tmp_path), tmp_path / "x.svg"
    assert plot(records, "difference", out, PlotRequest(metric="hit_rate@10", against="$dollars_50%")) == [
        "HR@10 ↑: each row minus $dollars_50%, paired over users; filled: differs (p < .05 after Holm's correction "
        "over all rows).",
        "Lines through points are 95 % intervals over users and seeds.",
    ]
    (said, left) = plot(records, "curves", out, PlotRequest(rows=picks(["<b>&=Ours,floor"], "--rows")))
    assert said.startswith("Training loss at the end of epochs")
    assert left == "Not shown, without a value: floor."


@pytest.mark.parametrize(
    ("kind", "request_", "said"),
    [
        ("pareto", PlotRequest(metric="x"), "--metric x: the records have no such metric; there are: hit_rate@10"),
        ("pareto", PlotRequest(cost="peak_gpu_bytes"), "no row has it; there are: train_seconds"),
        ("curves", PlotRequest(metric="x"), "no training curve has it; there are: loss"),
        ("curves", PlotRequest(over="seconds"), "--over seconds: no record says it"),
        ("slices", PlotRequest(by="gap"), "no groups by a slice 'gap'; there are: popularity"),
        ("difference", PlotRequest(against="x"), "there is no row 'x'"),
        ("difference", PlotRequest(rows=picks(["x"], "--rows")), "there is no 'x'; there are: floor"),
        ("difference", PlotRequest(width="wide"), "--width wide: write column"),
        ("difference", PlotRequest(width="nan"), "--width nan: write column"),
    ],
)
def test_what_there_is_not_is_refused_and_nothing_is_written(
    tmp_path: Path, kind: str, request_: PlotRequest, said: str
) -> None:
    with pytest.raises(RunError, match=said):
        plot(some(tmp_path), kind, tmp_path / "x.pdf", request_)
    assert not (tmp_path / "x.pdf").exists()


def test_records_of_several_tables_are_refused(tmp_path: Path) -> None:
    records = some(tmp_path) + measured(tmp_path, "other", MISS, dataset={"name": "toy", "digest": "d2"})
    with pytest.raises(RunError, match=r"make 2 tables.*shows one \(tiny, 4 rows; tiny, 1 row\)"):
        plot(records, "pareto", tmp_path / "x.pdf", PlotRequest())


def test_thirty_rows_have_names_that_do_not_cover_each_other() -> None:
    """In one column: beside points, numbers and a list below; at the ends of lines; beside intervals."""
    from matplotlib.text import Text

    rng = np.random.default_rng(0)
    names = [f"method_{place}[option=value_{place}]" for place in range(30)]
    value = rng.uniform(0.2, 0.3, 30)
    frame = pd.DataFrame({"label": names, "value": value, "low": value - 0.02, "high": value + 0.02})
    frame = frame.assign(cost=rng.uniform(20, 300, 30), hardware="cpu", beside=False, differs=value > 0.25)
    epochs = pd.concat(frame[["label", "value"]].assign(epoch=epoch, seed=0) for epoch in (1, 2))
    front = frame.assign(on_front=on_front(value, frame["cost"].to_numpy()))
    sheet = Sheet(3.33)
    with paper_style():
        points = pareto_plot(front, heading="HR@10", cost="train_seconds", sheet=sheet)
        lines = curves_plot(epochs, heading="HR@10", by="epoch", sheet=sheet)
        rows = difference_plot(frame, heading="HR@10", against="x", sheet=sheet)
        for figure, texts in (
            (points, [*points.axes[0].texts, *points.texts]),
            (lines, lines.texts),
            (rows, rows.axes[0].get_yticklabels()),
        ):
            figure.draw_without_rendering()
            boxes = np.array([Text.get_window_extent(text).extents for text in texts])  # without lines to points
            assert len(boxes) >= 30
            assert (overlaps(boxes, boxes).sum(axis=1) == 1).all()  # each with itself
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, 2:] <= figure.bbox.extents[2:]).all()


def test_groups_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    records = some(tmp_path, tuple(f"method_number_{place}" for place in range(10)))
    with pytest.raises(RunError, match="10 rows and 3 groups by popularity do not fit into 2 inches; --width page"):
        plot(records, "slices", tmp_path / "slices.png", PlotRequest(width="2"))


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return ((boxes[:, None, :2] < others[None, :, 2:]) & (others[None, :, :2] < boxes[:, None, 2:])).all(axis=2)


def box_of(label: Label) -> list[float]:
    return [label.left, label.bottom, label.left + text_width(label.text), label.bottom + HEIGHT]


def test_labels_cover_neither_each_other_nor_points() -> None:
    points = np.random.default_rng(0).uniform(0.5, 1.5, (20, 2))
    texts = [str(place) for place in range(20)]
    area = np.array([0.0, 0.0, 2.0, 2.0])
    with paper_style():
        found = place_labels(points, texts, area, filled=around(points), crossed=np.zeros((0, 4)), far=1.0, every=True)
        boxes = np.array([box_of(label) for label in found if label])
        nowhere = place_labels(
            np.array([[0.1, 0.1]]), ["too wide"], np.array([0, 0, 0.2, 0.2]), filled=boxes, crossed=boxes, far=1.0
        )
    assert len(boxes) == 20
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 2).all()
    others = np.vstack([boxes, np.hstack([points - MARKER, points + MARKER])])
    assert (overlaps(boxes, others).sum(axis=1) == 1).all()  # of each label with itself alone
    assert nowhere == [None]


def test_names_at_the_ends_of_lines_are_spread() -> None:
    heights = np.full(3, 0.2)
    assert spread(np.array([0.2, 0.5, 0.8]), heights, 0.0, 1.0).tolist() == pytest.approx([0.2, 0.5, 0.8])
    # Two that want one place stand above and below it; at the edge, they move inwards.
    assert spread(np.array([0.5, 0.5, 0.9]), heights, 0.0, 1.0).tolist() == pytest.approx([0.4, 0.6, 0.9])
    assert spread(np.array([0.0, 0.0, 0.9]), heights, 0.0, 1.0).tolist() == pytest.approx([0.1, 0.3, 0.9])


def test_styles_stay_apart_without_colour() -> None:
    styles = line_styles(len(COLOURS) * len(MARKERS))
    assert len({(style.colour, style.marker) for style in styles}) == len(styles)
    assert len({style.marker for style in styles[: len(MARKERS)]}) == len(MARKERS)


def test_long_names_are_broken_behind_signs() -> None:
    with paper_style():
        assert wrapped("short", 0.1) == "short"
        assert wrapped("one_way[action=gate]", text_width("action=")) == "one_\nway\n[action=\ngate]"
        assert "\n" not in wrapped("a\nb", 5.0)  # shown as an escape
        columns = NumberedList(["a", "b", "c", "d", "e"], 3.0).columns
    assert columns[0].split("\n")[0].split("\u2007") == ["1", "a"]


def test_widths() -> None:
    assert (inches("column"), inches("page"), inches("4.5")) == (3.33, 7.0, 4.5)


def test_the_command_writes_a_picture_and_says_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "tiny", tmp_path / "pictures" / "x.svg"
    folder.mkdir()
    for record in some(folder):
        write_record(folder, record, pq.read_table(ranking_path(folder, record.digest)))
    arguments = ["plot", str(folder), "--kind", "pareto", "--rows", "*,floor=Floor", "--out"]
    assert main([*arguments, str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: HR@10 ↑ against training time")
    assert out.stat().st_size > 1000
    assert main([*arguments, str(tmp_path / "x.jpg")]) == 2
    assert "pictures are not written as .jpg; there are: .pdf" in capsys.readouterr().err
    assert main(["plot", str(folder), "--kind", "pie", "--out", str(out)]) == 2
    assert "'pareto', 'curves', 'slices', 'difference'" in capsys.readouterr().err
    assert main(["plot", str(folder), "--kind", "curves", "--cost", "parameters", "--out", str(out)]) == 2
    assert "--cost goes with --kind pareto" in capsys.readouterr().err
    assert main([*arguments, str(folder)]) == 2


def test_without_matplotlib_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(RunError, match=r"need matplotlib: pip install 'grbench\[plots\]'"):
        plot(some(tmp_path), "pareto", tmp_path / "x.pdf", PlotRequest())
