"""Claims: who runs a cell says so in a file, so that nobody else runs it too.

The files lie in a folder of their own, `claims`, in that of the records: it holds what runs just now and is looked
through for each claim, while that of a large suite holds tens of thousands of files.

The file `<digest>.claim-<n>` is created exclusively (O_EXCL), which of two processes one alone can do, also on NFS
since version 3. Its content says which process holds the claim; its time of change, which the holder renews, that it
still lives. A claim is dead where its process is gone (on the same machine), or where it was not renewed for
STALE_SECONDS (on another machine, or where the file is damaged). A dead claim is taken over by creating
`<digest>.claim-<n+1>`, which again one alone can do; no file is removed before the claim is given back. The claim with
the largest number is the one that counts.

Who has got a claim looks at the record again before running the cell: another process may have finished it meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from grbench.errors import RunError
from grbench.results.record import now
from grbench.results.running_process import RunningProcess
from grbench.temporary import beside

RENEW_SECONDS = 10.0
STALE_SECONDS = 180.0
"""Long enough for a machine that is short of memory, and for file systems that show other machines' changes late (NFS:
up to a minute)."""

AGAIN_SECONDS = 0.01

FOLDER = "claims"

_NAME = re.compile(r"^(?P<name>[\w.-]+)\.claim-(?P<number>[0-9]{1,9})$")


@dataclass(frozen=True)
class ClaimFile:
    """A claim that was found. holder: None where the file does not say; age: seconds since it was renewed."""

    path: Path
    number: int
    holder: RunningProcess | None
    since: str
    age: float

    @property
    def lives(self) -> bool:
        """Whether its cell must be left alone."""
        runs = None if self.holder is None else self.holder.runs()
        return self.age < STALE_SECONDS if runs is None else runs

    @property
    def where(self) -> str:
        """The holder for messages: `process 4711 on node3, since 2026-01-31T12:00:00+00:00`."""
        if self.holder is None:
            return "an unknown process"
        return f"process {self.holder.process} on {self.holder.host}" + (f", since {self.since}" if self.since else "")


class Claim:
    """A claim of this process: a context, which renews it meanwhile and gives it back in the end."""

    def __init__(self, folder: Path, name: str, path: Path, descriptor: int) -> None:
        self.path = path
        self._folder, self._name, self._descriptor = folder, name, descriptor
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Removes the claim, and the dead ones that it was taken over from."""
        self._ended.set()
        if self._renewing.is_alive():
            self._renewing.join()
        if self._is_mine():
            own = int(self.path.name.rpartition("-")[2])
            for number, path in _numbered(self._folder, self._name):
                if number <= own:
                    with contextlib.suppress(OSError):  # a claim that stays is dead once this process has ended
                        path.unlink()
            with contextlib.suppress(OSError):  # there are others
                self.path.parent.rmdir()
        os.close(self._descriptor)

    def _is_mine(self) -> bool:
        """Whether the file is still there: after a long sleep of this machine, others may have taken it for dead."""
        try:
            return self.path.stat().st_ino == os.fstat(self._descriptor).st_ino
        except OSError:
            return False

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                os.utime(self._descriptor)
            except OSError:  # taken over and removed on another machine
                return


def claim(folder: Path, name: str) -> Claim | ClaimFile:
    """The claim of what is called `name` in the folder, which is then to be used as a context; or the living claim of
    another process. Raises RunError where the folder cannot be written."""
    while True:
        found = find_claim(folder, name)
        if found is not None and found.lives:
            return found
        number = 0 if found is None else found.number + 1
        path = claim_path(folder, name, number)
        try:
            descriptor = _create(path)
        except OSError as error:
            raise RunError(f"{path}: the cell cannot be claimed ({error.strerror or error})") from error
        if descriptor is None:
            time.sleep(AGAIN_SECONDS)  # another process was faster; a network shows its file a moment later
            continue
        try:
            os.write(descriptor, json.dumps({**RunningProcess.this().to_json(), "since": now()}).encode())
            # Between the look and the creation, another process may have taken over, ended, and be giving back.
            if max((other for other, _ in _numbered(folder, name)), default=number) > number:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                continue
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return Claim(folder, name, path, descriptor)


def claim_path(folder: Path, name: str, number: int) -> Path:
    """Of the claim with this number of what is called `name` in the folder."""
    return folder / FOLDER / f"{name}.claim-{number}"


def _create(path: Path) -> int | None:
    """A descriptor of the new file, None where it is there already. Raises OSError."""
    while True:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            return None
        except FileNotFoundError:  # who gave back the last claim has just removed their folder
            continue


def find_claim(folder: Path, name: str) -> ClaimFile | None:
    """The claim that counts, alive or dead; None where there is none."""
    for number, path in reversed(_numbered(folder, name)):
        if (found := _read(path, number)) is not None:
            return found
    return None


def claims_in(folder: Path) -> dict[str, ClaimFile]:
    """{name: the claim that counts} of all that is claimed in the folder."""
    found = {}
    for name, files in _all_numbered(folder).items():
        for number, path in reversed(files):
            if name not in found and (each := _read(path, number)) is not None:
                found[name] = each
    return found


def _numbered(folder: Path, name: str) -> list[tuple[int, Path]]:
    """(number, file) of all claims of a name, by number."""
    return _all_numbered(folder).get(name, [])


def _all_numbered(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """{name: (number, file) of its claims, by number}."""
    found: dict[str, list[tuple[int, Path]]] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder / FOLDER):
            if match := _NAME.match(entry.name):
                found.setdefault(match["name"], []).append((int(match["number"]), Path(entry.path)))
    return {name: sorted(files) for name, files in sorted(found.items())}


def _read(path: Path, number: int) -> ClaimFile | None:
    """None where the claim has just been given back."""
    try:
        renewed, content = path.stat().st_mtime, path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path}: the claim cannot be read ({error.strerror})") from error
    try:
        facts = json.loads(content)
    except ValueError:  # its process was killed, or is just writing
        facts = None
    since = facts.get("since") if isinstance(facts, dict) else None
    holder = RunningProcess.from_json(facts)
    age = 0.0 if holder is not None and holder.here else _file_time(path.parent) - renewed
    return ClaimFile(path, number, holder, since[:40] if isinstance(since, str) else "", age)


def _file_time(folder: Path) -> float:
    """What the file system's own clock says, which on a network is the server's; this machine's where the folder
    cannot be written."""
    try:
        with beside(folder / "clock") as probe:
            probe.touch()
            return probe.stat().st_mtime
    except OSError:
        return time.time()
