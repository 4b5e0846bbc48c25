"""Start a worker process, by fork or in a new interpreter, so that it ends with its parent whatever happens.

    parent                                                        child
    Process: pid, sentinel  <--- pidfd (or a pipe's end) -------- its life
    its own life  --- PDEATHSIG (or a pipe with F_SETSIG) ------> SIGKILL
    boot file: sys.path, settings, task by value ---------------> only a new interpreter reads it

The life of one process:

1.  The caller holds signals back, so that Ctrl-C finds the child either not there or on record.
2.  fork: the task is there already; the child closes every descriptor of the engine but its own (descriptors.py).
    spawn: a new interpreter inherits exactly these, and reads the boot file; the user's script is not run again.
3.  The child ignores Ctrl-C, ties itself to its parent, and looks whether that is still there (child.py).
    PDEATHSIG follows the thread that forked, so it serves where that is the main thread; elsewhere the kernel sends
    SIGKILL when the other end of a pipe closes. Both work while a C function holds the GIL.
4.  The end of the process makes its sentinel readable; ``reap`` collects the exit code.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ..utils import check, pickling
from ..utils.rng import default_seed
from . import child
from .arena import Leases
from .channel import End
from .crew import Forget
from .descriptors import Descriptor, keeping, pipe
from .task import Context, Task

logger = logging.getLogger(__name__)

METHODS = ("fork", "spawn", "forkserver")
Mask = set[int]

_asked: str | None = None
_decided: str | None = None


def set_start_method(method: str | None) -> None:
    """Say how worker processes start: "fork", "spawn", or None for the default.

    The default on Linux is fork, which is fast, for as long as every pool was started while one Python thread ran,
    and spawn from then on, since a fork copies the locks that other threads hold; elsewhere it is spawn. Under both,
    functions travel as they are, and a script needs no ``if __name__ == "__main__"``. "forkserver" means "spawn".

    Raises:
        ValueError: if it is none of these.
    """
    global _asked
    check.one_of((*METHODS, None), method=method)
    _asked = method


def start_method(asked: str | None) -> str:
    """Return "fork" or "spawn": what was asked for here, by ``set_start_method``, or the default."""
    global _decided
    asked = asked or _asked
    if asked is not None:
        return "fork" if asked == "fork" else "spawn"
    if _decided != "spawn":
        threads = threading.active_count()
        decided = "fork" if threads == 1 and sys.platform == "linux" else "spawn"
        if decided != _decided:
            logger.info("worker processes start by %s from now on (%d Python threads run)", decided, threads)
        _decided = decided
    return _decided


class Bond(NamedTuple):
    """What ties a child to its parent: numbers that the child is told."""

    parent: int
    life: int | None  # the reading end of a pipe that closes with the parent; None: PDEATHSIG does it
    stacks: int


class Process:
    """A worker process as its parent sees it."""

    def __init__(self, pid: int, life: Descriptor | None, alarm: Descriptor | None) -> None:
        self.pid = pid
        self.exitcode: int | None = None
        self.reaped = False
        self._life = life
        self._has_pidfd = alarm is None
        self.sentinel = alarm or Descriptor(os.pidfd_open(pid))

    def send(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self.reaped:
                return
            if self._has_pidfd:
                signal.pidfd_send_signal(self.sentinel.fileno(), number)
            else:
                os.kill(self.pid, number)

    def reap(self) -> None:
        """Collect the exit code, once the process has ended, and free what was held for it."""
        if not self.reaped:
            with contextlib.suppress(ChildProcessError):  # somebody else has collected it
                _, status = os.waitpid(self.pid, 0)
                self.exitcode = os.waitstatus_to_exitcode(status)
            self.reaped = True
        self.sentinel.close()
        if self._life is not None:
            self._life.close()


class Forker:
    """Start workers by fork: they find the task where it is."""

    def __init__(self, task: Task, stacks: Descriptor, leases: Leases | None, forget: Forget | None) -> None:
        self._task = task
        self._stacks = stacks
        self._leases = leases
        self._forget = forget
        child.load()  # once, and not in each child

    def start(self, context: Context, end: End, mask: Mask) -> Process:
        """Fork one worker."""
        share = None if self._leases is None else (self._leases.arena, self._leases.part(context.worker))
        file = share and share[0].descriptor

        def create(bond: Bond, kept: list[Descriptor]) -> int:
            with keeping(*end.descriptors, self._stacks, file, *kept), _no_collection(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded": that is decided above
                pid = os.fork()
                if pid == 0:
                    gc.freeze()
            if pid == 0:
                for handlers in reversed(_put_off):
                    _give_back(handlers)
                if self._forget is not None:
                    self._forget()
                child.run_forked(self._task, context, end, share, bond, mask)
            return pid

        child.flush()  # or both would write what is buffered now
        return _launch(create, self._stacks)

    def close(self) -> None:
        """Free nothing."""


class Spawner:
    """Start workers in new interpreters: the task travels in a file without a name that all of them read."""

    def __init__(self, task: Task, boot: Descriptor, stacks: Descriptor, leases: Leases | None) -> None:
        self._boot = boot
        self._stacks = stacks
        self._leases = leases
        self._courier = _Courier()
        with open(boot.fileno(), "wb", closefd=False) as file:
            pickle.dump([entry for entry in sys.path if isinstance(entry, str)], file)
            settings = {"argv": sys.argv, "seed": default_seed(), "start_method": _asked}
            pickle.dump({**settings, **self._courier.settings()}, file)
            file.write(self._courier.pack(task))

    def start(self, context: Context, end: End, mask: Mask) -> Process:
        """Start one interpreter."""

        def create(bond: Bond, kept: list[Descriptor]) -> int:
            arena, share = [], None
            if self._leases is not None:
                arena = [self._leases.arena.descriptor]
                share = arena[0].fileno(), self._leases.part(context.worker)
            arguments = (tuple(context), end.recipe(), share, tuple(bond), sorted(mask))
            program = (
                f"import mmap, pickle, sys; boot = mmap.mmap({self._boot.fileno()}, 0, access=mmap.ACCESS_READ); "
                f"sys.path[:] = pickle.load(boot); from {__package__}.spawned import main; main(boot, *{arguments!r})"
            )
            inherited = [item.fileno() for item in (self._boot, self._stacks, *arena, *end.descriptors, *kept)]
            process = subprocess.Popen(
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", program],  # type: ignore[attr-defined]
                stdin=subprocess.DEVNULL, pass_fds=[*inherited, *self._courier.inherited], env=child.environment(),
            )  # fmt: skip
            process.returncode = 0  # it is ours to reap
            return process.pid

        return _launch(create, self._stacks)

    def close(self) -> None:
        """Free the boot file; workers that still start have mapped or inherited it."""
        self._boot.close()


def _launch(create: Callable[[Bond, list[Descriptor]], int], stacks: Descriptor) -> Process:
    life = None if _is_main_thread() else pipe()
    alarm = None if hasattr(os, "pidfd_open") else pipe()
    kept = [*([life[0]] if life else []), *([alarm[1]] if alarm else [])]
    try:
        pid = create(Bond(os.getpid(), life[0].fileno() if life else None, stacks.fileno()), kept)
        try:
            return Process(pid, life and life[1], alarm and alarm[0])
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    finally:
        for descriptor in kept:
            descriptor.close()


def _is_main_thread() -> bool:
    """Say whether the kernel's PDEATHSIG, sent when the calling thread ends, will mean the whole process."""
    return sys.platform != "linux" or threading.get_native_id() == os.getpid()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector away meanwhile: what a child has inherited is not its own to clean up."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def signals_held() -> Iterator[Mask]:
    """Hold back every signal meanwhile; what came is handled at the end. Yield what was blocked before.

    The kernel may hand a signal to another thread, for which Python calls the handler in the main thread all the same.
    So there the handlers themselves are put off, too.
    """
    handlers: dict[int, Any] = {}
    came: list[int] = []
    mask: set[Any] | None = None
    _put_off.append(handlers)
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    handlers[number] = handler
                    signal.signal(number, lambda number, _: came.append(number))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        yield set(map(int, mask))
    finally:
        _put_off.remove(handlers)
        _give_back(handlers)
        for one in came:
            signal.raise_signal(one)  # it is blocked until the next line
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_SIGNALS = frozenset(map(int, signal.valid_signals()))
# Handlers that are put off, the first ones first.
_put_off: list[dict[int, Any]] = []


def _give_back(handlers: dict[int, Any]) -> None:
    """Set all of these handlers, also if one that is set already raises; then raise what it raised."""
    raised: BaseException | None = None
    for number, handler in handlers.items():
        while signal.getsignal(number) is not handler:
            try:
                signal.signal(number, handler)
            except BaseException as error:
                raised = error
    if raised is not None:
        raise raised


class _Courier:
    """Stands where multiprocessing expects the process that is being spawned.

    So its queues, locks, events, values and connections travel with a task: they ask for the descriptors that the
    new process shall inherit.
    """

    def __init__(self) -> None:
        self.inherited: list[int] = []

    def settings(self) -> dict[str, Any]:
        """Return what multiprocessing in the new process must know of that in this one."""
        settings: dict[str, Any] = {}
        if (process := sys.modules.get("multiprocessing.process")) is not None:
            settings["authkey"] = bytes(process.current_process().authkey)
        if (tracker := sys.modules.get("multiprocessing.resource_tracker")) is not None:
            fd = tracker._resource_tracker._fd
            if fd is not None:  # a tracker of its own would remove shared memory that others still use
                settings["tracker"] = self.duplicate_for_child(fd)
        return settings

    def pack(self, task: Task) -> bytes:
        """Pickle a task by value."""
        context, reduction = (sys.modules.get(f"multiprocessing.{name}") for name in ("context", "reduction"))
        reducers: Mapping[type, Callable[[Any], Any]] = {}
        if context is not None and reduction is not None:
            context.set_spawning_popen(self)
            reducers = reduction.ForkingPickler(io.BytesIO()).dispatch_table

        def reduce(obj: Any) -> Any:
            return reducers[type(obj)](obj) if type(obj) in reducers else NotImplemented

        try:
            return pickling.travel(task, main_by_value=True, reduce=reduce)
        except Exception as error:
            raise TypeError(pickling.explain([("task", task)], error)) from error
        finally:
            if context is not None:
                context.set_spawning_popen(None)

    def duplicate_for_child(self, fd: int) -> int:
        self.inherited.append(fd)
        return fd

    DupFd = child.InheritedFd
