"""What strangers publish passes the conformance kit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import learnt_codes
import policy_gradient
import pytest
import time_split
import word_vectors

from grbench.registry.discovery import Registry
from grbench.testing import parametrize_with_checks

REGISTRY = Registry.load()
for module in (learnt_codes, policy_gradient, time_split, word_vectors):
    REGISTRY.add(module.__name__, module.__name__, "1.0", lambda module=module: module)

_PLACE = tempfile.TemporaryDirectory(prefix="grbench-third-party-")
VECTORS = Path(_PLACE.name) / "vectors.txt"
WATCHED = Path(_PLACE.name) / "watched"


@pytest.fixture(scope="module", autouse=True)
def vectors():
    """Of the words in the titles of the kit's items."""
    VECTORS.write_text("item 1 0 0\ngroup 0 1 0\n" + "".join(f"{digit} 0 {digit} 1\n" for digit in range(10)))


@parametrize_with_checks(
    "learnt_codes",
    registry=REGISTRY,
    options={"retriever:watched_beam": {"watched": str(WATCHED)}},
    partners={"tokenizer": "round_robin", "encoder": "learnt_codes", "loss": "mixture"},
    expected_failures={
        "retriever:watched_beam-exhaustive_equals_exact": "three beams are not exhaustive",
    },
)
def test_codes_that_are_learnt(check):
    check()


@parametrize_with_checks(
    "policy_gradient",
    "time_split",
    registry=REGISTRY,
    options={
        "protocol:time_split": {"moment": 1_702_500_000},
    },
)
def test_training_and_splits(check):
    check()


@parametrize_with_checks("word_vectors", registry=REGISTRY, options={"encoder:word_vectors": {"vectors": str(VECTORS)}})
def test_texts(check):
    check()
