"""Users' groups are kept beside their lists, in the slices' order, and read without the lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grbench.errors import RunError
from grbench.results.slices import MAX_GROUPS, Grouping, grouping, read_slices, with_slice
from grbench.results.values import read_values, with_values

LISTS = pa.table({"user": ["a", "b", "c"], "items": [[1], [2, 3], []]}).replace_schema_metadata({"grbench": "{}"})
RANKING: Any = SimpleNamespace(users=np.arange(3))


class Fixed:
    """Gives the same labels whatever it is asked, and has no `order` of its own."""

    name = "fixed"

    def __init__(self, labels: Any) -> None:
        self.labels = labels

    def __call__(self, ranking: Any) -> Any:
        return self.labels


class Ordered(Fixed):
    def __init__(self, labels: Any, order: Sequence[Any]) -> None:
        super().__init__(labels)
        self._order = order

    def order(self, ranking: Any) -> Sequence[Any]:
        return self._order


def divided(part: Any) -> tuple[list[int], tuple[str, ...]]:
    found = grouping(part, RANKING)
    return found.codes.tolist(), found.groups


def test_groups_are_in_the_slice_s_order_then_by_name() -> None:
    assert divided(Fixed(np.array(["x", "", "b"]))) == ([1, -1, 0], ("b", "x"))
    assert divided(Fixed(np.array(["x", None, "x"], object))) == ([0, -1, 0], ("x",))
    assert divided(Fixed(np.array(["x", "y", "b"], np.dtypes.StringDType()))) == ([1, 2, 0], ("b", "x", "y"))
    assert divided(Ordered(["x", "new", "b"], ["x", "unused", "b"])) == ([0, 3, 2], ("x", "unused", "b", "new"))
    assert divided(Fixed([None, "", None])) == ([-1, -1, -1], ())


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Fixed(["a", "b"]), r"slice fixed: returned shape \(2,\); it should return one group per query, \(3,\)"),
        (Fixed([1, 2, 3]), "slice fixed: groups should be text, or None"),
        (Fixed([0.5, "a", None]), "slice fixed: groups should be text, or None"),
        (Fixed(["a\n", "b", "c"]), r"slice fixed: 'a\\n' is no name of a group"),
        (Fixed(["a" * 61, "b", "c"]), "is no name of a group: it should be text of at most 60 printable"),
        (Ordered(["a", "b", "c"], [1]), "slice fixed: 1 is no name of a group"),
        (
            Ordered(["a", "b", "c"], map(str, range(MAX_GROUPS))),
            "slice fixed: has 103 groups; it should have at most 100",
        ),
    ],
)
def test_what_cannot_be_groups_is_refused(part: Any, said: str) -> None:
    with pytest.raises(RunError, match=said):
        grouping(part, RANKING)


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["", "head", "tail", "ü ✓", "1-5"]), max_size=20),
    order=st.permutations(["head", "ü ✓", "1-5", "tail", "nobody's"]),
)
def test_groups_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], order: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lists") / "lists.parquet"
    ranking: Any = SimpleNamespace(users=np.arange(len(labels)))
    written = grouping(Ordered(np.array(labels, object), order), ranking)
    lists = pa.table({"user": np.arange(len(labels))})
    pq.write_table(with_values(lists, {}, {"a@1,2": written, "none": Grouping(written.codes * 0 - 1, ())}), path)
    read = read_slices(path)
    assert read["a@1,2"].groups == written.groups == tuple(order)
    assert read["a@1,2"].codes.tolist() == [order.index(label) if label else -1 for label in labels]
    assert (read["none"].groups, set(read["none"].codes.tolist())) == ((), {-1} if labels else set())
    members = read["a@1,2"].members()
    assert list(members) == [name for name in order if name in labels]
    assert all([labels[row] for row in rows] == [name] * len(rows) for name, rows in members.items())


def test_slices_stay_or_are_replaced_with_the_values(tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    first, other = Grouping(np.array([0, -1, 0]), ("x",)), Grouping(np.array([1, 0, 0]), ("y", "z"))
    table = with_values(LISTS, {"mrr@2": np.ones(3)}, {"first": first, "gone": other})
    assert table.select(["user", "items"]).equals(LISTS)
    assert with_values(table, {"mrr@2": np.zeros(3)}).column_names == [
        "user",
        "items",
        "slice:first",
        "slice:gone",
        "metric:mrr@2",
    ]
    again = with_values(table, {"mrr@2": np.zeros(3)}, {"first": other})
    assert again.column_names == ["user", "items", "slice:first", "metric:mrr@2"]
    assert again.schema.metadata == LISTS.schema.metadata
    added = with_slice(with_slice(LISTS, "new", first), "new", other)
    assert added.column_names == ["user", "items", "slice:new"]
    pq.write_table(added, path)
    assert read_slices(path)["new"].groups == ("y", "z")
    pq.write_table(again, path)
    assert read_slices(path, ["absent"]) == {}
    assert read_slices(path, ["first"])["first"].groups == ("y", "z")
    users, values = read_values(path, ["mrr@2"]) or ([], {})
    assert [*users] == ["a", "b", "c"]
    assert values["mrr@2"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "column",
    [
        pa.chunked_array([["x", "y", "x"]]),  # without an order
        pa.chunked_array([[1, 2, 3]]),
        pa.chunked_array([[["x"], [], []]]),
    ],
)
def test_damage_is_said(tmp_path: Path, column: Any) -> None:
    path = tmp_path / "lists.parquet"
    pq.write_table(LISTS.append_column("slice:gap", column), path)
    with pytest.raises(RunError, match=r"lists.parquet: the lists are damaged \(column slice:gap should hold names"):
        read_slices(path)
    field = pa.field("slice:gap", column.type, metadata={"order": '["x"]'})
    pq.write_table(LISTS.append_column(field, column), path)
    with pytest.raises(RunError, match="the lists are damaged"):
        read_slices(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"lists.parquet: the lists cannot be read"):
        read_slices(path)
