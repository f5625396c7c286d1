"""A package of encoders that go wrong, each in its own way. It is copied to where a test wants it installed."""

import os
import signal
import sys
import time

import torch

from grbench import hookimpl
from grbench_reference.encoders.most_popular import MostPopular


class Fine(MostPopular):
    def __init__(self, data, codes, *, chatter: str = "") -> None:
        super().__init__(data, codes)
        time.time = lambda: 0.0  # as if somebody had set the clock back
        print(chatter)  # noqa: T201 - what plug-ins do
        sys.stdout.flush()
        os.write(1, b"noise from below\n")


class Raises(MostPopular):
    def __init__(self, data, codes) -> None:
        raise ValueError("deliberate")


class TooLarge(MostPopular):
    def __init__(self, data, codes) -> None:
        torch.empty(2**60, dtype=torch.uint8)


class Killed(MostPopular):
    def __init__(self, data, codes, *, by: int = signal.SIGKILL) -> None:
        os.kill(os.getpid(), by)


class Sleeps(MostPopular):
    def __init__(self, data, codes, *, seconds: float = 60.0) -> None:
        super().__init__(data, codes)
        time.sleep(seconds)


@hookimpl
def register_encoders(register):
    for encoder in (Fine, Raises, TooLarge, Killed, Sleeps):
        register(encoder.__name__.lower(), encoder)
    register("absent", "a_module_that_is_not_there:Encoder")
