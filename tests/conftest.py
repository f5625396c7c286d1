"""For all tests, and the processes they start: worlds this small are slower on many threads than on one."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from imported_libraries import ForkedServer, ImportedLibraries

from grbench.run.backends.child_process import ForkServer, server_environment

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
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow too (make test-all)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: make test-all runs it"))


@pytest.fixture(scope="session", autouse=True)
def imported_libraries() -> Iterator[None]:
    """Fork servers of all tests are forked from one process that has imported the libraries."""
    libraries = ImportedLibraries(server_environment({}))

    def forked(server: ForkServer, connection: int, output: int) -> ForkedServer:
        return libraries.server(server._modules, server_environment(server._settings), [connection, output])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForkServer, "_spawn", forked)
        yield
    libraries.close()


OWN = ForkServer._spawn


@pytest.fixture(autouse=True)
def _own_fork_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("own_fork_server"):
        monkeypatch.setattr(ForkServer, "_spawn", OWN)
