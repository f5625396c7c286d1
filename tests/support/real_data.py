"""Where the real data lies that some tests read: beside the checkout, or below GRBENCH_TEST_DATA."""

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("GRBENCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SAMPLE, BEAUTY = REAL_DATA / "tencentgr_sample", REAL_DATA / "amazon_beauty"

needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason="no real TencentGR sample (GRBENCH_TEST_DATA names it)")
needs_beauty = pytest.mark.skipif(not BEAUTY.is_dir(), reason="no Amazon Beauty (GRBENCH_TEST_DATA names its folder)")
