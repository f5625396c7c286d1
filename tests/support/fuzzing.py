"""Damaged inputs by the hundred: each is read, or refused with one message, in bounded time.

An input is made from random numbers of its own, so the seed that a failure names makes the same input again. The
environment variable GRBENCH_FUZZ multiplies the number of inputs, GRBENCH_FUZZ_SEED is the first seed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pyarrow as pa

from grbench.data.store_writer import build_store
from grbench.errors import DataError, GRBenchError
from grbench.interfaces import Dataset, optional

SECONDS = 30
"""That one call may take; most take milliseconds."""
LONGEST_MESSAGE = 2000
"""Characters of a line; a suite has a line for each thing that is wrong with it."""

Call = Callable[[], object]

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30),
    *(0.0, -0.5, 1.5, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "-1", "1.5", "nan", "null", "true", "a.b", "../x", "~", "%s", "{}", "é\u202e☃", "\x00", "x" * 5000),
    *([], {}, [[]], [0], [1, "a", None], {"name": "x"}, {"name": 1}, {"": 0}, {"k": {"k": {"k": []}}}),
)


def reading(read: Callable[[], Dataset], cache: Path) -> Sequence[Call]:
    """What is tried with a dataset: its validation, and its store."""

    def validate() -> None:
        findings = optional(read(), Dataset.validate)(lambda *_: None) or []
        if problems := [finding for finding in findings if finding.status == "problem"]:
            raise DataError(problems[0].detail)

    def build() -> None:
        dataset = read()
        optional(dataset, Dataset.store_bytes)()
        build_store(dataset, name="damaged", cache=cache)

    return validate, build


def try_inputs(damage: Callable[[Random, Path], Sequence[Call]], folder: Path, number: int) -> int:
    """Makes `number` times GRBENCH_FUZZ inputs and calls what reads them; returns how many inputs were tried.

    damage: writes an input into an empty folder, and returns the calls that read it. Fails where a call raises anything
    but one short GRBenchError or takes longer than SECONDS, and where every input was read or every one refused.
    """
    first, number = int(os.environ.get("GRBENCH_FUZZ_SEED", "0")), number * int(os.environ.get("GRBENCH_FUZZ", "1"))
    faults: dict[str, list[int]] = {}
    refused = 0
    for seed in range(first, first + number):
        place = folder / "input"
        place.mkdir()
        outcomes = [_outcome(call) for call in damage(Random(seed), place)]
        for fault in filter(None, outcomes):
            if fault != "refused":
                faults.setdefault(fault, []).append(seed)
        refused += "refused" in outcomes
        shutil.rmtree(place)
    sys.stderr.write(f"{number} inputs, {refused} of them refused\n")
    assert not faults, "\n".join(f"{len(seeds)} inputs (seeds {seeds[:5]}): {what}" for what, seeds in faults.items())
    assert 0 < refused < number
    return number


def _outcome(call: Call) -> str:
    """What is wrong with how the call ended: nothing, "refused", or where it came from."""
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except GRBenchError as error:
        message = str(error)
        if (
            max(map(len, message.splitlines()), default=0) > LONGEST_MESSAGE
            or "Traceback" in message
            or not message.strip()
        ):
            return f"{type(error).__name__} of {len(message)} characters: {message[:300]}"
        return "refused"
    except (Exception, TooLong) as error:  # noqa: BLE001 - what a user would see as a traceback
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
        return f"{type(error).__name__}: {str(error)[:200]!s} ({places})"
    return ""


class TooLong(BaseException):
    """A call has taken longer than SECONDS; no code that catches exceptions keeps it."""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def damage_bytes(path: Path, random: Random) -> None:
    """Flips, cuts, repeats or inserts some bytes of a file."""
    content = bytearray(path.read_bytes())
    place = random.randrange(len(content) + 1)
    match random.randrange(5):
        case 0:
            for _ in range(random.choice((1, 3, 20))):
                if content:
                    content[random.randrange(len(content))] = random.randrange(256)
        case 1:
            del content[place:]
        case 2:
            del content[place : place + random.choice((1, 4, 64))]
        case 3:
            content[place:place] = content[place : place + random.choice((1, 10, 200))]
        case _:
            odd = (
                b"\x00",
                b"\xff\xfe",
                b"\xef\xbb\xbf",
                b"\n",
                b"\r",
                b'"',
                b"\t",
                b",",
                b"[",
                b"}",
                b"\xe9",
                b"9" * 400,
            )
            content[place:place] = random.choice(odd)
    path.write_bytes(bytes(content))


def damage_tree(tree: Any, random: Random, values: Sequence[Any] = ODD_VALUES) -> None:
    """Changes a mapping or list in place: a value is exchanged, copied from elsewhere, removed or repeated, or its key
    is renamed."""
    nodes = list(_containers(tree))
    node = random.choice(nodes)
    key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
    match random.randrange(8):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[random.choice(("", "name", str(key).upper(), str(key)[:-1], "x" * 3000, "a.b"))] = node.pop(key)
        case 1:
            node.insert(key, node[key])
        case 2:
            other = random.choice(nodes)
            node[key] = deepcopy(random.choice(list(other.values()) if isinstance(other, dict) else other))
        case 3:
            node[key] = [node[key]]
        case 4:
            node[key] = str(node[key])
        case _:
            node[key] = random.choice(values)


def _containers(tree: Any) -> Iterator[Any]:
    """All mappings and lists in a tree that hold something."""
    if isinstance(tree, dict | list) and tree:
        yield tree
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from _containers(child)


def odd_column(rows: int, random: Random) -> pa.Array:
    """A column of one of arrow's many types, with nulls, large and odd values."""

    def some(*values: Any) -> list[Any]:
        return [random.choice(values) for _ in range(rows)]

    def typed(kind: pa.DataType) -> Callable[[], pa.Array]:
        return lambda: pa.array([random.randrange(100) for _ in range(rows)], kind)

    makers: tuple[Callable[[], pa.Array], ...] = (
        *map(typed, (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint64(), pa.float32(), pa.float64())),
        *map(typed, (pa.date32(), pa.time32("s"), pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.duration("ms"))),
        lambda: pa.nulls(rows),
        lambda: pa.nulls(rows, pa.int64()),
        lambda: pa.array(some(None, 0, 1, -1, 2**31, 2**40, 2**63 - 1, -(2**63)), pa.int64()),
        lambda: pa.array(some(0, 2**63, 2**64 - 1), pa.uint64()),
        lambda: pa.array(some(None, 0.0, 0.5, 1e300, float("nan"), float("inf"))),
        lambda: pa.array(some(1.0, 2.0, float("nan"))).cast(pa.float16()),
        lambda: pa.array(some(None, True, False)),
        lambda: pa.array(some(None, "", " ", "1", "01", "-5", "1e3", "nan", "é☃", "a,b", 'q"', "9" * 40, "x" * 3000)),
        lambda: pa.array(some("2020-01-01", "2020-01-01T00:00:00Z", "31/12/2020", "now", "9999999-01-01")),
        lambda: pa.array(some("a", "b", None), pa.string()).dictionary_encode(),
        lambda: pa.array(some(1, 2, None), pa.int64()).dictionary_encode(),
        lambda: pa.array(some(b"1", b"\xff", b"", None)),
        lambda: pa.array(some(b"12", b"ab"), pa.binary(2)),
        lambda: pa.array(some("a", None, "1"), pa.large_string()),
        lambda: pa.array(some(1, None, 5), pa.decimal128(30, 2)),
        lambda: pa.array(some([1], [], None, [1, None, 2**40])),
        lambda: pa.array(some([1, 2], None), pa.list_(pa.int64(), 2)),
        lambda: pa.array(some(["a"], [], None, [""])),
        lambda: pa.array(some([[1]], [[]], None)),
        lambda: pa.array(some([1.5, float("nan")], None, []), pa.large_list(pa.float64())),
        lambda: pa.array(some({"a": 1}, None, {"a": None})),
        lambda: pa.array(some({"item_id": 1, "action_type": 1, "timestamp": 2}, None)),
        lambda: pa.array(some([("a", 1)], [], None), pa.map_(pa.string(), pa.int64())),
    )
    return random.choice(makers)()


def damage_table(table: pa.Table, random: Random) -> pa.Table:
    """Another table: a column is exchanged, dropped, renamed, repeated, retyped or partly null, or rows are missing,
    repeated or in another order."""
    place = random.randrange(table.num_columns)
    name, rows = table.schema.names[place], table.num_rows
    match random.randrange(9):
        case 0:
            table = table.remove_column(place)
        case 1:
            names = list(table.schema.names)
            names[place] = random.choice(("", name.upper(), f" {name}", f"{name}:token", random.choice(names), "é"))
            table = table.rename_columns(names)
        case 2:
            table = table.append_column(name, table.column(random.randrange(table.num_columns)))
        case 3:
            table = table.slice(0, random.choice((0, 0, 1)))
        case 4 if rows:
            table = table.take([random.randrange(rows) for _ in range(random.choice((rows, 3 * rows)))])
        case 5:
            kept = [None if random.random() < 0.3 else value for value in table.column(place).to_pylist()]
            table = table.set_column(place, name, pa.array(kept, table.schema.types[place]))
        case _:
            table = table.set_column(place, name, odd_column(rows, random))
    return table
