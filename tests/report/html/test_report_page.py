"""The text of the HTML report."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from report_world import HOSTILE, identity_of, write_failure, write_many, write_method, write_world

from grbench.cli import main
from grbench.errors import RunError
from grbench.report.format import number
from grbench.report.html.again import again
from grbench.report.html.blocks import CodeText
from grbench.report.html.page import SECTIONS, html_report
from grbench.report.html.recorded_suite import recorded_suite
from grbench.report.html.results import results_of
from grbench.results.integrity import intact_records
from grbench.results.record_files import ranking_path, read_records

pytest.importorskip("plotly", reason="plotly is not installed: pip install 'grbench[report]'")

JSON_BLOCK = re.compile(r'<script type="application/json">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of results that fill each section, as the command writes it."""
    place = tmp_path_factory.mktemp("report")
    write_world(place)
    assert main(["report", str(place), "--out", str(place / "page.html")]) == 0
    return (place / "page.html").read_text()


class Elements(HTMLParser):
    """Counts elements, and collects headings and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.ids, self.headings, self._open = 0, list[str](), list[str](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.scripts += tag == "script" and not any(value == "application/json" for _, value in attrs)

    def handle_data(self, data: str) -> None:
        if self._open in ("h1", "h2", "h3"):
            self.headings.append(data.strip())


def test_each_section_has_something_to_show(page: str) -> None:
    elements = Elements(page)
    assert len(elements.ids) == len(set(elements.ids))
    assert len(
        [
            each
            for each in elements.ids
            if re.fullmatch(r"part1-[a-z-]+", each) and "chart" not in each and "title" not in each
        ]
    ) == len(SECTIONS)
    assert "Not in this report" not in page


def test_names_of_records_are_text_everywhere(page: str) -> None:
    assert Elements(page).scripts == 2  # Plotly and our own
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    pictures = [json.loads(block) for block in JSON_BLOCK.findall(page)]
    assert len(pictures) > 8
    texts = [text for text in _texts(pictures) if "alert(1)" in text]
    # Labels for those who cannot see are attributes, which are not read as HTML; Plotly reads all else so.
    assert texts
    assert all("<script" not in text for text in _texts([view | {"alt": ""} for views in pictures for view in views]))


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _texts(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in _texts(entry)]
    return [value] if isinstance(value, str) else []


def _numbers(value: object) -> list[float]:
    """All numbers of a figure; Plotly writes arrays as their bytes in base64."""
    if isinstance(value, dict) and "bdata" in value:
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).astype(float).tolist()
    if isinstance(value, dict):
        return [number for entry in value.values() for number in _numbers(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in _numbers(entry)]
    return [float(value)] if isinstance(value, int | float) else []


def test_the_page_may_ask_for_nothing_and_run_nothing_else(page: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe-eval" not in policy[1]
    assert re.search(r"script-src [^;]*unsafe", policy[1]) is None


def test_scores_of_rows_that_were_not_chosen_are_nowhere(tmp_path: Path) -> None:
    grid = {"name": "wider", "points": 2, "ablation": False}
    chosen = write_method(tmp_path, "wider[width=32]", 0, grid=grid, identity=identity_of("a", 0))
    hidden = write_method(tmp_path, "wider[width=64]", 30, grid=grid, identity=identity_of("b", 0))
    text = html_report(read_records([tmp_path]))
    pictures = JSON_BLOCK.findall(text)
    shown = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # without Plotly's own numbers
    for metric in ("hit_rate@10", "mean_rank"):
        by_seed = [[record.scores[metric] or 0.0 for record in records] for records in (chosen, hidden)]
        for scores, is_shown in zip(by_seed, (True, False), strict=True):
            mean = sum(scores) / len(scores)
            assert (number(mean) in shown) is is_shown
            values = [value for block in pictures for value in _numbers(json.loads(block))]
            assert any(abs(value - mean) < 1e-9 for value in values) is is_shown
    assert "wider[width=32] is chosen of 2 rows" in text


def test_altered_lists_are_refused_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = write_method(tmp_path / "tiny", "popular", seeds=1)[0]
    ranking_path(tmp_path / "tiny", record.digest).write_bytes(b"other")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 2
    assert "altered" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_report_is_a_html_file_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 2
    assert "there are no records" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page.pdf")]) == 2
    assert "is written as .html" in capsys.readouterr().err


def test_without_plotly_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_method(tmp_path, "popular", seeds=1)
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(RunError, match=re.escape("pip install 'grbench[report]'")):
        html_report(intact_records([tmp_path]))


def test_fifty_methods_are_below_five_megabytes_beside_plotly(tmp_path: Path) -> None:
    from plotly.offline import get_plotlyjs

    text = html_report(read_records([write_many(tmp_path, methods=50, seeds=2)]))
    assert len(text.encode()) - len(get_plotlyjs().encode()) < 5_000_000


def test_records_without_any_extra_fill_what_they_can(tmp_path: Path) -> None:
    plain = [
        dataclasses.replace(record, curve=[], tokenizer={}, cost={}, environment={}, baseline=None, title=None)
        for record in write_method(tmp_path, "popular", seeds=1)
    ]
    text = html_report(plain)
    assert "Not in this report" in text
    for sentence in (
        "no cell was trained",
        "no method of these records was tuned",
        "grbench audit tiny",
        "1 cell finished",
    ):
        assert sentence in text


def test_an_interrupted_cell_is_not_counted_as_failed(tmp_path: Path) -> None:
    records = write_method(tmp_path, "popular", seeds=1)
    records.append(write_failure(tmp_path, "stopped", 2, status="interrupted"))
    assert "2 (1 interrupted)" in html_report(records)
    records.append(write_failure(tmp_path, "broken", 3, status="error"))
    assert "3 (1 failed, 1 interrupted)" in html_report(records)


def test_the_recorded_suite_has_each_option_as_it_was(tmp_path: Path) -> None:
    records = [*write_method(tmp_path, "wide[width=32]", 0), *write_method(tmp_path, "narrow", 1, seeds=1)]
    suite = recorded_suite("tiny", records)
    assert suite is not None
    content = yaml.safe_load(suite.text)
    assert content["metrics"] == ["hit_rate@10", "mean_rank"]
    assert content["methods"]["wide_width_32"]["encoder"] == {
        "name": "toy_encoder",
        "title": "wide[width=32]",
        "width": 32,
    }
    assert content["methods"]["narrow"]["training"]["select"] == "hit_rate@10"
    assert "# wide_width_32 is wide[width=32]" in suite.text
    assert "name a file by its content" in suite.text
    assert suite.seeds == {(0, 1): ("wide_width_32",), (0,): ("narrow",)}


def test_no_name_of_a_record_is_a_line_of_its_own_where_commands_and_suites_are_copied(tmp_path: Path) -> None:
    (record,) = write_method(tmp_path, "popular", 0, seeds=1)
    line = "\nevil: 1"
    identity = identity_of("popular", 0)
    identity["training"]["encoder"]["plugin"] = {"distribution": f"x{line}", "version": "1"}
    environment = record.environment | {"git_commit": f"-f{line}"}
    grid = {"name": f"g{line}", "points": 1, "ablation": False}
    names = {"suite": f"s{line}", "method": f"m{line}"}
    hostile = dataclasses.replace(record, identity=identity, environment=environment, grid=grid, **names)
    (found,) = results_of([hostile], (), {})
    texts = [block.text for block in again(found).blocks if isinstance(block, CodeText)]
    assert len(texts) == 2
    assert "evil" in texts[0]
    assert not any(each.startswith("evil") for text in texts for each in text.splitlines())
    assert "git checkout" not in texts[0]
    assert yaml.safe_load(texts[1]).keys() >= {"suite", "methods"}
    assert "evil" not in yaml.safe_load(texts[1])
