"""Users' values are kept beside their lists, and read without the lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grbench.errors import RunError
from grbench.results.values import read_values, with_values

LISTS = pa.table({"user": ["a", "b"], "items": [[1], [2, 3]]}).replace_schema_metadata({"grbench": "{}"})


def test_values_are_columns_by_name_and_the_rest_stays(tmp_path: Path) -> None:
    table = with_values(LISTS, {"ndcg@10": np.array([0.5, 0.25]), "novelty": np.array([1.0, 2.0])})
    pq.write_table(table, tmp_path / "lists.parquet")
    users, values = read_values(tmp_path / "lists.parquet", ["ndcg@10", "absent", "novelty"]) or ([], {})
    assert [*users] == ["a", "b"]
    assert {name: [*each] for name, each in values.items()} == {"ndcg@10": [0.5, 0.25], "novelty": [1.0, 2.0]}
    assert table.select(["user", "items"]).equals(LISTS)
    assert table.schema.metadata == LISTS.schema.metadata


def test_new_values_replace_those_of_other_metrics(tmp_path: Path) -> None:
    table = with_values(with_values(LISTS, {"ndcg@10": np.zeros(2)}), {"mrr@10": np.ones(2)})
    assert table.column_names == ["user", "items", "metric:mrr@10"]


def test_without_values_there_is_none_and_damage_is_said(tmp_path: Path) -> None:
    assert read_values(tmp_path / "absent.parquet", ["ndcg@10"]) is None
    pq.write_table(LISTS, tmp_path / "older.parquet")
    assert (read_values(tmp_path / "older.parquet", ["ndcg@10"]) or ([], {"ndcg@10"}))[1] == {}
    (tmp_path / "damaged.parquet").write_bytes((tmp_path / "older.parquet").read_bytes()[:-20])
    with pytest.raises(RunError, match=r"damaged.parquet: the lists cannot be read"):
        read_values(tmp_path / "damaged.parquet", ["ndcg@10"])


@pytest.mark.parametrize("wrong", [["x", "y"], [1.0, None], [np.nan, 1.0], [1, 2]])
def test_values_that_are_no_finite_numbers_are_damage(tmp_path: Path, wrong: list[object]) -> None:
    pq.write_table(LISTS.append_column("metric:mrr@10", pa.array(wrong)), tmp_path / "lists.parquet")
    with pytest.raises(RunError, match=r"lists.parquet: the lists are damaged \(column metric:mrr@10 should hold"):
        read_values(tmp_path / "lists.parquet", ["mrr@10"])
    pq.write_table(LISTS.drop_columns(["user"]), tmp_path / "lists.parquet")
    with pytest.raises(RunError, match="no column user"):
        read_values(tmp_path / "lists.parquet", ["mrr@10"])
