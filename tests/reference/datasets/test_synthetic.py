"""What the made-up dataset says of its store before it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from grbench.data.store_writer import build_store
from grbench.interfaces import Dataset
from grbench_reference.datasets.synthetic.dataset import TencentGRSynthetic
from grbench_reference.datasets.synthetic.generator import estimated_bytes
from grbench_reference.datasets.synthetic.schema import RELEASES


def test_the_store_is_about_as_large_as_foretold(tmp_path: Path) -> None:
    dataset = TencentGRSynthetic(users=1000, items=2000)
    assert isinstance(dataset, Dataset)
    foretold = dataset.store_bytes() - estimated_bytes(1000, 2000, RELEASES[2])  # the release goes once it is read
    store = build_store(dataset, name="synthetic", cache=tmp_path)
    assert foretold == pytest.approx(sum(file.stat().st_size for file in store.path.iterdir()), rel=0.05)
