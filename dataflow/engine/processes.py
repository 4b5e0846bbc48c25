"""Workers that are processes: started, heard, mourned and stopped by whoever waits for them.

                       +-- channel 0 <--> worker 0 (Task.run)
    caller --> Poll ---+-- sentinel 0 <-- its end
    (wait)             +-- channel 1 <--> worker 1
                       +-- sentinel 1

One poll waits for everything: an idle pool costs nothing, and a death is known when it happens.

The life of a worker:

1.  ``start`` makes its channel and launches it; if one cannot be started, none is left.
2.  It says READY, then answers; ``wait`` cuts its frames into events. They are unpickled when they are received.
3.  It says END or ERROR and leaves; its exit code no longer matters.
4.  Or its sentinel becomes readable, or its channel ends, before that: what it had sent completely becomes events,
    and then comes its DEATH.
5.  ``stop`` closes the channels, which ends the inbox of each worker and breaks what it still sends; one that has
    not left after GRACE is sent SIGTERM, and after GRACE again SIGKILL. Then it is reaped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from ..errors import WorkerError
from ..utils.remote_error import unpack
from .arena import Arena, Leases, bytes_of
from .channel import Near, Poll, SocketWire, Wire
from .child import DUMP
from .crew import Crew, Death, Event, Forget, Kind
from .descriptors import Descriptor, memory_file
from .frames import Frame, encode
from .launcher import Forker, Process, Spawner, signals_held, start_method
from .task import Context, Task
from .zmq_channel import ZmqWire

# How long a worker may take to leave by itself, and then to die of SIGTERM, in seconds.
GRACE = 0.3
# How long a process may take to end that cannot but end: its channel has ended, or it was told to dump and die.
LAST = 1.0
LIMITS = {
    errno.EMFILE: ("open files", "SC_OPEN_MAX", "ulimit -n"),
    errno.EAGAIN: ("processes", "SC_CHILD_MAX", "ulimit -u"),
}


class ProcessCrew(Crew):
    """One process a worker."""

    def __init__(
        self, task: Task, workers: int, stage: str, timeout: float | None, *, over_zmq: bool, start_method: str | None
    ) -> None:
        super().__init__(task, workers, stage, timeout)
        self._over_zmq = over_zmq
        self._asked = start_method
        self._by_value = False
        self._wire: Wire | None = None
        self._poll: Any = None
        self._stacks: Descriptor | None = None
        self._boot: Descriptor | None = None
        self._stacks_read = 0
        self._leases: Leases | None = None
        self._keys: dict[Any, tuple[int, bool]] = {}
        self._channels: list[Near] = []
        self._processes: list[Process] = []
        self._said_last: set[int] = set()  # have sent END or ERROR
        self._ready: set[int] = set()
        self._stopping = threading.Lock()

    def start(self) -> None:
        try:
            # Ctrl-C finds each of these either not there or on record.
            with signals_held():
                self._stacks = memory_file("dataflow-stacks")
                wire: Wire = (ZmqWire if self._over_zmq else SocketWire)(len(self.contexts))
                self._wire, self._poll = wire, wire.poll()
                arena = Arena.make(len(self.contexts))
                self._leases = None if arena is None else Leases(arena)
            with contextlib.closing(self._launcher(self._stacks)) as launcher:
                for context in self.contexts:
                    with signals_held() as mask:
                        self._launch(launcher, wire, context, mask)
        except OSError as error:
            self._refuse(error, len(self._processes))
        for worker in range(len(self.contexts)):
            self._watch_worker(worker)

    def _launch(self, launcher: Forker | Spawner, wire: Wire, context: Context, mask: set[int]) -> None:
        near, end = wire.pair()
        # In the place of a dead one, if it has one.
        self._channels[context.worker :] = [near, *self._channels[context.worker + 1 :]]
        try:
            process = launcher.start(context, end, mask)
            self._processes[context.worker :] = [process, *self._processes[context.worker + 1 :]]
        finally:
            for descriptor in end.descriptors:
                descriptor.close()

    def _launcher(self, stacks: Descriptor, forget: Forget | None = None) -> Forker | Spawner:
        if start_method(self._asked) == "fork":
            return Forker(self.task, stacks, self._leases, forget)
        self._by_value = True
        with signals_held():  # then it is on record, too
            self._boot = memory_file("dataflow-boot")
        return Spawner(self.task, self._boot, stacks, self._leases)

    def restart(self, worker: int, forget: Forget | None) -> None:
        wire, stacks = self._wire, self._stacks
        assert wire is not None
        assert stacks is not None
        self._channels[worker].close()
        self._ready.discard(worker)
        spans = b"" if self._leases is None else self._leases.inherit(worker)
        try:
            with contextlib.closing(self._launcher(stacks, forget)) as launcher, signals_held() as mask:
                self._launch(launcher, wire, self.contexts[worker], mask)
        except OSError as error:
            self._refuse(error, worker)
        self._watch_worker(worker)
        if spans:
            self.send(worker, Frame(Kind.FREE, spans))

    def _refuse(self, error: OSError, worker: int) -> NoReturn:
        advice = ""
        if error.errno in LIMITS:
            what, limit, command = LIMITS[error.errno]
            advice = f" The limit of {what} is {os.sysconf(limit)}: raise it ({command}), or use fewer workers."
        raise WorkerError(
            f"cannot start worker {worker + 1} of {len(self.contexts)} of {self.contexts[0].stage}: {error}.{advice}",
            stage=self.contexts[0].stage, worker=worker,
        ) from error  # fmt: skip

    def _watch_worker(self, worker: int) -> None:
        self._watch(self._channels[worker].key, worker, is_channel=True)
        self._watch(self._processes[worker].sentinel.fileno(), worker, is_channel=False)

    def _watch(self, key: Any, worker: int, is_channel: bool) -> None:
        self._keys[key] = (worker, is_channel)
        self._poll.watch(key)

    def _forget(self, key: Any) -> None:
        if self._keys.pop(key, None) is not None:
            self._poll.forget(key)

    def pack(self, message: Any) -> tuple[Frame, int]:
        frame = encode(self.task, message, self._by_value)
        return frame, frame.size

    def send(self, worker: int, message: Frame) -> None:
        channel = self._channels[worker]
        if channel.key in self._keys:  # else it is gone, which `wait` will tell or has told
            channel.send(message)
            if channel.waiting:
                self._poll.watch(channel.key, writing=True)

    def _return_blocks(self) -> None:
        """Tell the workers which of their blocks nobody needs any more."""
        if self._leases is not None and self._leases.waiting:
            for worker, offsets in self._leases.returned().items():
                self.send(worker, Frame(Kind.FREE, offsets))

    def wait(self, timeout: float | None) -> Iterable[int]:
        self._return_blocks()
        keys = self._poll.wait(timeout)
        if self.stopped:
            return ()
        heard, gone = set(), set()
        for key in keys:
            worker, is_channel = self._keys[key]
            heard.add(worker)
            if not is_channel or not self._listen(worker):
                gone.add(worker)
        for worker in gone:
            self._bury(worker)
        return heard

    def _listen(self, worker: int) -> bool:
        """Take what is there from a worker; False if there will be no more, and it said no last word."""
        channel = self._channels[worker]
        if channel.waiting and channel.flush():
            self._poll.watch(channel.key)
        for frame in channel.receive():
            self._hear(worker, frame)
        if channel.ended:
            self._forget(channel.key)
        return not channel.ended or worker in self._said_last

    def _hear(self, worker: int, frame: Frame) -> None:
        kind, payload, size = frame.kind, frame, frame.size
        if kind is Kind.SHARED:
            kind, size = Kind.MESSAGE, size + bytes_of(frame)
        elif kind is Kind.READY:
            self._ready.add(worker)
        elif kind in (Kind.END, Kind.ERROR):
            self._said_last.add(worker)
            self._channels[worker].taken()
        self.events.append(Event(worker, kind, unpack(frame.data) if kind is Kind.ERROR else payload, size))

    def _bury(self, worker: int) -> None:
        """Hear the last of a worker that is gone, and reap it."""
        channel, process = self._channels[worker], self._processes[worker]
        while channel.key in self._keys:
            before = len(self.events)
            self._listen(worker)
            if len(self.events) == before:
                self._forget(channel.key)
        if process.reaped:
            return
        self._forget(process.sentinel.fileno())
        if not _ended([process], LAST):
            process.send(signal.SIGKILL)
        process.reap()
        if worker not in self._said_last:
            self.events.append(Event(worker, Kind.DEATH, Death(process.exitcode, self._read_stacks())))

    def open(self, event: Event) -> Any:
        frame: Frame = event.payload
        if frame.kind is Kind.SHARED and self._leases is not None:
            return self._leases.open(frame.data)
        return pickle.loads(frame.data, buffers=frame.arrays)

    def pid(self, worker: int) -> int:
        return self._processes[worker].pid

    def give_up(self, worker: int) -> str:
        process = self._processes[worker]
        process.send(DUMP)
        if not _ended([process], LAST):
            process.send(signal.SIGKILL)
        return self._read_stacks()

    def _read_stacks(self) -> str:
        """Return what faulthandler has written since this was asked last."""
        if self._stacks is None:
            return ""
        data = os.pread(self._stacks.fileno(), 1 << 20, self._stacks_read)
        self._stacks_read += len(data)
        return _own_frames(data.decode(errors="replace"))

    def _stop(self, alone: bool) -> None:
        with signals_held(), self._stopping:
            try:
                self._dismiss(alone)
            finally:
                self._clear(alone)

    def _dismiss(self, alone: bool) -> None:
        """Have every worker leave, or kill it."""
        if alone:
            for worker, (_, process) in enumerate(zip(self._channels, self._processes, strict=False)):
                if worker not in self._ready:
                    with contextlib.suppress(Exception):  # it may have been interrupted in the middle of a frame
                        self._listen(worker)
                if worker not in self._ready:  # it has done nothing yet, and may be busy with that for long
                    process.send(signal.SIGKILL)
            for channel in self._channels:
                channel.close()
        else:  # the user of the channels will wake when the workers are gone
            for process in self._processes:
                process.send(signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _ended(self._processes, GRACE):
                return
            for process in self._processes:
                process.send(number)

    def _clear(self, alone: bool) -> None:
        """Reap every worker, and free everything, now that no signal can come in between."""
        while self._processes:
            process = self._processes[-1]
            process.send(signal.SIGKILL)  # it has no effect on one that has ended
            process.reap()
            self._processes.pop()
        if self._wire is not None and alone:
            while self._channels:
                self._channels.pop().close()
            self._wire.close()
            self._keys.clear()
            self._wire = self._poll = None
        for descriptor in (self._stacks, self._boot):
            if descriptor is not None:
                descriptor.close()
        if self._leases is not None and alone:
            leases, self._leases = self._leases, None
            leases.close()


def _own_frames(stacks: str) -> str:
    """Leave out the frames of the parent that a forked worker stands on."""
    kept, below = [], False
    for line in stacks.splitlines(keepends=True):
        below = below and line.startswith("  ")
        if not below:
            kept.append(line)
        below = below or line.endswith(" in run_forked\n")
    return "".join(kept)


def _ended(processes: list[Process], timeout: float) -> bool:
    """Wait until all of these have ended; False if some have not after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    poll = Poll()
    running = {process.sentinel.fileno() for process in processes if not process.reaped}
    for sentinel in running:
        poll.watch(sentinel)
    while running:
        ready = poll.wait(max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        for sentinel in ready:
            poll.forget(sentinel)
            running.discard(sentinel)
    return True
