"""The HTML report in a real browser: it draws, sorts and filters, asks the network for nothing, and fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, requests, resize
from report_world import HOSTILE, write_world

from grbench.cli import main

pytest.importorskip("plotly", reason="plotly is not installed: pip install 'grbench[report]'")

DRAW_ALL = """
const done = arguments[0];
Promise.all([...charts.values()].map((chart) => chart.draw())).then(() => done(true), (error) => done(String(error)));
"""
NAMES = """
return [...document.querySelectorAll("#part1-leaderboard tbody tr")]
  .filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim());
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    write_world(place)
    assert main(["report", str(place), "--out", str(place / "page.html")]) == 0
    return place / "page.html"


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        opened.set_script_timeout(100)
        resize(opened, 1440)
        opened.get(page.as_uri())
        yield opened


def test_everything_is_drawn_without_an_error_or_a_request(browser: Any, page: Path) -> None:
    assert browser.execute_async_script(DRAW_ALL) is True
    charts = browser.execute_script("return [...document.querySelectorAll('.chart')].length")
    assert charts > 8
    assert browser.execute_script("return document.querySelectorAll('.chart .plot .main-svg').length") >= charts
    assert browser.get_log("browser") == []
    assert requests(browser) == [page.as_uri()]


def test_a_hostile_name_is_shown_as_it_is(browser: Any) -> None:
    assert HOSTILE in browser.execute_script(NAMES)
    browser.execute_async_script(DRAW_ALL)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('#part1-leaderboard .plot text')].map((text) => text.textContent)"
    )
    assert HOSTILE in drawn


def test_a_click_on_a_heading_sorts_and_unknown_scores_stay_below(browser: Any) -> None:
    heading = "document.querySelectorAll('#part1-leaderboard thead th')[1]"
    before = browser.execute_script(NAMES)
    browser.execute_script(f"{heading}.querySelector('button').click()")
    assert browser.execute_script(f"return {heading}.getAttribute('aria-sort')") == "descending"
    best = browser.execute_script(NAMES)
    browser.execute_script(f"{heading}.querySelector('button').click()")
    worst = browser.execute_script(NAMES)
    assert best[0] == HOSTILE
    assert worst[0] == "popular"
    assert sorted(best) == sorted(before)
    assert set(best[-3:]) == set(worst[-3:]) == {"wider[width=64]", "broken", "too_large"}


def test_rows_are_filtered_by_text_and_by_bold_scores(browser: Any) -> None:
    search = browser.find_element("css selector", "#part1-leaderboard input[type=search]")
    search.send_keys("WIDER 64")
    assert browser.execute_script(NAMES) == ["wider[width=64]"]
    assert "1 of 8 rows" in browser.find_element("css selector", "#part1-leaderboard output").text
    browser.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", search)
    box = browser.find_element("css selector", "#part1-leaderboard .only-best")
    box.click()
    assert set(browser.execute_script(NAMES)).isdisjoint({"wider[width=64]", "broken", "too_large"})
    box.click()
    assert len(browser.execute_script(NAMES)) == 8


def test_parts_of_the_columns_can_be_hidden(browser: Any) -> None:
    box = browser.find_element("css selector", "#part1-leaderboard .parts input[value=costs]")
    shown = "return [...document.querySelectorAll('#part1-leaderboard thead th')].filter((each) => !each.hidden).length"
    before = browser.execute_script(shown)
    box.click()
    assert browser.execute_script(shown) < before
    box.click()
    assert browser.execute_script(shown) == before


def test_a_series_is_hidden_and_shown_by_its_name(browser: Any) -> None:
    browser.execute_async_script(DRAW_ALL)
    pressed = "return document.querySelector('#part1-curves .key button').getAttribute('aria-pressed')"
    assert browser.execute_script(pressed) == "true"
    browser.execute_script("document.querySelector('#part1-curves .key button').click()")
    browser.execute_async_script(DRAW_ALL)
    assert browser.execute_script(pressed) == "false"


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_the_page_never_scrolls_sideways(browser: Any, width: int) -> None:
    resize(browser, width)
    assert browser.execute_async_script(DRAW_ALL) is True
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
