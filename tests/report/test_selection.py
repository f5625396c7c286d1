"""What --columns and --rows choose: the syntax, the order, and what is refused."""

from __future__ import annotations

import pytest

from grbench.errors import RunError
from grbench.report.selection import Pick, check_picks, chosen, picks

KNOWN = [("ndcg@10", "NDCG@10"), ("hit_rate@10", "HR@10"), ("seeds",)]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["a"], [Pick("a")]),
        (["a=A, b ,c=C c"], [Pick("a", "A"), Pick("b"), Pick("c", "C c")]),
        (["b", "a=x=y"], [Pick("b"), Pick("a", "x=y")]),
        (["logq[logq=yi,k=2]=Yi,m (lr=0.1, w=2)"], [Pick("logq[logq=yi,k=2]", "Yi"), Pick("m (lr=0.1, w=2)")]),
        ([r"a\,b=A\, B,c\=d"], [Pick("a,b", "A, B"), Pick("c=d")]),
        (["a]b=c,d"], [Pick("a]b", "c"), Pick("d")]),
        (["*,a=A"], [Pick("*"), Pick("a", "A")]),
        (["a=\x1b[31mred"], [Pick("a", "\\x1b[31mred")]),
        ([], []),
    ],
)
def test_names_and_labels(texts: list[str], found: list[Pick]) -> None:
    assert list(picks(texts, "--rows")) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,,b", "write NAME or NAME=LABEL"),
        ("", "write NAME or NAME=LABEL"),
        ("a=", "write NAME or NAME=LABEL"),
        ("=A", "write NAME or NAME=LABEL"),
        ("*=A", "write NAME or NAME=LABEL"),
        ("a,b,a=A", "'a' is named twice"),
        ("a=A,b=A", "'A' is the label of two"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(RunError, match="--rows.*" + said.replace("*", r"\*")):
        picks([text], "--rows")


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("seeds,ndcg@10=N", [(2, None), (0, "N")]),
        ("HR@10=H", [(1, "H")]),
        ("seeds=S,*", [(2, "S"), (0, None), (1, None)]),
        ("*,ndcg@10=N", [(1, None), (2, None), (0, "N")]),
    ],
)
def test_order_and_labels(text: str, places: list[tuple[int, str | None]]) -> None:
    assert chosen(picks([text], "--columns"), KNOWN) == places


def test_nothing_wanted_is_everything() -> None:
    assert chosen([], KNOWN) == [(0, None), (1, None), (2, None)]


def test_a_name_of_its_own_goes_before_another_s_second_name() -> None:
    assert chosen([Pick("b")], [("a", "b"), ("b",)]) == [(1, None)]


def test_unknown_names_are_one_message_with_all_that_there_is() -> None:
    with pytest.raises(RunError) as caught:
        check_picks(picks(["ndcg@5,HR@10,nothing"], "--columns"), KNOWN, "--columns")
    assert str(caught.value) == (
        "--columns: there is no 'ndcg@5' and no 'nothing'; there are: ndcg@10 (NDCG@10), hit_rate@10 (HR@10), seeds"
    )


def test_two_names_of_one_column_are_refused() -> None:
    with pytest.raises(RunError, match="'HR@10' and 'hit_rate@10' are the same"):
        check_picks(picks(["HR@10,hit_rate@10"], "--columns"), KNOWN, "--columns")
