"""The documentation site builds strictly, loads nothing from elsewhere, and its generated pages leave nothing out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

from grbench.cli import cli
from grbench.hookspecs import KINDS
from grbench.registry.discovery import Registry
from grbench.registry.options import describe

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
"""{element: its attribute that a browser fetches}"""

pytest.importorskip("mkdocs", reason="needs grbench's extra docs")
pytest.importorskip("material", reason="needs grbench's extra docs")


class Page(HTMLParser):
    """fetched: addresses that the browser fetches; anchors: ids; code: texts of elements `code`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.code: list[str] = []
        self._in_code = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [address for name in [LOADED.get(tag, "")] if (address := given.get(name))]
        self.anchors |= {anchor for anchor in [given.get("id")] if anchor}
        if tag == "code":
            self._in_code = True
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_code = self._in_code and tag != "code"

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.code[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site. Warnings end the build: links and anchors that lead nowhere, pages that are in no
    menu, plug-ins of a kind that has no page."""
    folder = tmp_path_factory.mktemp("site")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert [address for address in Page(page).fetched if re.match(r"(\w+:)?//", address)] == [], page
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\((?:[\"']?)(?:\w+:)?//[^)]*", sheet.read_text()) == [], sheet


def test_every_plug_in_is_there_with_its_options(site: Path) -> None:
    registry = Registry.load()
    index = Page(site / "reference" / "plugins" / "index.html")
    for kind in KINDS:
        page = Page(site / "reference" / "plugins" / f"{kind}.html")
        for plugin in registry.plugins(kind):
            if plugin.distribution == "grbench":
                assert plugin.name in page.anchors
                assert plugin.name in index.code
                assert {option.name for option in describe(plugin.factory)} <= set(page.code)
                assert {option.type for option in describe(plugin.factory)} <= set(page.code)


def test_every_command_is_there(site: Path) -> None:
    anchors = Page(site / "reference" / "commands.html").anchors

    def names(group: click.Group, prefix: str) -> Iterator[str]:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            yield f"{prefix}-{name}"
            if isinstance(command, click.Group):
                yield from names(command, f"{prefix}-{name}")

    assert set(names(cli, "grbench")) <= anchors
    assert {"grbench-data-synth", "grbench-inspect-codes"} <= anchors  # of the reference plug-ins


def test_every_field_of_a_record_is_there_twice(site: Path) -> None:
    code = Page(site / "reference" / "record.html").code
    fields = json.loads((ROOT / "docs" / "record_schema.json").read_text())["properties"]
    assert [name for name in fields if code.count(name) < (1 if name == "schema" else 2)] == []


def test_files_in_other_folders_are_linked_as_pages(site: Path) -> None:
    """What is a link to a README on GitHub is one to the page with its content here."""
    assert 'href="examples.html"' in (site / "reviewing.html").read_text()
    assert 'href="results_folder.html"' in (site / "first_table.html").read_text()


def test_the_search_works_without_a_server(site: Path, tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    for name in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{name}")
    options.add_argument(f"--user-data-dir={tmp_path}")
    service = webdriver.chrome.service.Service(driver)
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get((site / "index.html").as_uri())
        field = browser.find_element("css selector", "input.md-search__input")
        browser.execute_script("arguments[0].focus()", field)
        field.send_keys("pessimistic")
        results: list[str] = []
        waiting_until = time.monotonic() + 60
        while not results and time.monotonic() < waiting_until:
            time.sleep(0.2)
            links = browser.find_elements("css selector", "a.md-search-result__link")
            results = [link.get_attribute("href") for link in links]
    assert any("reading_a_table.html" in result for result in results)
