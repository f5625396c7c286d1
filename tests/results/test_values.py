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
    users, values = read_values(tmp_path / "lists.parquet", "ndcg@10") or ([], [])
    assert [*users] == ["a", "b"]
    assert [*values] == [0.5, 0.25]
    assert table.select(["user", "items"]).equals(LISTS)
    assert table.schema.metadata == LISTS.schema.metadata


def test_new_values_replace_those_of_other_metrics(tmp_path: Path) -> None:
    table = with_values(with_values(LISTS, {"ndcg@10": np.zeros(2)}), {"mrr@10": np.ones(2)})
    assert table.column_names == ["user", "items", "metric:mrr@10"]


def test_without_values_there_is_none_and_damage_is_said(tmp_path: Path) -> None:
    assert read_values(tmp_path / "absent.parquet", "ndcg@10") is None
    pq.write_table(LISTS, tmp_path / "older.parquet")
    assert read_values(tmp_path / "older.parquet", "ndcg@10") is None
    (tmp_path / "damaged.parquet").write_bytes((tmp_path / "older.parquet").read_bytes()[:-20])
    with pytest.raises(RunError, match=r"damaged.parquet: the lists cannot be read"):
        read_values(tmp_path / "damaged.parquet", "ndcg@10")
