"""What makes a new process a worker, and what it does before it leaves.

    run_forked (a copy of the parent) --+
                                        +--> settle --> serve: Task.run between channel and channel --> leave
    spawned.main (a new interpreter) ---+

A worker ignores Ctrl-C, which is for the caller only, dies of SIGTERM, and dies with its parent. It never runs the
clean-up of what it inherited: the objects of the parent are frozen, and it leaves through ``os._exit``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import pickle
import random
import signal
import sys
import threading
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..errors import WorkerError
from ..utils import pickling
from ..utils.remote_error import pack
from ..utils.rng import default_seed
from ..utils.stack import place_arrays
from .arena import Arena
from .blocks import Blocks
from .channel import End, Far
from .crew import Kind
from .frames import Frame, encode
from .task import Context, Task
from .worker import HungUp, work

with contextlib.suppress(ImportError):  # Windows has none, and none of this runs there
    import fcntl

if TYPE_CHECKING:
    from .launcher import Bond

# A worker that gets it writes its Python stacks, also while C code holds the GIL, and dies of it.
DUMP = getattr(signal, "SIGRTMAX", signal.SIGTERM)
PR_SET_PDEATHSIG = 1
F_SETSIG = 10
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Libraries that start threads of their own read these; a worker is one thread among many already.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}  # fmt: skip

# What that is called in the builds of OpenBLAS that numpy and scipy, and others, bring along.
SET_NUM_THREADS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")
# The arena, and the part of it that a worker may use.
Share = tuple[Arena, tuple[int, int]]
# The channel of this worker: it is never freed, so its end is the end of the process.
_channels: list[Far] = []
_libc: Any = ctypes.CDLL(None) if os.name == "posix" else None


class InheritedFd:
    """A descriptor that multiprocessing finds again in a spawned process, under the number it had."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        return self.fd


def load() -> None:
    """Import what a worker needs and `import dataflow` leaves to its first use.

    A child that imports waits for ever for the lock of a thread that was importing the same when it was forked.
    """
    importlib.import_module("numpy.random")
    pickling.load()


def run_forked(
    task: Task, context: Context, end: End, share: Share | None, bond: Bond, mask: Collection[int]
) -> NoReturn:
    """Be a worker in a copy of the parent; the frames below this one are never returned to."""

    def be_worker() -> int:
        settle(bond, mask)
        _stop_reading_stdin()
        _forget_processes_of_parent()
        os.environ.update(environment())
        return serve(task, context, end.open(), share)

    live(bond, be_worker)


def live(bond: Bond, be_worker: Callable[[], int]) -> NoReturn:
    """Be a worker and leave. What fails outside of its task becomes its last words, which its parent reads."""
    code = 1
    try:
        code = be_worker()
    except BaseException:
        os.write(bond.stacks, traceback.format_exc().encode(errors="replace"))
    finally:
        leave(code)


def settle(bond: Bond, mask: Collection[int]) -> None:
    """Set the signals of a worker, and tie it to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(DUMP, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    if bond.life is not None:
        fcntl.fcntl(bond.life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(bond.life, F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(bond.life, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    elif sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != bond.parent:  # it was gone before
        os._exit(1)
    faulthandler.enable(bond.stacks)
    faulthandler.register(DUMP, bond.stacks, chain=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def serve(task: Task, context: Context, channel: Far, share: Share | None) -> int:
    """Run the task between its inbox and the pool, and return the exit code."""
    _channels.append(channel)
    one_thread_each()
    keep_freed_memory()
    reseed(context)
    inbox = _Inbox(channel, context)
    if share is not None:
        inbox.blocks = Blocks(*share, inbox.hear)
        place_arrays(inbox.blocks.array)
    try:
        work(task, iter(inbox), context, _outlet(task, channel, inbox.blocks))
        channel.finish()
    except HungUp:
        pass
    except SystemExit as leaving:
        return _exit_code(leaving)
    return 0


class _Inbox:
    """What the pool sends: messages for the task, and blocks that it needs no longer."""

    blocks: Blocks | None = None

    def __init__(self, channel: Far, context: Context) -> None:
        self._channel, self._context = channel, context
        self._frames: deque[Frame] = deque()

    def hear(self) -> None:
        """Take in what is there."""
        while (frame := self._channel.receive(wait=False)) is not None:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind is not Kind.FREE:
            self._frames.append(frame)
        elif self.blocks is not None:
            self.blocks.free(frame.data)

    def __iter__(self) -> Iterator[Any]:
        while True:
            while not self._frames:
                frame = self._channel.receive()
                if frame is None:
                    return
                self._take(frame)
                del frame
            message = [self._open(self._frames.popleft())]
            yield message.pop()  # nothing of a message stays here while the task has it

    def _open(self, frame: Frame) -> Any:
        try:
            return pickle.loads(frame.data, buffers=frame.arrays)
        except Exception as error:
            context = self._context
            raise WorkerError(
                f"a message to worker {context.worker} of {context.stage} cannot be unpickled there: "
                f"{type(error).__name__}: {error}",
                stage=context.stage, worker=context.worker, pid=os.getpid(),
            ) from error  # fmt: skip


def _outlet(task: Task, channel: Far, blocks: Blocks | None) -> Callable[[Kind, Any], None]:
    def emit(kind: Kind, payload: Any) -> None:
        if kind is Kind.MESSAGE:
            frame = encode(task, payload[0])
            payload.clear()  # what else refers to its arrays now, keeps them
            channel.send(frame if blocks is None else blocks.share(frame))
        else:
            channel.send(Frame(kind, pack(payload) if kind is Kind.ERROR else b""))

    return emit


def _exit_code(leaving: SystemExit) -> int:
    """Do what the interpreter does with the argument of ``sys.exit``."""
    if leaving.code is None or isinstance(leaving.code, int):
        return (leaving.code or 0) & 0xFF
    print(leaving.code, file=sys.stderr)  # noqa: T201  # as the interpreter does
    return 1


def leave(code: int) -> NoReturn:
    """Wait for threads and queues that the task has started, flush, and go."""
    util: Any = sys.modules.get("multiprocessing.util")
    for step in (threading._shutdown, util and util._exit_function, flush):  # type: ignore[attr-defined]
        try:
            if step is not None:
                step()
        except BaseException:
            traceback.print_exc()
    os._exit(code)


def flush() -> None:
    """Write out what the standard streams still hold."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # None, closed, or nobody reads it
            stream.flush()


def environment() -> dict[str, str]:
    """Return the environment of a worker."""
    return {**ONE_THREAD, **os.environ}


def one_thread_each() -> None:
    """Stop libraries that are loaded already from starting threads: the workers fill the processors."""
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(0)  # 1 would join threads that a forked child does not have
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        for path in {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "openblas" in line}:
            blas = ctypes.CDLL(path)
            for name in SET_NUM_THREADS:
                getattr(blas, name, int)(1)


def keep_freed_memory() -> None:
    """Have malloc keep what is freed: the first touch of a new page costs more than copying one."""
    with contextlib.suppress(AttributeError):  # only glibc has it
        _libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        _libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)


def reseed(context: Context) -> None:
    """Give the global generators of this worker streams of their own; forked ones would all be the parent's."""
    key = (zlib.crc32(context.stage.encode()), context.worker)
    sequence = np.random.SeedSequence(default_seed(), spawn_key=key)
    random.seed(sequence.generate_state(4).tobytes())
    np.random.seed(sequence.generate_state(4))


def _stop_reading_stdin() -> None:
    """Leave the terminal to the parent."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        if sys.stdin.fileno() == 0:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)
            sys.stdin = open(0, closefd=False)  # noqa: SIM115  # it replaces the parent's


def _forget_processes_of_parent() -> None:
    """Make the state of multiprocessing that of a new process, as its own children do."""
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process._children = set()  # type: ignore[attr-defined]
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
