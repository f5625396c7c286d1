"""What a checkpoint holds comes back equal to the last bit, type by type."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grbench.checkpoint.values import put_together, taken_apart

KEYS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["$tensor", "$float", "a/b"])
PLAIN = st.recursive(
    KEYS | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def there_and_back(value: Any) -> Any:
    plain, tensors = taken_apart(value)
    return put_together(json.loads(json.dumps(plain, allow_nan=False)), tensors.__getitem__)


def same(one: Any, other: Any) -> bool:
    """Equal in type and to the last bit, the signs of zeros and the order of keys included."""
    return bool(said(one) == said(other))


def said(value: Any) -> Any:
    """The value with its types, in parts that are equal only where all of their bits are."""
    kind = type(value)
    if isinstance(value, Tensor) and value.is_sparse:
        parts = said(value._indices()), said(value._values())
        return kind, parts, value.shape, value.is_coalesced()
    if isinstance(value, Tensor):
        return kind, value.dtype, value.shape, value.stride(), value.contiguous().numpy().tobytes()
    if isinstance(value, float):
        return kind, np.float64(value).tobytes()
    if isinstance(value, list | tuple):
        return kind, [said(each) for each in value]
    if isinstance(value, dict):
        return kind, [(said(key), said(each)) for key, each in value.items()]
    return kind, value


@given(PLAIN)
def test_plain_values(value: Any) -> None:
    assert same(there_and_back(value), value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 0.1 + 0.2, 2**70, {1: {None: (1, [2])}}])
def test_values_that_json_has_not(value: Any) -> None:
    assert same(there_and_back(value), value)


def test_what_is_no_number_stays_so() -> None:
    assert math.isnan(there_and_back([math.nan])[0])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(()),
        torch.zeros(0, 3),
        torch.tensor([math.nan, -0.0, math.inf, 1e-40]),
        torch.tensor([True, False]),
        torch.arange(5, dtype=torch.uint8),
        torch.arange(6).reshape(2, 3).T,  # another order in memory
        torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        torch.sparse_coo_tensor([[2, 0, 2]], [[1.0, 2], [3, 4], [5, 6]], (4, 2)),  # not coalesced
        torch.sparse_coo_tensor([[2, 0]], [1.0, 2.0], (4,)).coalesce(),
    ],
)
def test_tensors(tensor: Tensor) -> None:
    assert same(there_and_back({"state": {0: tensor}}), {"state": {0: tensor}})


def test_half_precision_and_gaps() -> None:
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    assert torch.equal(there_and_back(half), half)
    every_second = torch.arange(10)[::2]
    assert torch.equal(there_and_back(every_second), every_second)
    expanded = torch.ones(1).expand(3)
    assert torch.equal(there_and_back(expanded), expanded)


def test_one_tensor_in_two_places_is_kept_once_and_is_one_again() -> None:
    shared = torch.arange(3.0)
    plain, tensors = taken_apart({"a": shared, "b": [shared], "c": shared[:2], "d": shared.clone()})
    assert set(tensors) == {"a", "c", "d"}
    whole = put_together(plain, tensors.__getitem__)
    assert whole["a"] is whole["b"][0]
    assert whole["a"] is not whole["d"]


def test_names_that_would_be_the_same() -> None:
    value = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "__metadata__": torch.ones(2)}
    assert same(there_and_back(value), value)


def test_numpys_scalars_become_pythons() -> None:
    assert same(there_and_back([np.float64(0.1), np.int32(3), np.bool_(True)]), [0.1, 3, True])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"trainer": {"seen": {1, 2}}}, "trainer/seen is a set, which a checkpoint cannot hold"),
        ([object()], "0 is a object, which a checkpoint cannot hold"),
        (torch.ones(2, 2).to_sparse_csr(), "the value is a tensor of layout torch.sparse_csr"),
    ],
)
def test_what_cannot_be_kept_is_named(value: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        taken_apart(value)


@pytest.mark.parametrize(
    "plain",
    [
        {"$pickle": "x"},
        {"$tensor": "absent"},
        {"$tensor": "t", "strides": [1 << 50, 1]},
        {"$tensor": "t", "strides": [1]},
        {"$mapping": 3},
        {"$float": []},
        {"$sparse": {"indices": {"$tensor": "t"}, "values": {"$tensor": "t"}, "shape": [1], "coalesced": True}},
    ],
)
def test_a_tree_that_nobody_has_written_is_refused(plain: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, RuntimeError)):
        put_together(plain, {"t": torch.zeros(2, 3)}.__getitem__)
