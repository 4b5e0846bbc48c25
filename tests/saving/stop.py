"""Kill a process with SIGKILL before one of its system calls, counted from a moment on, or after some time.

::

    kill_before(n, work)
      fork ---> child: asks to be traced, stops; work(); leaves
      wait <--- stopped before and after each system call; at the n-th it is killed, and never makes it

Every state that a save leaves on disk lies between two system calls, so killing before each of them shows them all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

_TRACEME, _SYSCALL, _SETOPTIONS, _EXITKILL = 0, 24, 0x4200, 0x100000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def kill_before(number: int, work: Callable[[], Any]) -> int | None:
    """Run ``work`` in a forked child, and kill it before the system call of this number, from 0.

    Returns:
        None if it was killed, else how many system calls it made.

    Raises:
        OSError: if this system allows no tracing.
        RuntimeError: if ``work`` failed.
    """
    pid = os.fork()
    if pid == 0:
        _child(work)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        raise OSError("no process may be traced here")
    _ptrace(_SETOPTIONS, pid, _EXITKILL)
    calls, entering, deliver = 0, True, 0
    while True:
        _ptrace(_SYSCALL, pid, deliver)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise RuntimeError("the save itself failed")
            return calls
        if os.WIFSIGNALED(status):
            raise RuntimeError(f"the save died of {signal.Signals(os.WTERMSIG(status)).name}")
        deliver = os.WSTOPSIG(status)
        if deliver != signal.SIGTRAP:
            continue
        deliver = 0
        if entering and calls == number:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        calls += entering
        entering = not entering


def kill_after(seconds: float, work: Callable[[], Any]) -> bool:
    """Run ``work`` in a forked child, and kill it after some time; return whether it was still at work."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def in_child(work: Callable[[], Any]) -> str:
    """Run ``work`` in a forked child; return "" or the error that it raised, as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        said = ""
        try:
            work()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


def _child(work: Callable[[], Any]) -> None:
    code = 1
    try:
        if _libc.ptrace(_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _ptrace(request: int, pid: int, data: int) -> None:
    if _libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
