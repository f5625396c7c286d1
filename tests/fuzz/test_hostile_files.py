"""Files from somebody who means harm: each is refused with one message, or shown as what it is. None runs anything."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records import METRICS, a_record, measured
from rich.console import Console

from grbench.cli import main
from grbench.data.store_writer import build_store
from grbench.errors import DataError, GRBenchError, RunError, SuiteError
from grbench.output import printable
from grbench.registry.discovery import Registry
from grbench.report.render import as_csv, latex, markdown, print_tables, svg
from grbench.report.table import tables
from grbench.results.record import Record
from grbench.results.record_files import read_record, read_records, write_record
from grbench.results.values import read_values
from grbench.run.plan import make_plan
from grbench.suite.suite import load_suite
from grbench_reference.codes.item_vectors import read_vectors_file
from grbench_reference.datasets.interactions import source
from grbench_reference.datasets.interactions.dataset import Interactions
from grbench_reference.datasets.tencentgr.indexer import read_indexer

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x9b31m\r\b\x00\u202egnp.exe\u2066\u2028[bold red]x[/] :boom: "
    "| a |\n\n# h\n<script>alert(1)</script> ![i](http://x/y) [l](javascript:x) &#x202e; `c` "
    r"\input{/etc/passwd} \write18{rm} $x$ %"
)
FORMULA = "=HYPERLINK(1)"


def hostile_records(folder: Path) -> list[Record]:
    """A row with an interval and a failed one; every text that a table shows is hostile."""
    said: dict[str, Any] = {
        "suite": HOSTILE,
        "title": HOSTILE,
        "baseline": HOSTILE,
        "metrics": {name: {**facts, "label": FORMULA + HOSTILE} for name, facts in METRICS.items()},
        "dataset": {"name": HOSTILE, "digest": HOSTILE, "options": {HOSTILE: [HOSTILE]}},
        "protocol": {"name": HOSTILE, HOSTILE: HOSTILE},
        "environment": {"cpu": HOSTILE, "gpu": HOSTILE},
        "counts": {"evaluated": 4, "dropped": {HOSTILE: 1}, "remarks": [HOSTILE]},
        "published": [{"metric": "hit_rate@10", "value": 0.5, "source": HOSTILE, "same_protocol": True}],
    }
    records = measured(folder, "x", [1.0, 0.0, 1.0, 1.0], **said)
    records = [replace(record, method=f"{FORMULA}{HOSTILE}") for record in records]
    error = {"type": HOSTILE, "message": f"@{HOSTILE}", "traceback": HOSTILE}
    return [*records, replace(a_record("y", 0, **said), method=f"[1cm]{HOSTILE}", error=error, pool=None)]


def commanding(text: str, allowed: str = "\n") -> set[str]:
    """The characters of a text that a terminal would obey."""
    return {character for character in text if printable(character, allowed) != character}


def test_a_terminal_is_told_nothing_by_a_record(tmp_path: Path) -> None:
    made = tables(hostile_records(tmp_path))
    styled = io.StringIO()
    print_tables(made, Console(file=styled, force_terminal=True, color_system="truecolor", width=400))
    assert "31m" not in "".join(re.findall(r"\x1b\[[0-9;]*m", styled.getvalue()))  # rich's styles and no other
    assert commanding(re.sub(r"\x1b\[[0-9;]*m", "", styled.getvalue())) == set()
    assert "[bold red]x[/]" in styled.getvalue()
    assert ":boom:" in styled.getvalue()


def test_no_format_says_what_a_record_wants(tmp_path: Path) -> None:
    made = tables(hostile_records(tmp_path))
    page = markdown(made)
    assert commanding(page) == set()
    assert "<script" not in page.replace("\\<", "")
    assert "](" not in page
    assert "&#x202e;" not in page.replace("\\&", "")
    assert [line for line in page.splitlines() if line.startswith("#")] == [page.splitlines()[0]]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")}
    assert len(widths) == 1

    paper = latex(made)
    assert commanding(paper) == set()
    ours = r"\\(usepackage|begin|end|caption|centering|toprule|midrule|bottomrule|textbf|text\w+\{\}|dag\{\}|pm|uparrow"
    ours += r"|small|smallskip|footnotesize|raggedright|par|setlength|tabcolsep|multicolumn|rlap|parallel"
    ours += r"|sbox0|usebox0|resizebox|ifdim|wd0|else|fi|linewidth"
    rest = re.sub(ours + r"|downarrow|rightarrow|circ|[&%$#_{},\\])", "", paper)
    assert "\\" not in rest
    assert not re.search(r"\\\\\n[\[*]", paper)

    picture = ElementTree.fromstring(svg(made))
    assert not [element.tag for element in picture.iter() if "script" in element.tag or "image" in element.tag]
    assert not [key for element in picture.iter() for key in element.attrib if "href" in key or key.startswith("on")]

    sheet = list(csv.reader(io.StringIO(as_csv(made))))
    assert len({len(row) for row in sheet}) == 1
    for cell in (cell for row in sheet for cell in row):
        assert commanding(cell) == set()
        assert not cell.startswith(("=", "@", "+", "-")) or re.fullmatch(r"-[0-9.e+-]+", cell)


def test_the_command_line_shows_messages_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "\x1b[2J\u202e"
    place.mkdir()
    (place / "0123456789abcdef.json").write_text('{"schema": 2, "digest": "\\u001b[2J"}')
    (place / "stray.json").write_text("{}")
    (place / "suite.yaml").write_text('suite: "\\e[2J"\n')
    for command in (["table", str(place)], ["run", f"{place}/suite.yaml"], ["--debug", "table", str(place)]):
        assert main(command) == 2
        shown = capsys.readouterr()
        assert commanding(shown.out + shown.err) == set()
        assert "\\x1b[2J" in shown.err


# --- records


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("digest", "../../victim"),
        ("digest", "/etc/passwd"),
        ("lists_digest", "a/b"),
        ("rescored_from", "../../victim"),
        ("rescored_from", "/etc/passwd"),
        ("published", [{"metric": "m", "value": "=1", "source": "", "same_protocol": True}]),
        ("published", [{"metric": "m"}]),
    ],
)
def test_a_record_names_no_path_and_holds_what_it_should(tmp_path: Path, key: str, value: Any) -> None:
    path = write_record(tmp_path, replace(a_record("a", 0, 0.5), digest="0" * 16))
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(RunError, match=rf"{key}.*damaged"):
        read_record(path)


@pytest.mark.parametrize("number", ["1e308", "-1e308", "1" + "0" * 400, "1" + "0" * 5000])
def test_no_number_is_too_large_to_be_refused_or_shown(tmp_path: Path, number: str) -> None:
    for seed in (0, 1):
        path = write_record(tmp_path, replace(a_record("a", seed, 0.5), digest=f"{seed:016}", seed=seed))
        text = re.sub(
            r": (0\.5|5\.0|90\.0|1520\.4|3221225472|25769803776|1400000|78921)\b", f": {number}", path.read_text()
        )
        assert text.count(number) >= 6
        path.write_text(text)
    try:
        made = tables(read_records([tmp_path]))
    except RunError as refused:
        message = str(refused)
        assert len(message) < 600
        return
    for form in (markdown, latex, as_csv, svg):
        form(made)
    assert max(len(entry.text) for row in made[0].rows for entry in row) < 700


def test_nested_and_endless_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef.json"
    path.write_text('{"schema": 2, "identity": ' + "[" * 100_000)
    with pytest.raises(RunError, match="not a record"):
        read_record(path)
    with path.open("wb") as file:
        file.truncate(10**10)  # takes no room on the disk
    with pytest.raises(RunError, match="is larger than"):
        read_record(path)


@pytest.mark.skipif(os.name != "posix", reason="there are no pipes and links")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_file_without_an_end_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "0123456789abcdef.json")
    with pytest.raises(RunError, match="is no file that can be read"):
        read_records([tmp_path])
    (tmp_path / "0123456789abcdef.json").rename(tmp_path / "stray.json")
    notes: list[str] = []
    assert read_records([tmp_path], note=notes.append) == []
    assert "stray.json" in notes[0]


def test_links_in_a_folder_of_results_are_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "users.json").write_text(json.dumps({f"u{user}": ["a", "b", "c", "d"] for user in range(4)}))
    (tmp_path / "suite.yaml").write_text(
        "{suite: tiny, dataset: {name: interactions, path: users.json}, protocol: leave_last_out, "
        "metrics: [hit_rate@2], methods: {floor: {encoder: most_popular, trackers: [jsonl]}, "
        "other: {encoder: most_popular, filters: [history]}}}"
    )
    registry = Registry.load()
    suite = load_suite("suite.yaml")
    plan = make_plan(suite, suite.cells(registry), registry, tmp_path / "results")
    tracked, other = (planned.blank.digest for planned in plan.cells)
    folder = tmp_path / "results" / "tiny"
    folder.mkdir(parents=True)
    victim, victims = tmp_path / "victim", tmp_path / "victims"
    victim.write_text("precious")
    victims.mkdir()
    for name in (f"{other}.log", f"{other}.json", f"{other}.parquet"):
        (folder / name).symlink_to(victim)
    (folder / f"{tracked}.d").symlink_to(victims)
    with pytest.raises(RunError, match="not a record"):  # reading through a link tells nothing of what it leads to
        read_records([folder])
    (folder / f"{other}.json").unlink()
    assert main(["run", "suite.yaml", "--device", "cpu"]) == 1
    assert victim.read_text() == "precious"
    assert list(victims.iterdir()) == []
    found = {record.method: record for record in read_records([folder])}
    assert found["other"].status == "ok"
    assert "is a link" in (found["floor"].error or {})["message"]
    assert not (folder / f"{other}.parquet").is_symlink()


# --- lists, arrays and pickles


class Planted:
    """Its pickle writes the file `ran` when it is loaded."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.ran,)


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    """A planted object, which has not been loaded when the test ends."""
    made = Planted(tmp_path / "ran")
    yield made
    assert not made.ran.exists()


def test_the_planted_object_would_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Planted(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_an_array_of_objects_is_refused(tmp_path: Path, planted: Planted) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.array([[planted]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"is not a readable \.npy file"):
        read_vectors_file(path, 0)


def test_an_extension_type_of_parquet_is_not_loaded(tmp_path: Path, planted: Planted) -> None:
    marked = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(planted)}
    user = pa.field("user", pa.int64(), metadata=marked)
    value = pa.field("metric:x", pa.float64(), metadata=marked)
    path = tmp_path / "lists.parquet"
    pq.write_table(pa.table([pa.array([1]), pa.array([0.5])], schema=pa.schema([user, value])), path)
    with contextlib.suppress(RunError):  # newer releases of pyarrow may refuse it
        read_values(path, ["x"])


def test_a_small_file_of_very_many_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    pq.write_table(pa.table({"user": np.zeros(12_000_000, np.int64)}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(RunError, match="12,000,000 values in"):
        read_values(path, ["x"])


def pickled(*opcodes: bytes) -> bytes:
    return b"\x80\x04" + b"".join(opcodes) + b"."


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


@pytest.mark.parametrize(
    "content",
    [
        pickled(named("os", "system"), b"X\x04\x00\x00\x00true", b"\x85R"),
        pickled(named("builtins", "eval"), b"X\x01\x00\x00\x001", b"\x85R"),
        pickled(named("builtins", "dict.fromkeys"), b")R"),
        pickled(named("builtins", "getattr"), b")R"),
        pickled(named("collections", "defaultdict.__init__"), b")R"),
        pickled(b"\x82\x01"),  # an extension of copyreg
        pickled(b"X\x01\x00\x00\x00a", b"Q"),  # a persistent id
        pickled(b"]", b"\x94", *[named("builtins", "list") + b"h\x00\x85R"] * 3),  # copies of a list
        pickled(b"\x8e" + struct.pack("<Q", 2**60)),  # bytes of an exabyte
        pickled(b"(" * 20_000),
        pickled(b"]" * 20_000, b"\x85" * 20_000),
    ],
)
def test_a_pickle_that_is_no_indexer_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "indexer.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_indexer(path)


def test_an_indexer_with_a_planted_object_is_refused(tmp_path: Path, planted: Planted) -> None:
    path = tmp_path / "indexer.pkl"
    path.write_bytes(pickle.dumps({"i": {5: 1}, "u": {"x": 1}, "f": {"1": planted}}))
    with pytest.raises(DataError, match="None of its code was executed"):
        read_indexer(path)


# --- logs and codes


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.zst", "log.json.gz"])
def test_a_log_that_grows_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    start, line = (b"user,item,timestamp\n", b"u1,i1,5\n") if ".csv" in name else (b'{"u1": ["i1"', b', "i1"')
    path = tmp_path / name
    path.write_bytes(
        pa.compress(start + line * 400_000, codec="zstd", asbytes=True)
        if ".zst" in name
        else gzip.compress(start + line * 400_000)
    )
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(source, "SMALL_TEXT", 1 << 20)
    with pytest.raises(DataError, match="more than 300 times as much text"):
        build_store(Interactions(path=path), name="log", cache=tmp_path / "cache")


# --- suites

GOOD = (
    "{suite: tiny, dataset: quickstart, protocol: leave_last_out, metrics: [hit_rate@2], methods: {a: {encoder: %s}}}"
)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch ran']",
        "suite: !!python/name:os.system",
        "suite: !!python/object/new:os.system [touch ran]",
        GOOD.replace("tiny", "../../victim") % "most_popular",
        GOOD.replace("tiny", "/tmp/victim") % "most_popular",
        GOOD.replace("tiny", "'a\\0'") % "most_popular",
        GOOD % '"os:system"',
        GOOD % "{name: ../../evil}",
        GOOD % "{name: grbench_reference.encoders.hstu}",
        "a: &a [x, x]\nb: &b [*a, *a]\n"
        + "".join(f"c{i}: &c{i} [*{'b' if not i else f'c{i - 1}'}]\n" for i in range(9)),
        "&a [*a]",
        "a: &a {<<: *a}",
        "a: " + "9" * 100_000,
        "[" * 500,
        "{suite: " + "x" * 10_000 + "}",
    ],
)
def test_a_suite_that_means_harm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(GRBenchError) as raised:
        load_suite(path).cells(Registry.load())
    assert isinstance(raised.value, SuiteError) or "plug-in" in str(raised.value) or "there" in str(raised.value)
    assert max(map(len, str(raised.value).splitlines())) < 2_500
    assert [file.name for file in tmp_path.iterdir()] == ["suite.yaml"]
