"""What the engine's tests share: nothing may be left behind, and programs that run under supervision."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest

from dataflow.testing import _collect

ROOT = pathlib.Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
# What every program starts with: a task that calls what it is sent.
PRELUDE = """
import ctypes, gc, os, signal, sys, threading, time
from dataflow.engine import Pool, Task

class Calls(Task):
    def run(self, inbox, context):
        for call, *arguments in inbox:
            yield call(*arguments)

def pool(workers=2, **options):
    started = Pool(Calls(), workers, kind=KIND, stage="Stage", start_method=METHOD, **options)
    started.start()
    return started

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read()

def state():
    gc.collect()
    return sorted(os.listdir("/proc/self/fd")), threading.active_count(), children()

def hold_the_gil():
    say("holding")
    sum(range(10**11))

def sleep():
    say("sleeping")
    time.sleep(1000)
"""


def children() -> set[int]:
    """Return the processes that this one has started, zombies included."""
    tasks = pathlib.Path("/proc/self/task").iterdir()
    found = set()
    for task in tasks:
        with contextlib.suppress(FileNotFoundError):  # the thread has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    }


def left_behind() -> dict[str, Any]:
    return {
        "children": children(),
        "descriptors": sorted(descriptors()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "sockets": os.listdir(os.environ["DATAFLOW_PIPEDIR"]),
    }


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="pipes-") as folder:
        monkeypatch.setenv("DATAFLOW_PIPEDIR", folder)
        before = left_behind()
        yield
        _collect()
        assert left_behind() == before


class Program:
    """A script of its own, in a session of its own; whatever it starts is found again by that."""

    def __init__(self, script: pathlib.Path, limit: float) -> None:
        self._deadline = time.monotonic() + limit
        self._err = script.with_suffix(".err").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._err, start_new_session=True, cwd=script.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=_default_signals,
        )  # fmt: skip
        self.pid = self._process.pid
        self._out: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        self._read = b""

    def line(self) -> str:
        """Return the next line that it prints."""
        while b"\n" not in self._read:
            data = self._more()
            if not data:
                pytest.fail(f"the program ended early: {self.errors()}")
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def _more(self) -> bytes:
        ready, _, _ = select.select([self._out], [], [], max(0.0, self._deadline - time.monotonic()))
        if not ready:
            self.kill_all()
            pytest.fail(f"the program hangs; it printed {self._read!r} and {self.errors()}")
        data = os.read(self._out.fileno(), 1 << 16)
        self._read += data
        return data

    def send(self, number: int, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def finish(self) -> tuple[int, str]:
        """Wait for its end, and for that of all that it has started; return its code and what it printed."""
        while self._more():  # its end of the pipe is open for as long as one of its processes lives
            pass
        code = self._process.wait(max(0.0, self._deadline - time.monotonic()))
        late = time.monotonic() + 2.0
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                watch = os.pidfd_open(pid)
                select.select([watch], [], [], max(0.0, late - time.monotonic()))
                os.close(watch)
        left = self.session()
        self.kill_all()
        assert left == [], f"processes are left: {left}"
        return code, self._read.decode()

    def errors(self) -> str:
        self._err.seek(0)
        return self._err.read()

    def session(self) -> list[int]:
        """Return the processes that run in its session."""
        found = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state not in "ZX":
                    found.append(int(stat.parent.name))
        return found

    def kill_all(self) -> None:
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill_all()
        self._process.wait()
        self._out.close()
        self._err.close()


def _default_signals() -> None:
    # A shell starts background jobs with Ctrl-C ignored, and tests of it would then lie.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Callable[..., Program]]:
    """Start a program: ``start(source, kind, method)``."""
    # Orphans become children of this process, so they are seen and reaped.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    programs: list[Program] = []

    def begin(source: str, kind: str = "process", method: str = "fork", limit: float = 20.0) -> Program:
        script = tmp_path / f"program{len(programs)}.py"
        script.write_text(f"KIND, METHOD = {kind!r}, {method!r}\n{PRELUDE}\n{textwrap.dedent(source)}")
        programs.append(Program(script, limit))
        return programs[-1]

    yield begin
    for program in programs:
        program.close()
    with contextlib.suppress(ChildProcessError):
        while True:  # all that were left are dead by now
            os.waitpid(-1, 0)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def run(start: Callable[..., Program]) -> Callable[..., str]:
    """Run a program to its end and return what it printed; it must succeed and write no error."""

    def finish(source: str, kind: str = "process", method: str = "fork", limit: float = 20.0) -> str:
        program = start(source, kind, method, limit)
        code, out = program.finish()
        errors = program.errors()
        assert (code, errors) == (0, ""), errors
        return out

    return finish
