"""Workers that are threads: messages are handed over as they are, without a copy.

    caller:  send(i, m) --> inbox i (SimpleQueue) --> thread i: Task.run
             wait()     <-- arrivals (SimpleQueue) <----+   for every message it takes one of its permits

The life of one message:

1.  ``send`` puts it into the inbox of its thread, and adds a permit for the answer.
2.  The thread takes it, works, takes a permit and puts the answer into the one queue of arrivals. A task that leaves
    its inbox alone runs ahead by LEAD permits, and gets one back for each message that the caller takes.
3.  ``wait`` sleeps in that queue, a lock inside, so it costs nothing and any arrival wakes it.
4.  ``stop`` raises a flag and wakes every thread. A thread inside a function cannot be interrupted: it ends when the
    function returns; it is a daemon, so the interpreter does not wait for it.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import WorkerError
from .crew import Crew, Death, Event, Kind
from .task import Context, Task
from .worker import HungUp, work

# How many messages a thread may be ahead of the caller that sends it nothing.
LEAD = 16
# How long `stop` waits for threads that are inside a function, in seconds.
GRACE = 0.3
_CLOSED = object()


class _Desk:
    """What one thread holds of its pool: an inbox, the way back, and the word to stop."""

    def __init__(self, context: Context, arrivals: queue.SimpleQueue[Event | None]) -> None:
        self.context = context
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # Not a semaphore, in whose Python code Ctrl-C would leave a lock behind.
        self.permits: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(LEAD):
            self.permits.put(None)
        self.unanswered = 0  # only the caller counts
        self.stopped = False
        self._arrivals = arrivals

    def messages(self) -> Iterator[Any]:
        return iter(self.inbox.get, _CLOSED)

    def emit(self, kind: Kind, payload: Any) -> None:
        if kind is Kind.MESSAGE:
            self.permits.get()
        if self.stopped:
            raise HungUp
        self._arrivals.put(Event(self.context.worker, kind, payload.pop() if kind is Kind.MESSAGE else payload))

    def close(self) -> None:
        self.stopped = True
        self.inbox.put(_CLOSED)
        self.permits.put(None)


def _thread(task: Task, desk: _Desk) -> None:
    try:
        work(task, desk.messages(), desk.context, desk.emit)
    except HungUp:
        pass
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        with contextlib.suppress(HungUp):
            desk.emit(Kind.DEATH, Death(code))


class ThreadCrew(Crew):
    """One daemon thread a worker."""

    def __init__(self, task: Task, workers: int, stage: str, timeout: float | None) -> None:
        super().__init__(task, workers, stage, timeout)
        self._arrivals: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._desks = [_Desk(context, self._arrivals) for context in self.contexts]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for desk in self._desks:
            name = f"{desk.context.stage}-{desk.context.worker}"
            thread = threading.Thread(target=_thread, args=(self.task, desk), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise WorkerError(
                    f"cannot start thread {desk.context.worker + 1} of {len(self._desks)} of {desk.context.stage}: "
                    f"{error}. Use fewer of them, or raise the limit (ulimit -u)."
                ) from error
            self._threads.append(thread)

    def send(self, worker: int, message: Any) -> None:
        desk = self._desks[worker]
        desk.unanswered += 1
        desk.permits.put(None)
        desk.inbox.put(message)

    def wait(self, timeout: float | None) -> Iterable[int]:
        heard = []
        try:
            event = self._arrivals.get(timeout=timeout) if timeout != 0 else self._arrivals.get_nowait()
            while event is not None:
                self.events.append(event)
                heard.append(event.worker)
                event = self._arrivals.get_nowait()
        except queue.Empty:
            pass
        return heard

    def open(self, event: Event) -> Any:
        desk = self._desks[event.worker]
        if desk.unanswered:
            desk.unanswered -= 1
        else:
            desk.permits.put(None)
        return event.payload

    def give_up(self, worker: int) -> str:
        frame = sys._current_frames().get(self._threads[worker].ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def _stop(self, alone: bool) -> None:  # noqa: ARG002  # nothing here is used by one thread only
        for desk in self._desks:
            desk.close()
        self._arrivals.put(None)  # for a caller that waits in another thread
        deadline = time.monotonic() + GRACE
        while self._threads:
            thread = self._threads.pop()
            if thread is not threading.current_thread():  # the garbage collector may call from anywhere
                thread.join(max(0.0, deadline - time.monotonic()))
