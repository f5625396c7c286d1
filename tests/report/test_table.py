"""Tables from hand-made records: who may stand beside whom, and every number worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from records import MACHINE, METRICS, a_record

from grbench.report.format import count, label_of, number, significant
from grbench.report.render import as_csv, latex, markdown, svg
from grbench.report.rows import rows_of
from grbench.report.table import tables
from grbench.results.record import Record


def texts(table: Any, row: int) -> dict[str, str]:
    return {column.title: cell.text for column, cell in zip(table.columns, table.rows[row], strict=True)}


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


def test_records_with_different_metrics_share_a_table_where_versions_agree() -> None:
    more = {**METRICS, "novelty@10": {"higher_is_better": True, "version": "n1"}}

    def scored_again(method: str, seed: int) -> Record:
        record = a_record(method, seed, 0.2, metrics=more)
        return replace(record, scores={**record.scores, "novelty@10": 4.0 + seed})

    again = [scored_again("again", seed) for seed in (0, 1)]
    in_part = [a_record("in_part", 0, 0.3), scored_again("in_part", 1)]
    (table,) = tables([a_record("before", 0, 0.1), *again, *in_part])
    assert [texts(table, row)[f"{label_of('novelty@10')} ↑"] for row in (0, 1, 2)] == [
        "—",
        "4.5000",
        "—",  # one of its seeds has none
    ]
    assert [texts(table, row)["seeds"] for row in (0, 1, 2)] == ["1", "2", "2"]
    other = replace(again[0], method="other", digest="o", metrics={**more, "novelty@10": {"version": "n2"}})
    assert len(tables([*again, other])) == 2


EXTERNAL = {"file": "l.run", "sha256": "ab" * 32, "format": "trec", "note": "", "users_not_evaluated": 0}


def test_metrics_of_all_lists_are_explained_whichever_record_has_them() -> None:
    coverage = {**METRICS, "coverage@10": {"label": "Coverage@10", "per_user": False, "version": "v1"}}
    more = a_record("more", hit_rate=0.5, metrics=coverage)
    more = replace(more, scores={**more.scores, "coverage@10": 0.25})
    (table,) = tables([a_record("fewer", hit_rate=0.5), more])
    assert any("(Coverage@10: of all lists together, so that" in line for line in table.footer)


def test_a_record_of_several_methods_is_a_row_for_each() -> None:
    row = {"name": "wider", "points": 2, "ablation": True}
    place = {"method": "wider[width=8]", "order": 3, "tuning": None, "grid": row, "published": []}
    records = [a_record("small", hit_rate=0.5, order=1, also=[place]), a_record("other", hit_rate=0.25, order=2)]
    (table,) = tables(records)
    assert [line[0].text for line in table.rows] == ["small", "other", "wider[width=8]"]
    assert [line[1].text for line in table.rows] == [".5000", ".2500", ".5000"]


def test_rankings_made_elsewhere_are_marked_and_have_neither_costs_nor_hardware() -> None:
    facts = [{**EXTERNAL, "users_without_list": missing} for missing in (0, 3)]
    theirs = [
        a_record("theirs", seed, 0.2, cost={}, environment={}, external=each, order=9)
        for seed, each in enumerate(facts)
    ]
    ours = a_record("ours", 0, 0.1)
    (table,) = tables([ours, *theirs])
    assert [row[0].mark for row in table.rows] == ["", " ‡"]
    shown = texts(table, 1)
    assert {shown[title] for title in ("train min", "users/s", "RAM GiB", "search q/s", "p99 ms")} == {"—"}
    assert "hardware" not in shown
    assert table.footer.count("Hardware: Test CPU, 2 threads, 24 GiB RAM, no GPU used") == 1
    (line,) = (line for line in table.footer if line.startswith("‡"))
    digest = "ab" * 6
    assert line == (
        "‡ theirs: ranked elsewhere and scored here, so without costs; "
        f"l.run (sha256 {digest}); l.run (sha256 {digest}), 3 users without a list count as missed"
    )
    assert "external" in as_csv([table]).splitlines()[0]
    assert "external" not in as_csv(tables([ours])).splitlines()[0]
