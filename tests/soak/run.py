"""Start the lines, have them do their turns, and judge what was measured.

Each line is a process of its own, so that its memory is known. Only one works at a time, and the turns go round: what
disturbs the machine for a while disturbs all of them. Whether a line has become slower is seen beside a young one, of
the same kind, that begins late and takes turns with it: the machine is the same for both.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from .figures import Estimate, Usage, trend, typical, usage

ROOT = pathlib.Path(__file__).parents[2]
# Seconds between two kills of a worker, in each line, and until a line that stands still is measured.
KILL_EVERY, SETTLE = 60.0, 0.3
# A line that says nothing for so many seconds hangs.
SILENT = 120.0
# The part of a soak that is left out: memory is taken for the first time in it.
WARM_UP = 0.2
# The part at its end in which each line has a young one beside it, and how many turns that is not yet compared for.
YOUNG, YOUTH = 1 / 2, 3
# Has glibc give the memory of an array back when it is freed. Of what threads free it keeps up to 64 MiB each else, and
# takes half an hour to have it all.
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
# What is too much: MB in ten minutes, and percent if that is no chance.
GROWTH, DRIFT = 1.0, 5.0


class Turn(NamedTuple):
    """What was measured of a line in a turn."""

    at: float  # seconds since the soak began
    usage: Usage
    rate: float  # datapoints a second
    killed: bool


@dataclass
class Figures:
    """What was measured of a line."""

    name: str
    turns: list[Turn] = field(default_factory=list)
    done: dict[str, Any] = field(default_factory=dict)  # what it said last
    ended: dict[str, list[int]] = field(default_factory=dict)  # what it held before and after
    failure: str = ""  # what it died of
    young: Figures | None = None  # of the young line beside it
    alone: int = 0  # how many of the turns were done before there was one

    @property
    def warm(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.at >= WARM_UP * self.turns[-1].at]

    @property
    def rate(self) -> float:
        """Datapoints a second, in turns without a kill."""
        return median([turn.rate for turn in self.warm if not turn.killed] or [math.nan])

    @property
    def growth(self) -> Estimate:
        """MB in ten minutes."""
        return trend([turn.at / 600 for turn in self.warm], [turn.usage.megabytes for turn in self.warm])

    @property
    def drift(self) -> Estimate:
        """By how many percent it is faster than the young one, in turns without a kill."""
        pairs = zip(self.turns[self.alone :], self.young.turns if self.young else [], strict=False)
        return typical([100 * (old.rate / young.rate - 1) for old, young in [*pairs][YOUTH:] if not old.killed])

    @property
    def most(self) -> dict[str, tuple[int, int]]:
        """The most descriptors, and so on, in the first half of the turns and in the second."""
        used = [turn.usage for turn in self.warm]
        half = len(used) // 2
        early, late = used[: half or 1], used[half:]
        return {
            what: (max(getattr(one, what) for one in early), max(getattr(one, what) for one in late))
            for what in ("processes", "descriptors", "threads")
            if used
        }

    def problems(self) -> list[str]:
        """Say what is wrong."""
        found = [line.failure for line in (self, self.young) if line and line.failure]
        if (dead := self.done.get("replaced", 0) - self.done.get("kills", 0)) > 0:
            found.append(f"{dead} workers died that nobody had killed")
        if self.growth.value >= GROWTH:
            found.append(f"its memory grows by {self.growth.value:.2f} MB in 10 minutes")
        drift = self.drift
        if abs(drift.value) >= DRIFT and not drift.low < 0 < drift.high:
            found.append(f"its speed is {drift.value:+.1f} % beside that of a young one")
        found += [
            f"it has up to {late} {what} in the second half, and up to {early} in the first"
            for what, (early, late) in self.most.items()
            if late > early
        ]
        if self.ended and self.ended["before"] != self.ended["after"]:
            before, after = self.ended.values()
            found.append(f"closed, it has {after} descriptors, threads and children where it had {before}")
        return [f"{self.name}: {what}" for what in found]


class Gone(Exception):
    """A line has died, or hangs."""


class Line:
    """The process of a line.

    Args:
        name: of the kind of its workers.
        shrink: divides the work of a turn.
    """

    young: Line | None

    def __init__(self, name: str, shrink: int) -> None:
        self.figures, self.young = Figures(name), None
        self._shrink = shrink
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # `end` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.line", name, str(shrink)], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1, start_new_session=True,
            env={**os.environ, **GIVES_BACK},
        )  # fmt: skip

    def say(self, what: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `hear` finds out why
            self._process.stdin.write(f"{what}\n")

    def hear(self) -> dict[str, Any]:
        """Return what the line says next."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], SILENT)
        if not ready:
            self._process.send_signal(signal.SIGABRT)  # which has it write its stack
        if not (said := self._process.stdout.readline()):
            raise Gone("it was silent for too long" if not ready else f"it ended with {self._process.wait()}")
        return dict(json.loads(said))

    def turn(self, begin: float, settle: float, kill: bool) -> None:
        """Have it do a turn, and measure it."""
        before = self.figures.done
        self.say("turn kill" if kill else "turn")
        self.hear()
        time.sleep(settle)
        at = time.monotonic() - begin
        try:
            measured = usage(self._process.pid)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Gone("it, or a worker of it, went while it stood still") from error
        self.say("go")
        done = self.figures.done = self.hear()
        received, seconds = (done[what] - before.get(what, 0) for what in ("received", "seconds"))
        self.figures.turns.append(Turn(at, measured, received / seconds, kill))

    def pair(self) -> bool:
        """Begin to work beside a young line; return whether that is there."""
        self.young = Line(self.figures.name, self._shrink)
        self.figures.young, self.figures.alone = self.young.figures, len(self.figures.turns)
        return self.young.survives(self.young.hear)

    @property
    def both(self) -> list[Line]:
        return [self, self.young] if self.young else [self]

    def leave(self) -> None:
        """Have it close its flow, and hear what it holds before and after."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.figures.ended = self.hear()

    def survives(self, step: Callable[[], Any]) -> bool:
        """Do a step; return whether the line is still there."""
        try:
            step()
        except Gone as gone:
            self._errors.seek(0)
            self.figures.failure = f"{gone}\n{self._errors.read()}"
        return not self.figures.failure

    def end(self) -> None:
        """Free everything; its workers end when it does."""
        with self._process, self._errors:
            if self.figures.failure or not self.figures.ended:
                self._process.kill()


def soak(
    names: Sequence[str],
    seconds: float,
    stop: threading.Event,
    *,
    shrink: int = 1,
    kill_every: float = KILL_EVERY,
    settle: float = SETTLE,
) -> list[Figures]:
    """Keep lines running, and return what was measured.

    Args:
        names: kinds of workers.
        seconds: for how long they begin turns; each does one at least.
        stop: set to end it earlier.
        shrink: divides the work of a turn.
        kill_every: seconds.
        settle: seconds that a line stands still before it is measured.
    """
    lines = [Line(name, shrink) for name in names]
    try:
        running = [line for line in lines if line.survives(line.hear)]
        begin = time.monotonic()
        killed = dict.fromkeys(running, begin)
        for turn in itertools.count():
            for line in [*running]:
                kill = time.monotonic() - killed[line] >= kill_every
                if kill:
                    killed[line] = time.monotonic()
                for one in line.both[:: (-1) ** turn]:  # each is the first in every other round
                    if not one.survives(partial(one.turn, begin, settle, kill and one is line)) and line in running:
                        running.remove(line)
                if stop.is_set():
                    break
            now = time.monotonic() - begin
            if stop.is_set() or not running or now >= seconds:
                break
            if now >= (1 - YOUNG) * seconds:
                running = [line for line in running if line.young or line.pair()]
        for line in running:
            for one in line.both:
                one.survives(one.leave)
    finally:
        for line in lines:
            for one in line.both:
                one.end()
    return [line.figures for line in lines]
