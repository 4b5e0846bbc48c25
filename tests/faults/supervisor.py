"""Run a program under a hard time limit, and say what it left behind, also when it died.

    supervisor (child subreaper) ---> program: a session of its own, a token in its environment
        poll: stdout, stderr, pidfd      +---> workers: found by session or token, wherever they hang in the tree
        one signal at the line "ready"

Whatever the program started becomes a child of the supervisor when the program dies, and is reaped or killed here, by
pid. Several programs may run at a time, each followed by a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).parents[2]
TOKEN = "DATAFLOW_FAULT_TOKEN"
SHM = pathlib.Path("/dev/shm")
PR_SET_CHILD_SUBREAPER = 36
# A worker that is hung up on leaves its socket to the kernel. What the program itself leaks is counted, not warned of.
WARNINGS = ("-W", "error", "-W", "ignore::ResourceWarning")
# What the programs compile once for all of them.
COMPILED = tempfile.TemporaryDirectory(prefix="faults-compiled-")
# Within this many seconds of its end, nothing of a program may be left.
GRACE = 2.0


@dataclass
class Report:
    """What a program did, and what it left."""

    code: int | None  # as of subprocess; None: the time limit ended it
    out: str
    err: str
    seconds: float
    survivors: list[str] = field(default_factory=list)  # "pid state command" of what still ran GRACE after its end
    shm: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # in the private folder of its sockets

    @property
    def left(self) -> list[str]:
        return [*self.survivors, *self.shm, *self.files]


def run(
    script: pathlib.Path, arguments: Sequence[str] = (), *, limit: float = 20.0, send: int | None = None,
    to_group: bool = False,
) -> Report:  # fmt: skip
    """Run a script to its end.

    Args:
        script: the program.
        arguments: its ``sys.argv[1:]``.
        limit: seconds until it and all that it started are killed.
        send: a signal to send when it prints the line "ready".
        to_group: send it to the whole process group, as a terminal does.
    """
    token = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, _subreaper():
        pipes = pathlib.Path(folder, "pipes")
        pipes.mkdir()
        shm = {*os.listdir(SHM)}
        environment = {
            **os.environ, TOKEN: token, "DATAFLOW_PIPEDIR": str(pipes), "TMPDIR": folder, "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": COMPILED.name, "PYTHONDONTWRITEBYTECODE": "",
        }  # fmt: skip
        start = time.monotonic()
        program = subprocess.Popen(
            [sys.executable, *WARNINGS, str(script), *arguments], cwd=folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            code, out, err = _follow(program, start + limit, send, to_group)
            seconds = time.monotonic() - start
            deadline = time.monotonic() + GRACE
            survivors = _await_end(program.pid, token, deadline)
            while (new_shm := _nobodys({*os.listdir(SHM)} - shm)) and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            _end(program.pid, token)
            program.wait()
            for stream in (program.stdout, program.stderr):
                assert stream is not None
                stream.close()
        return Report(code, out, err, seconds, survivors, new_shm, sorted(os.listdir(pipes)))


def _follow(
    program: subprocess.Popen[bytes], deadline: float, send: int | None, to_group: bool
) -> tuple[int | None, str, str]:
    """Read what the program prints until it ends; its workers may hold the pipes open for longer."""
    assert program.stdout is not None
    assert program.stderr is not None
    texts = {program.stdout.fileno(): b"", program.stderr.fileno(): b""}
    out, err = texts
    life = os.pidfd_open(program.pid)
    open_ends = {*texts}
    ended = False
    try:
        while not ended:
            ready, _, _ = select.select([*open_ends, life], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None, texts[out].decode(errors="replace"), texts[err].decode(errors="replace")
            ended = life in ready
            # At the end, what the pipes hold already.
            while ready := [fd for fd in ready if fd in open_ends]:
                for fd in ready:
                    data = os.read(fd, 1 << 16)
                    texts[fd] += data
                    if not data:
                        open_ends.discard(fd)
                ready, _, _ = select.select([*open_ends], [], [], 0)
            if send is not None and b"ready\n" in texts[out] and not ended:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if to_group else os.kill)(program.pid, send)
                send = None
    finally:
        os.close(life)
    return program.wait(), texts[out].decode(errors="replace"), texts[err].decode(errors="replace")


def descendants(session: int, token: str) -> dict[int, str]:
    """Return the processes of a program, dead or alive, as "state command"; zombies are known by their session only."""
    found = {}
    mark = f"{TOKEN}={token}".encode()
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (folder / "stat").read_text().rpartition(")")
            state, _, _, owner = rest.split()[:4]
            pid = int(folder.name)
            if pid != os.getpid() and (int(owner) == session or mark in (folder / "environ").read_bytes()):
                found[pid] = f"{state} {name.partition('(')[2]}"
    return found


def _nobodys(names: set[str]) -> list[str]:
    """Return which of these files in SHM no process has mapped: what others run at the same time is not counted."""
    for folder in pathlib.Path("/proc").glob("[0-9]*") if names else ():
        with contextlib.suppress(OSError):
            maps = (folder / "maps").read_text()
            names = {name for name in names if f"{SHM}/{name}\n" not in maps}
    return sorted(names)


def _await_end(session: int, token: str, deadline: float) -> list[str]:
    """Wait until nothing of the program is there, and reap it; return what is there at the deadline."""
    while found := descendants(session, token):
        for pid in found:
            _reap(pid)
        if time.monotonic() > deadline:
            return [f"{pid} {what}" for pid, what in sorted(descendants(session, token).items())]
        time.sleep(0.005)
    return []


def _end(session: int, token: str) -> None:
    """Kill what is left of the program, and only that."""
    deadline = time.monotonic() + GRACE
    while (found := descendants(session, token)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if pid != session:
                _reap(pid)
        if found.keys() == {session}:
            return  # its Popen waits for it


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # it has a parent of its own
        os.waitpid(pid, os.WNOHANG)


_count = itertools.count(1)
_running: set[int] = set()
_lock = threading.Lock()


@contextlib.contextmanager
def _subreaper() -> Iterator[None]:
    """Have this process be the parent of orphans while a program runs."""
    me = next(_count)
    with _lock:
        _running.add(me)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        with _lock:
            _running.discard(me)
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(bool(_running)))
