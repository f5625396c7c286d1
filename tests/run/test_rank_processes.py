"""A rank that ends without an exception ends the others too, and is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time
import torch
from grbench.distributed.ranks import current
from grbench.run import rank_processes

def waits():
    time.sleep(600)

def work(device):
    if current().rank == 1:
        {leaves}
    {meanwhile}
    return 0

rank_processes.LEAVE_SECONDS = 1.0
try:
    rank_processes.run_ranks(2, "cpu", work)
except rank_processes.RankError as error:
    print(error.status, "|", error)
"""


@pytest.mark.parametrize(
    ("leaves", "meanwhile", "said"),
    [
        ("sys.exit(0)", "current().total(torch.ones(1))", "error | rank 1 of 2 (cpu): SystemExit: 0"),
        ("sys.exit('enough')", "current().total(torch.ones(1))", "error | rank 1 of 2 (cpu): SystemExit: enough"),
        ("os._exit(0)", "waits()", "error | rank 1 of 2 (cpu): ended before its work was done"),
    ],
)
def test_a_rank_that_leaves_is_named(leaves: str, meanwhile: str, said: str) -> None:
    program = PROGRAM.format(leaves=leaves, meanwhile=meanwhile)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.splitlines()[-1:] == [said], done.stderr
