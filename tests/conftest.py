"""For all tests, and the processes they start: worlds this small are slower on many threads than on one."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as of a job in the background, whose children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


# No test fails because the machine is busy.
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills", type=int, default=0, metavar="N", help="kill a suite N times at random (test_random_kills)"
    )
