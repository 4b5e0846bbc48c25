"""What a process may do while it reads bytes that nobody vouches for: compute, and nothing else.

An audit hook sees and stops every attempt to run something, to connect, or to change a file. A limit of address space
turns what asks for too much memory into a MemoryError, and a timer kills what does not come to an end.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MIB = 1 << 20

# https://docs.python.org/3/library/audit_events.html
FORBIDDEN = frozenset({
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "os.startfile", "os.system", "pty.spawn", "subprocess.Popen", "socket.__new__",
    "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendmsg", "socket.sendto",
    "ctypes.dlopen", "pickle.find_class", "os.chmod", "os.chown",
    "os.link", "os.mkdir", "os.putenv", "os.remove", "os.rename",
    "os.rmdir", "os.setxattr", "os.symlink", "os.truncate", "os.utime",
    "shutil.copyfile", "shutil.move", "shutil.rmtree", "shutil.unpack_archive", "tempfile.mkdtemp",
    "tempfile.mkstemp",
})  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _writes(_path: Any, _mode: Any, flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & _WRITING)


def _is_no_module(code: Any) -> bool:
    """Say whether code comes from ``exec`` or ``eval``, and not from a module that is imported when it is needed."""
    return not os.path.isfile(code.co_filename)


_CONDITIONS = {"open": _writes, "exec": _is_no_module}

_armed = False
_seen: list[str] = []


class ForbiddenError(BaseException):
    """Something ran that must not; no ``except Exception`` hides it."""


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _armed:
        return
    if event in FORBIDDEN or (event in _CONDITIONS and _CONDITIONS[event](*args)):
        _seen.append(f"{event}{args!r}"[:200])
        raise ForbiddenError(_seen[-1])


@contextmanager
def watched() -> Iterator[list[str]]:
    """Stop what is forbidden while the block runs, and list it, also where the error did not come through."""
    global _armed
    _seen.clear()
    _armed = True
    try:
        yield _seen
    finally:
        _armed = False


def install() -> None:
    """Add the hook, which stays for as long as the process lives."""
    sys.addaudithook(_hook)


def limit_memory(more: int | None) -> None:
    """Let the process take ``more`` bytes of address space than it has now, or any number."""
    limit = resource.RLIM_INFINITY if more is None else _status("VmSize") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Have the process die from SIGALRM if the block takes longer, whatever it does."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def resident_peak() -> Iterator[list[int]]:
    """Measure by how many bytes the memory in use rises at most while the block runs; the list has it afterwards."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # begin the peak anew
    before, peak = _status("VmRSS"), [0]
    try:
        yield peak
    finally:
        peak[0] = _status("VmHWM") - before


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name + ":"))
