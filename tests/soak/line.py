"""One kind of workers, kept running: ``python -m tests.soak.line NAME SHRINK``, which ``python -m tests.soak`` starts.

::

    parent --- "turn", "turn kill", "go", the end of the file ---> line: flow, workers
       |  <--- JSON: ready, standing, done, ended -----------------+

A turn is always the same work. It begins a pass and drops it in its middle, begins another, stands still while the
parent looks at its memory, goes on, drops that too, and loads its state to receive the rest. The number of a datapoint
tells which bytes it has, and how many. They are looked at when four more have been received, so that memory which is
used again too early is seen as well.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import json
import logging
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import dataflow
from dataflow.engine import Pool

# What a turn is made of, in datapoints; a small soak divides these.
PASS, ABANDON, EXCEPTION = 7500, 5000, 1000
SMALL, STAND = 500, 200  # so many at the start of a pass are small, and so many are received when it stands still
FIELD = 32 << 20
LEAST, MOST, HUGE, HUGE_EVERY = 10, 2 << 20, 20 << 20, 500
BATCH = 8
HELD = 4
WORKERS = 2
MANY = 10**6  # restarts
END = object()


class Lost(AssertionError):
    """A datapoint is missing, double, out of order or changed."""


class Unreadable(ValueError):
    """What happens at one datapoint of a thousand, and is skipped."""


class Fault(RuntimeError):
    """What happens once a turn, and is not skipped."""


@functools.cache
def field() -> np.ndarray[Any, Any]:
    """Return the bytes that all datapoints are parts of."""
    return np.random.default_rng(20).integers(0, 256, FIELD, np.uint8)


class Content:
    """What is in each datapoint: from 10 bytes to 2 MiB, evenly on a logarithmic scale, and 20 MiB now and then.

    Args:
        shrink: divides how many there are.
        alike: so many that follow each other, bad ones left out, are equally large.
    """

    def __init__(self, shrink: int, alike: int) -> None:
        self.count, self.every = PASS // shrink, EXCEPTION // shrink
        draw = np.random.default_rng(11)
        sizes = np.exp(draw.uniform(np.log(LEAST), np.log(MOST), self.count)).astype(int)
        sizes[: SMALL // shrink] = np.exp(draw.uniform(np.log(LEAST), np.log(1 << 10), SMALL // shrink))
        sizes[self.count // 2 :: HUGE_EVERY] = HUGE
        self.good = [n for n in range(self.count) if not self.is_bad(n)]
        self._sizes = np.maximum(sizes // alike, LEAST)
        self._sizes[self.good] = self._sizes[self.good][np.arange(len(self.good)) // alike * alike]

    def is_bad(self, n: int) -> bool:
        return n % self.every == self.every - 1

    def may_fail(self, n: int) -> bool:
        return n % self.every == self.every * 3 // 4

    def of(self, n: int, part: int = 1) -> np.ndarray[Any, Any]:
        """Return the bytes of a datapoint, or the first of them."""
        size = int(self._sizes[n])
        start = n * 7919 % (FIELD - size)
        return field()[start : start + max(size // part, 1)]


class Encode:
    """Make the datapoint that is sent to a worker, if it is: [number, a tenth of its bytes]."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def __call__(self, dp: Any) -> Any:
        return [dp[0], self._content.of(dp[0], 10)]


class Decode:
    """Make the datapoint that the consumer receives: [number, its bytes].

    Args:
        content: of all of them.
        armed: a file. Where there is one, the next datapoint that may removes it and fails.
    """

    def __init__(self, content: Content, armed: pathlib.Path) -> None:
        self._content, self._armed = content, armed

    def __call__(self, dp: Any) -> Any:
        n, part = dp
        content = self._content
        if not same(part, content.of(n, 10)):
            raise Lost(f"the worker got other bytes of datapoint {n} than were sent")
        if content.is_bad(n):
            raise Unreadable(n)
        if content.may_fail(n):
            with contextlib.suppress(FileNotFoundError):
                self._armed.unlink()
                raise Fault(n)
        return [n, content.of(n).copy()]


def same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Compare small arrays, and eight bytes of every page of large ones."""
    step = 1 if b.size < 4096 else 509
    return a.size == b.size and bool(a[-1] == b[-1]) and np.array_equal(a[::step], b[::step])


@dataclass
class Kind:
    """A kind of workers: how its flow is built, and what may be expected of it."""

    build: Callable[[Any, Callable[[Any], Any]], Any]
    processes: bool = True
    copies: int = 1  # of the whole flow, which run on after a complete pass if there are several
    batch: int = 0
    faults: int = 1  # one every so many turns: in runners it ends the workers, and one of them is to keep its own


def process_map(ds: Any, func: Any) -> Any:
    return dataflow.MultiProcessMapData(ds, WORKERS, func, strict=True, ordered=True, restarts=MANY, on_error=skip())


def batches(ds: Any, func: Any) -> Any:
    return dataflow.MultiProcessMapAndBatchData(
        ds, WORKERS, func, BATCH, remainder=True, restarts=MANY, on_error=skip()
    )


def runner(ds: Any, func: Any) -> Any:
    return dataflow.MultiProcessRunner(alone(ds, func), 100, WORKERS, restarts=MANY)


def zmq_runner(ds: Any, func: Any) -> Any:
    return dataflow.MultiProcessRunnerZMQ(alone(ds, func), WORKERS, restarts=MANY)


def thread_map(ds: Any, func: Any) -> Any:
    return dataflow.MultiThreadMapData(ds, WORKERS, func, strict=True, ordered=True, on_error=skip())


def alone(ds: Any, func: Any) -> Any:
    return dataflow.MapData(ds, func, on_error=skip())


def skip() -> Any:
    return dataflow.Skip(at_most=None, only=Unreadable)


KINDS = {
    "MultiProcessMapData": Kind(process_map),
    "MultiProcessMapAndBatchData": Kind(batches, batch=BATCH),
    "MultiProcessRunner": Kind(runner, copies=WORKERS, faults=10),
    "MultiProcessRunnerZMQ": Kind(zmq_runner, copies=WORKERS),
    "MultiThreadMapData": Kind(thread_map, processes=False),
    "MapData": Kind(alone, processes=False),
}


class Expected:
    """The numbers that are to come: of one flow in its order, or of several copies, each in its order.

    Args:
        content: says which are there.
        copies: how many flows.
    """

    def __init__(self, content: Content, copies: int) -> None:
        self._numbers = content.good
        self._next = [0] * copies
        self.passed = 0  # how many numbers, the skipped ones included

    def begin(self) -> None:
        """Expect them from the first on."""
        self._next = [0] * len(self._next)

    def take(self, n: int) -> None:
        """Take in the number received next."""
        wanted = [self._numbers[at] for at in self._next]
        if n not in wanted:
            raise Lost(f"datapoint {n} came where {' or '.join(map(str, wanted))} should have")
        copy = wanted.index(n)
        at = self._next[copy]
        self.passed += n - (self._numbers[at - 1] if at else -1)
        self._next[copy] = (at + 1) % len(self._numbers)


class Replacements(logging.Handler):
    """Counts the workers that were replaced, in place of what the library says about it."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "It is replaced" in record.getMessage()


class Line:
    """A flow that does its turns.

    Args:
        kind: of its workers.
        shrink: divides the work of a turn.
        folder: for a file.
        stand: called when it is to stand still.
    """

    def __init__(self, kind: Kind, shrink: int, folder: pathlib.Path, stand: Callable[[], None]) -> None:
        self.kind, self._stand = kind, stand
        self._content = Content(shrink, kind.batch or 1)
        self._small, self._abandon = STAND // shrink, ABANDON // shrink
        self._armed = folder / "armed"
        ds = dataflow.DataFromList([[n] for n in range(self._content.count)], shuffle=False)
        ds = dataflow.MapData(ds, Encode(self._content))
        self.flow = kind.build(ds, Decode(self._content, self._armed))
        self._size = self._content.count if kind.copies > 1 else len(self._content.good)
        self._expected = Expected(self._content, kind.copies)
        self._held: deque[tuple[int, Any]] = deque()
        self._it: Iterator[Any] = iter(())
        self._turns = 0
        self._kill_at = 0
        self._here = 0  # received in this pass
        self._skipped_before = 0  # when it was continued
        self.received = self.bytes = self.faults = self.kills = 0
        self.seconds = 0.0

    @property
    def skipped(self) -> int:
        return self._expected.passed - self.received

    def turn(self, kill: bool) -> None:
        """Do the work of one turn; kill a worker in the middle of it, or not."""
        start = time.perf_counter()
        draw = random.Random(self._turns)
        if self._turns % self.kind.faults == self.kind.faults - 1:
            self._armed.touch()
        self._turns += 1
        self._begin(anew=self.kind.copies == 1 or self._turns == 1)
        self._receive(self._abandon)
        self._begin(anew=True)
        self._receive(self._small // 2)
        gc.collect()  # an exception holds the frames that it came through, and they what was read ahead
        self._receive(self._small)  # which tells the workers what is free now
        standing = time.perf_counter()
        self._stand()
        start += time.perf_counter() - standing
        self._kill_at = draw.randrange(self._small + 1, self._size) if kill else 0
        self._receive(self._abandon)
        self._continue()
        self._receive(self._size)
        if next(self._it, END) is not END:
            raise Lost(f"a pass has more than its {self._size} datapoints")
        self.seconds += time.perf_counter() - start
        report = getattr(self.flow, "error_report", None)  # runners have theirs in the workers
        if report is not None and report.skipped != self.skipped - self._skipped_before:
            raise Lost(f"{report}, but {self.skipped - self._skipped_before} were skipped since the pass was continued")

    def _begin(self, anew: bool) -> None:
        """Begin a pass, and give up the one before."""
        self._it = iter(())
        if anew:
            self._expected.begin()
        self._it = iter(self.flow)
        self._here = 0

    def _continue(self) -> None:
        """Drop the iterator, and go on from its position."""
        self._skipped_before = self.skipped
        self._it = iter(())
        self.flow.load_state_dict(json.loads(json.dumps(self.flow.state_dict())))
        self._it = iter(self.flow)

    def _receive(self, until: int) -> None:
        """Receive datapoints until there are so many of this pass."""
        while self._here < until:
            try:
                dp = next(self._it, END)
            except Fault as error:
                notes = getattr(error, "__notes__", [])
                if not any(f"datapoint {error.args[0]}" in note for note in notes):
                    raise Lost(f"the error does not say where it was, at datapoint {error.args[0]}: {notes}") from error
                self.faults += 1
                self._continue()
                continue
            if dp is END:
                raise Lost(f"a pass ended after {self._here} of {self._size} datapoints")
            for n, array in zip(*dp, strict=True) if self.kind.batch else [dp]:
                self._take(int(n), array)
            if self._kill_at and self._here >= self._kill_at:
                self._kill()

    def _take(self, n: int, array: Any) -> None:
        self._expected.take(n)
        self._here += 1
        self.received += 1
        self.bytes += array.nbytes
        self._held.append((n, array))
        if len(self._held) > HELD:
            n, array = self._held.popleft()
            if not same(array, self._content.of(n)):
                raise Lost(f"datapoint {n} has other bytes than it should have")

    def _kill(self) -> None:
        """Kill a worker, which nobody else can have reaped."""
        runs = self.flow._lines if self.kind.copies > 1 else self.flow._queues
        pool: Pool | None = runs and runs.pool
        if pool is None or pool.closed or pool._crew is None:  # a fault has ended them; there will be others
            return
        os.kill(pool._crew.pid(self.kills % WORKERS), signal.SIGKILL)
        self._kill_at = 0
        self.kills += 1


def possessions() -> list[int]:
    """Count the descriptors, threads and children of this process."""
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [len(os.listdir("/proc/self/fd")), threading.active_count(), len(children)]


def say(**what: Any) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def main(name: str, shrink: int) -> None:
    """Do turns until the parent has gone, or wants no more."""
    replacements = Replacements()
    logger = logging.getLogger("dataflow")
    logger.addHandler(replacements)
    logger.propagate = False
    field()

    def stand() -> None:
        say(standing=True)
        sys.stdin.readline()

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        line = Line(KINDS[name], shrink, pathlib.Path(folder), stand)
        before = possessions()
        say(ready=True)
        for command in iter(sys.stdin.readline, ""):
            line.turn(kill=line.kind.processes and "kill" in command)
            say(
                received=line.received, bytes=line.bytes, seconds=line.seconds, skipped=line.skipped,
                faults=line.faults, kills=line.kills, replaced=replacements.count,
            )  # fmt: skip
        line.flow.close()
        say(before=before, after=possessions())


if __name__ == "__main__":
    faulthandler.enable()  # the parent aborts one that hangs
    main(sys.argv[1], int(sys.argv[2]))
