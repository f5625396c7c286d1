"""A package of a tracker that ends its cell at a moment that a test chooses. It is copied to where a test wants it
installed. Trackers are no part of a cell's identity, so that a cell with it is the same experiment as one without.

STOP_AT: `method:moment:how` for each cell to end, with commas between. moment: a step of training, or `search`, after
training. how: `kill` (SIGKILL to the cell), `kill_run` (to `grbench run`), `interrupt` (Ctrl-C to `grbench run`).
"""

import os
import signal
import time

import psutil

from grbench import hookimpl
from grbench.interfaces import Tracker


class Stops(Tracker):
    every_steps = 1

    def start(self, folder, cell):
        stops = [stop.split(":") for stop in filter(None, os.environ.get("STOP_AT", "").split(","))]
        self.stops = [(moment, how) for method, moment, how in stops if method == cell["method"]["name"]]

    def log(self, step, values):
        self._stop(str(step))

    def keep(self, encoder, num_items):
        self._stop("search")

    def finish(self, record):
        pass

    def _stop(self, now):
        for moment, how in self.stops:
            if moment == now:
                run = psutil.Process(os.getppid()).ppid()  # between them is the server that cells are forked from
                whom, by = {
                    "kill": (os.getpid(), signal.SIGKILL),
                    "kill_run": (run, signal.SIGKILL),
                    "interrupt": (run, signal.SIGINT),
                }[how]
                if how == "interrupt":
                    _wait_for_interrupt(whom)
                else:
                    os.kill(whom, by)
                    time.sleep(60)  # until it is over


def _wait_for_interrupt(whom):
    """Interrupts a process, and waits until this one is too, whatever it does then: a sleep would go on."""
    heard, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell)
    try:
        os.kill(whom, signal.SIGINT)
        os.read(heard, 1)
    finally:
        signal.set_wakeup_fd(before)


@hookimpl
def register_trackers(register):
    register("stops", Stops)
