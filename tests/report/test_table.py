"""Tables from hand-made records: who may stand beside whom, and every number worked out by hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from grbench.report.format import count, label_of, number, significant
from grbench.report.render import as_csv, latex, markdown, print_tables, svg
from grbench.report.rows import rows_of
from grbench.report.table import tables
from grbench.results.record import Record, ranking_path
from grbench.results.values import with_values

METRICS = {
    "hit_rate@10": {"label": "HR@10", "higher_is_better": True, "version": "v1"},
    "mean_rank": {"higher_is_better": False, "version": "v1"},
}
MACHINE = {"cpu": "Test CPU", "cpu_threads": 2, "ram_bytes": 24 * 2**30, "device": "cpu"}


def a_record(method: str, seed: int = 0, hit_rate: float | None = None, rank: float = 5.0, **values: Any) -> Record:
    done = hit_rate is not None
    made: dict[str, Any] = {
        "digest": f"{method}-{seed}",
        "suite": "tiny",
        "identity": {"training": {"encoder": {"name": method}, "seed": seed}, "ranking": {}, "metrics": []},
        "status": "ok" if done else "error",
        "error": None if done else {"type": "ValueError", "message": "no such thing\nmore", "traceback": ""},
        "dataset": {"name": "toy", "digest": "d1", "options": {"path": "data/toy"}},
        "protocol": {"name": "last_positive", "positives": ["click"], "out_of_pool": "drop"},
        "metrics": METRICS,
        "pool": {"size": 660000, "digest": "p1"} if done else None,
        "scores": {"hit_rate@10": hit_rate, "mean_rank": rank} if done else {},
        "counts": {"evaluated": 78921, "dropped": {"no_positive": 1745, "out_of_pool": 19518}, "parameters": 1_400_000},
        "cost": {
            "train_seconds": 90.0,
            "train_users_per_second": 1520.4,
            "peak_process_bytes": 3 * 2**30,
            "search_queries_per_second": 1800.0,
            "search_p99_ms": 0.5,
        },
        "environment": MACHINE,
    }
    return Record(method=method, seed=seed, **(made | values))


def texts(table: Any, row: int) -> dict[str, str]:
    return {column.title: cell.text for column, cell in zip(table.columns, table.rows[row], strict=True)}


def measured(
    folder: Path, method: str, *seeds: Sequence[float], ranks: Sequence[float] = (), **values: Any
) -> list[Record]:
    """A method's records with its users' values in `folder`. seeds: each seed's hit rates, one per user; ranks: the
    mean_rank of each user in all seeds, 5 where not given."""
    records = []
    for seed, hits in enumerate(seeds):
        of_users = {"hit_rate@10": np.array(hits), "mean_rank": np.array(ranks or [5.0] * len(hits))}
        means = {name: float(each.mean()) for name, each in of_users.items()}
        record = a_record(method, seed, means["hit_rate@10"], means["mean_rank"], folder=folder, **values)
        lists = with_values(pa.table({"user": np.arange(len(hits))}), of_users)
        pq.write_table(lists, ranking_path(folder, record.digest))
        records.append(record)
    return records


HIT, MISS = [1.0] * 20, [0.0] * 20


def test_the_interval_of_one_seed_is_over_users(tmp_path: Path) -> None:
    (table,) = tables(measured(tmp_path, "a", [*HIT, *MISS]))
    # 40 users, half of them hit: standard deviation .50637, error .080064; t(.975, 39 degrees) = 2.022691
    assert (table.rows[0][1].text, table.rows[0][1].spread) == (".5000", number(2.022691 * 0.50637 / 40**0.5))
    assert "over users only: there are too few seeds" in "\n".join(table.footer)


def test_without_users_values_there_is_neither_interval_nor_mark() -> None:
    (table,) = tables([a_record("a", 0, 0.1), a_record("a", 1, 0.2), a_record("b", 0, 0.9)])
    assert [(row[1].text, row[1].spread, row[1].best, row[1].mark) for row in table.rows] == [
        (".1500", "", False, ""),
        (".9000", "", False, ""),
    ]
    assert "without the users' values, there is neither interval nor mark" in "\n".join(table.footer)


def test_rows_that_cannot_be_told_from_the_best_share_its_mark(tmp_path: Path) -> None:
    records = measured(tmp_path, "best", [*HIT, *HIT, *MISS], ranks=[1.0, 2.0] * 30)
    records += measured(tmp_path, "close", [*HIT, *HIT[1:], *MISS, 0.0], ranks=[3.0, 4.0] * 30)  # one user fewer
    records += measured(tmp_path, "far", [*MISS, *MISS, *MISS], ranks=[1.0, 2.0] * 30)
    (table,) = tables(records)
    assert [row[1].best for row in table.rows] == [True, True, False]
    assert [row[2].best for row in table.rows] == [True, False, True]  # a smaller rank is better
    assert "bold: the best, and what cannot be told from it" in "\n".join(table.footer)


def test_nothing_is_bold_where_the_best_row_s_users_are_not_known(tmp_path: Path) -> None:
    records = [*measured(tmp_path, "known", [*HIT, *MISS]), a_record("copied", 0, 0.9)]
    (table,) = tables(records)
    assert [row[1].best for row in table.rows] == [False, False]
    assert table.rows[0][1].spread


def test_rows_are_tested_against_the_baseline(tmp_path: Path) -> None:
    records = measured(tmp_path, "floor", [*MISS, *MISS], baseline="floor")
    records += measured(tmp_path, "same", [1.0, *MISS[1:], *MISS], baseline="floor")
    records += measured(tmp_path, "better", [*HIT, *MISS], baseline="floor")
    (table,) = tables(records)
    assert [row[1].mark for row in table.rows] == ["", "°", ""]
    assert "°: cannot be told from floor, the baseline" in "\n".join(table.footer)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(as_csv([table])))}
    assert float(rows["better"]["hit_rate@10 - baseline"]) == pytest.approx(0.5)
    assert float(rows["better"]["hit_rate@10 p"]) < 0.001
    assert float(rows["same"]["hit_rate@10 p"]) > 0.3
    assert rows["floor"]["hit_rate@10 p"] == ""
    for text in (markdown([table]), latex([table])):
        assert "°" in text or r"^\circ" in text


def test_five_seeds_are_enough_for_an_interval_over_seeds_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (table,) = tables(
        measured(tmp_path, "a", *(rng.random((5, 50)) < rng.uniform(0.2, 0.4, (5, 1))).astype(float).tolist())
    )
    assert "95 % interval over users and seeds" in "\n".join(table.footer)


def test_one_row_with_every_column() -> None:
    (table,) = tables([a_record("baseline", 0, 0.0637), a_record("baseline", 1, 0.0637)])
    assert texts(table, 0) == {
        "method": "baseline",
        "HR@10 ↑": ".0637",
        "Mean rank ↓".replace("Mean rank", label_of("mean_rank")): "5.0000",
        "train min": "1.50",
        "users/s": "1,520",
        "RAM GiB": "3.00",
        "search q/s": "1,800",
        "p99 ms": "0.500",
        "params": "1.40 M",
        "seeds": "2",
    }
    footer = "\n".join(table.footer)
    for said in (
        "toy (digest d1); path=data/toy",
        "last_positive; positives=[click], out_of_pool=drop",
        "78,921 evaluated",
        "1,745 no positive, 19,518 out of pool",
        "660,000 candidates",
        "Test CPU, 2 threads, 24 GiB RAM, no GPU used",
        "Scores are means over users and seeds",
    ):
        assert said in footer


def filtered(method: str, filters: list[str], unreachable: dict[str, int], **values: Any) -> Record:
    record = a_record(method, 0, 0.1, **values)
    return replace(
        record,
        identity={**record.identity, "ranking": {"filters": filters}},
        counts={**record.counts, "unreachable": unreachable},
    )


def test_filters_and_the_targets_that_they_cost_are_shown_in_every_format() -> None:
    rows = [filtered("all", [], {}), filtered("new_only", ["history"], {"history": 1_204, "any": 1_204})]
    (table,) = tables(rows)
    assert [(texts(table, row)["filters"], texts(table, row)["unreachable"]) for row in (0, 1)] == [
        ("—", "—"),
        ("history", "1,204"),
    ]
    (note,) = [line for line in table.footer if line.startswith("Unreachable")]
    for text in (markdown([table]), latex([table]), as_csv([table]), svg([table])):
        assert "history" in text
        assert "1,204" in text or "1204" in text
        assert note[:20] in text.replace("&#160;", " ")


def test_filters_that_cost_no_target_are_shown_without_a_count() -> None:
    (table,) = tables([filtered("all", [], {}), filtered("new_only", ["history"], {"history": 0, "any": 0})])
    assert texts(table, 1)["filters"] == "history"
    assert "unreachable" not in texts(table, 1)
    (plain,) = tables([a_record("all", 0, 0.1)])
    assert "filters" not in texts(plain, 0)


def test_records_of_the_former_filter_keep_its_name() -> None:
    old = replace(a_record("old", 0, 0.1), identity={"training": {}, "ranking": {"filters": ["history", "cold"]}})
    (table,) = tables([old])
    assert texts(table, 0)["filters"] == "history, cold"


def test_lists_with_fewer_items_than_the_cutoff_are_said() -> None:
    narrow = replace(a_record("beam", 0, 0.1), lists={"scored": 10, "shortest": 3, "kept": None})
    full = replace(a_record("exact", 0, 0.2), lists={"scored": 10, "shortest": 10, "kept": None})
    (table,) = tables([narrow, full])
    notes = [line for line in table.footer if line.startswith("Short lists")]
    assert notes == ["Short lists: beam found 3 of 10 items for some users"]
    assert notes[0] in markdown([table])


@pytest.mark.parametrize(("cutoff", "said"), [(5, []), (9, ["8 of 9"]), (10, ["8 of 10"]), (15, ["12 of 15"])])
def test_short_lists_are_those_that_the_metrics_are_of(cutoff: int, said: list[str]) -> None:
    """Lists of 10 items and longer ones of 20, re-scored: up to 10 the former are scored, above it the latter."""
    record = a_record("beam", 0, 0.1, lists={"scored": 10, "shortest": 8, "kept": 20, "kept_shortest": 12})
    metrics = [{"name": "hit_rate", "options": {"k": cutoff}}, {"name": "mrr", "options": {"k": None}}]
    (table,) = tables([replace(record, identity={**record.identity, "metrics": metrics})])
    notes = [line for line in table.footer if line.startswith("Short lists")]
    assert notes == [f"Short lists: beam found {each} items for some users" for each in said]


def test_ties_in_time_are_said() -> None:
    record = a_record("a", 0, 0.1)
    ties = {"events": 7_000, "users": 3, "latest": 1, "broken_by": "file_order"}
    (table,) = tables([replace(record, counts={**record.counts, "ties": ties})])
    said = (
        "Ties in time: 7,000 events of 3 users share their time with another event of the same user, as 1 users' last "
        "event does; they are in file order"
    )
    assert said in table.footer
    (table,) = tables([replace(record, counts={**record.counts, "ties": {**ties, "events": 0}})])
    assert "Ties" not in "\n".join(table.footer)


def test_failures_are_rows_with_their_reason() -> None:
    (table,) = tables(
        [a_record("floor", 0, 0.1), a_record("a", 0, 0.2), a_record("a", 1), a_record("a", 2), a_record("b", 0)]
    )
    assert [cell.text for cell in (row[-2] for row in table.rows)] == ["1", "1 of 3", "0 of 1"]
    assert table.rows[1][-1].text == "error, seed 1, 2: no such thing"
    assert texts(table, 2)["HR@10 ↑"] == "—"
    assert table.columns[-1].title == "failed"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dataset": {"name": "toy", "digest": "d2"}}, "dataset"),
        ({"protocol": {"name": "last_positive", "positives": ["click"], "out_of_pool": "add"}}, "protocol.out_of_pool"),
        ({"pool": {"size": 5, "digest": "p2"}}, "candidate pool"),
        ({"metrics": METRICS | {"mean_rank": {"higher_is_better": False, "version": "v2"}}}, "metrics.mean_rank"),
    ],
)
def test_what_cannot_be_compared_never_shares_a_table(changed: dict[str, Any], said: str) -> None:
    found = tables([a_record("a", 0, 0.1), a_record("b", 0, 0.2, **changed), a_record("c", 0)])
    assert len(found) == 2
    for table in found:
        assert "not comparable" in table.heading
        assert table.heading.count(said) == 1
    # a failed cell that never saw its pool stands with those that are otherwise like it
    assert [row[0].text for row in found[0].rows] == ["a", "c"]


def test_costs_of_two_machines_are_told_apart() -> None:
    other = MACHINE | {"cpu": "Other CPU"}
    (table,) = tables(
        [
            a_record("a", 0, 0.1),
            a_record("b", 0, 0.2, environment=other),
            a_record("c", 0, 0.3),
            a_record("c", 1, 0.3, environment=other),
        ]
    )
    assert [texts(table, row)["hardware"] for row in range(3)] == ["a", "b", "a, b"]
    assert texts(table, 2)["users/s"] == "mixed"
    assert "compare costs only within a letter" in "\n".join(table.footer)
    assert "[b] Other CPU" in "\n".join(table.footer)


def on_cpu(method: str, seed: int, seconds: float, rate: float, cpu_seconds: float) -> Record:
    phases = {"train": {"seconds": seconds, "cpu_seconds": cpu_seconds}}
    return a_record(
        method, seed, 0.1, cost={"train_seconds": seconds, "train_users_per_second": rate, "phases": phases}
    )


def test_processor_time_stands_beside_wall_time() -> None:
    # Two threads for a minute, then the same work beside another job: twice the time, the same processor time.
    quiet, shared = on_cpu("a", 0, 60.0, 600.0, 120.0), on_cpu("b", 0, 120.0, 300.0, 120.0)
    (table,) = tables([quiet, shared])
    assert [texts(table, row)["train min"] for row in (0, 1)] == ["1.00", "2.00"]
    assert [texts(table, row)["CPU min"] for row in (0, 1)] == ["2.00", "2.00"]
    assert [texts(table, row)["users/CPU s"] for row in (0, 1)] == ["300", "300"]
    assert "users/s" not in texts(table, 0)
    assert any("processor time" in line for line in table.footer)
    assert [row["train_users_per_second"] for row in table.values] == [600.0, 300.0]  # CSV has them all
    assert [row["train_cpu_seconds"] for row in table.values] == [120.0, 120.0]


def test_a_record_without_processor_time_keeps_its_rate() -> None:
    (table,) = tables([on_cpu("a", 0, 60.0, 600.0, 120.0), a_record("older", 0, 0.1)])
    old = texts(table, 1)
    assert (old["CPU min"], old["users/CPU s"], old["users/s"]) == ("—", "—", "1,520")
    (only,) = tables([a_record("older", 0, 0.1)])
    assert "CPU min" not in texts(only, 0)


def test_gpu_memory_where_a_gpu_was_used() -> None:
    cost = {"peak_gpu_bytes": 9 * 2**30, "peak_process_bytes": 2**30}
    (table,) = tables([a_record("a", 0, 0.1, cost=cost, environment=MACHINE | {"gpu": "H200", "device": "cuda"})])
    assert texts(table, 0)["GPU GiB"] == "9.00"
    assert "H200" in "\n".join(table.footer)


def test_one_name_with_two_meanings_makes_two_rows() -> None:
    old, new = (
        a_record("a", 0, 0.1, digest=digest, identity={"training": {"epochs": epochs}, "ranking": {}})
        for digest, epochs in (("x", 1), ("y", 2))
    )
    assert [row.name for row in rows_of([old, new])] == ["a (epochs=1)", "a (epochs=2)"]


def test_an_older_identity_is_shown_as_such_and_has_a_row_of_its_own() -> None:
    older = [a_record("a", seed, 0.1, digest=f"o{seed}", identity={"method": "a", "seed": seed}) for seed in (0, 1)]
    (table,) = tables([*older, a_record("a", 0, 0.2)])
    assert [row[0].text for row in table.rows] == ["a (older identity)", "a"]
    assert texts(table, 0)["seeds"] == "2"
    assert "Older identity: written by an earlier grbench" in "\n".join(table.footer)
    (table,) = tables([a_record("a", 0, 0.2)])
    assert "lder identity" not in "\n".join(table.footer)


def test_a_cell_that_was_scored_by_more_metrics_shows_the_newer_record() -> None:
    more = a_record("a", 0, 0.1, digest="x", lists_digest="l", finished="2026-01-02")
    one = {"hit_rate@10": METRICS["hit_rate@10"]}
    (table,) = tables([a_record("a", 0, 0.1, lists_digest="l", finished="2026-01-01", metrics=one), more])
    assert [column.metric for column in table.columns if column.metric] == list(METRICS)
    assert texts(table, 0)["seeds"] == "1"


def test_a_copied_record_counts_once() -> None:
    (table,) = tables([a_record("a", 0, 0.1, finished="2026-01-01"), a_record("a", 0, 0.2, finished="2026-01-02")])
    assert texts(table, 0)["seeds"] == "1"
    assert texts(table, 0)["HR@10 ↑"] == ".2000"


def test_names_and_numbers_as_papers_print_them() -> None:
    labels = [label_of(name) for name in ("hit_rate@10", "ndcg@5", "weighted_ndcg@10", "mrr", "coverage@10", "score")]
    assert labels == ["HR@10", "NDCG@5", "WNDCG@10", "MRR", "Coverage@10", "Score"]
    assert [number(value) for value in (0.06374, -0.00121, 1.25, 0.99999, 0.0, None)] == [
        ".0637",
        "-.0012",
        "1.2500",
        "1.0000",
        ".0000",
        "—",
    ]
    assert [significant(value) for value in (0.042, 1.25, 81.34, 1520.4, 0.0, None)] == [
        "0.0420",
        "1.25",
        "81.3",
        "1,520",
        "0",
        "—",
    ]
    assert [count(value) for value in (640, 12_345, 1_400_000_000, None)] == ["640", "12.3 K", "1.40 B", "—"]


@pytest.fixture
def tricky(tmp_path: Path) -> list[Any]:
    """Names with signs that formats give a meaning, an interval of .1157, and a failed row."""
    records = measured(tmp_path, "a_b & 50 %", [*HIT[:6], *MISS, *MISS[6:]], [*HIT[:6], *MISS, *MISS[6:]])
    records += measured(tmp_path, "x|y", [*HIT[:12], *MISS[12:], *MISS])
    return tables([*records, a_record("f", 0)])


def test_markdown_marks_escapes_and_aligns(tricky: list[Any]) -> None:
    text = markdown(tricky)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in rows}) == 1
    assert "**.3000**" in text
    assert ".1500 ± .1157" in text
    assert r"x\|y" in text


def test_latex_is_escaped_and_uses_booktabs(tricky: list[Any]) -> None:
    text = latex(tricky)
    assert r"a\_b \& 50 \%" in text
    assert r"\textbf{.3000}" in text
    assert r".1500 $\pm$ .1157" in text
    assert r"HR@10 $\uparrow$" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert not set(text) & set("±↑↓—°")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:-1]
    columns = text.partition(r"\begin{tabular}{")[2].partition("}")[0]
    assert {line.replace(r"\&", "").count("&") + 1 for line in body} == {len(columns)}


def test_csv_holds_unrounded_numbers(tricky: list[Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(tricky))))
    assert [row["method"] for row in rows] == ["a_b & 50 %", "x|y", "f"]
    assert float(rows[0]["hit_rate@10"]) == pytest.approx(0.15)
    assert rows[2]["hit_rate@10"] == ""
    assert (rows[2]["seeds"], rows[2]["seeds_planned"]) == ("0", "1")


@pytest.mark.parametrize("width", [200, 80])
def test_the_terminal_shows_every_number_whole(width: int, tricky: list[Any]) -> None:
    out = io.StringIO()
    print_tables(tricky, Console(file=out, force_terminal=True, width=width, color_system="standard"))
    shown = out.getvalue()
    for entry in (".1500", ".1157", ".3000", "1,520", "1.40 M", "no such thing"):
        assert entry in shown
    assert "\x1b[1m.3000" in shown


def test_a_picture_shows_what_the_terminal_does(tricky: list[Any]) -> None:
    root = ElementTree.fromstring(svg(tricky))
    words = " ".join("".join(root.itertext()).replace("\xa0", " ").split())
    assert "a_b & 50 %" in words
    assert ".1500 ± .1157" in words


def test_a_pipe_gets_no_control_characters(tricky: list[Any]) -> None:
    out = io.StringIO()
    print_tables(tricky, Console(file=out, force_terminal=False))
    assert "\x1b" not in out.getvalue()
    assert out.getvalue() == markdown(tricky)
