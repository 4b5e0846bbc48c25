"""The pool: it starts the workers of one task, feeds them, listens to them, and stops them.

    caller -- send(i, m) --> Pool --> Crew --> inbox of worker i --> Task.run
    caller <-- receive() --- Pool <-- Crew <-- events <------------------+

It has no thread of its own: it is a state machine that moves when its caller sends or waits. The crew (inline.py,
threads.py, processes.py) knows how its kind of worker is started, woken, heard and ended; the pool knows what it means.

The life of one message:

1.  ``send`` notes which samples are in it, and the crew takes it at once: pickled if there is a border to cross,
    queued if the way is full.
2.  The worker's ``Task.run`` draws it from its inbox, and yields the answer.
3.  ``receive`` waits in the crew until a worker is heard from, and takes one event after another, as they came.
4.  An answer takes the oldest message of its worker off the list of what is in flight, and is returned.
5.  A failure becomes an exception, raised when all that came before it has been received; before that the pool closes.
    If dead workers are to be replaced, a new one is sent what the dead one had not answered.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple, NoReturn, Self

from ..errors import UsageError, WorkerDied, WorkerError
from ..utils import check
from . import failures
from .crew import Crew, Event, Forget, Kind
from .inline import InlineCrew
from .launcher import METHODS
from .processes import ProcessCrew
from .task import Task
from .threads import ThreadCrew

logger = logging.getLogger(__name__)

KINDS = ("process", "zmq", "thread", "inline")
BUFFER_BYTES = 256 << 20
# Python looks for signals between two of its instructions, and a signal ends a wait in the kernel. One that comes after
# the look and before the wait does nothing: so the main thread, whose they are, looks again after so many seconds.
LONGEST_WAIT = 1.0
# A worker that is still starting (a new interpreter, imports, going to a place) is given at least so many seconds.
STARTING = 60.0


# Python's hook that ends what is still there at exit is set with the first of these. So it is set before a program sets
# hooks of its own, which may use a pool, and it runs behind them.
weakref.finalize(Crew, int)


class Sent(NamedTuple):
    """A message that has not been answered."""

    samples: Sequence[int]
    size: int
    message: Any  # kept if it may have to be sent again
    slow: bool  # its answer may take as long as a start does


# What is sent to a worker in the place of a dead one, made of what that had not answered: worker, messages -> messages.
Again = Callable[[int, list[Any]], list[Any]]


class Pool:
    """Run ``task`` in ``workers`` workers; every other class of the engine serves this one.

    Args:
        task: what each worker runs.
        workers: how many, at least 1.
        kind: "process" (over a socketpair), "zmq" (processes over ZeroMQ), "thread", or "inline": in the caller.
        stage: whose pool it is, for messages.
        start_method: "fork" or "spawn" ("forkserver" means the same); None leaves it to ``set_start_method``.
        timeout: seconds that a worker with work may be silent while the caller waits; None is for ever.
        buffer_bytes: how much may be on its way before ``full`` says so.
        restarts: how many dead processes are replaced; the next one that dies is an error.
        again: says what a new one is sent; None: all that the dead one has not answered.

    Raises:
        TypeError, ValueError: at construction, for a wrong argument.
        WorkerError: from ``start``, if the machine does not allow another worker.
    """

    def __init__(
        self,
        task: Task,
        workers: int,
        *,
        kind: str,
        stage: str,
        start_method: str | None = None,
        timeout: float | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        restarts: int = 0,
        again: Again | None = None,
    ) -> None:
        check.instance(Task, "a Task", task=task)
        check.integer(1, workers=workers, buffer_bytes=buffer_bytes)
        check.integer(0, restarts=restarts)
        check.one_of(KINDS, kind=kind)
        check.one_of((*METHODS, None), start_method=start_method)
        if timeout is not None:
            check.instance((int, float), "a number of seconds or None", timeout=timeout)
            if not timeout > 0:
                raise ValueError(f"timeout must be more than 0 seconds, or None, got {timeout}")
        self.task = task
        self.workers = int(workers)
        self.kind = kind
        self.stage = stage
        self.start_method = start_method
        self.timeout = timeout
        self.buffer_bytes = buffer_bytes
        self.restarts = int(restarts)
        self.again = again
        # What a worker that is forked in the place of a dead one calls first.
        self.forget: Forget | None = None
        self._crew: Crew | None = None
        self._closed = False
        self._pid = 0
        # The size of the message received last; 0 where messages are handed over as they are.
        self.received_bytes = 0
        self._sent = [deque[Sent]() for _ in range(self.workers)]
        self._sent_bytes = 0  # of all of these
        self._ended: set[int] = set()
        self._ready: set[int] = set()
        self._fed = False
        # Clock of the timeout: seconds spent waiting in all, and what it showed when each worker was heard from.
        self._waited = 0.0
        self._heard = [0.0] * self.workers

    def start(self) -> None:
        """Start all workers, or none; once started it does nothing."""
        if self._crew is not None or self._closed:
            self._running()
            return
        crew = self._hire()
        self._pid = os.getpid()
        self._end = weakref.finalize(self, _stop, crew, self._pid)  # when it is dropped, and at exit
        self._crew = crew
        try:
            crew.start()
        except BaseException:
            self.close()
            raise

    def send(self, worker: int, message: Any, samples: Sequence[int] = range(0), slow: bool = False) -> None:
        """Send ``message`` to a worker, without ever blocking.

        Args:
            worker: its index.
            message: what its inbox yields.
            samples: the numbers of the datapoints in it, for the error if the worker dies.
            slow: its answer may take long: a flow has to be reset for it, say, or to go to a place in a pass.

        Raises:
            TypeError: if it cannot be pickled; the message names the place inside the datapoint. The pool goes on.
            UsageError: if the pool is not running.
        """
        packed, size = self._running().pack(message)
        crew = self._use()
        try:
            crew.inside = True
            if crew.stopped:
                self._say_stopped()
            if not self._sent[worker]:
                self._heard[worker] = self._waited  # it had no work until now
            self._fed = True
            self._sent[worker].append(Sent(samples, size, message if self.restarts else None, slow))
            self._sent_bytes += size
            crew.send(worker, packed)
        except BaseException:  # a signal handler raised: nobody knows what was half done
            crew.inside = False  # nothing is used any more, so the workers may leave by themselves
            self.close()
            raise
        finally:
            crew.inside = False  # here, since Ctrl-C comes in where a function begins
            self._leave(crew)

    def receive(self, block: bool = True) -> tuple[int, Any] | None:
        """Return the next message as ``(worker, message)``, in the order in which they came in.

        None if nothing is there and ``block`` is False, or if every worker has ended.

        Raises:
            WorkerDied: if a worker is gone; all that it had sent has been received before.
            WorkerTimeout: if one with work was silent for too long.
            WorkerError: if an exception or a message of a worker does not unpickle.
            BaseException: what the task raised, with the worker's traceback as its cause. Any error closes the pool.
        """
        crew = self._use()
        try:
            crew.inside = True
            while True:
                if crew.stopped:
                    self._say_stopped()
                elif crew.events:
                    answer = self._take(crew, crew.events.popleft())
                    if answer is not None:
                        return answer
                elif len(self._ended) == self.workers or not self._listen(crew, block):
                    return None
        except BaseException:
            crew.inside = False  # as in `send`
            self.close()
            raise
        finally:
            crew.inside = False  # here, since Ctrl-C comes in where a function begins
            self._leave(crew)

    def ended(self, worker: int) -> bool:
        """Say whether a worker's ``Task.run`` has returned, and its last message has been received."""
        return worker in self._ended

    @property
    def closed(self) -> bool:
        """True once it is closed, by hand or by an error."""
        return self._closed

    @property
    def held_bytes(self) -> int:
        """The bytes of the messages that are on their way: sent and not answered, or not yet received."""
        return self._sent_bytes + sum(event.size for event in (self._crew.events if self._crew else ()))

    @property
    def full(self) -> bool:
        """True when ``buffer_bytes`` or more are on their way: receive before you send more."""
        return self.held_bytes >= self.buffer_bytes

    def close(self) -> None:
        """End the workers and free everything that the pool holds, within a second; harmless when repeated."""
        if self._crew is None:
            self._closed = True
        elif self._pid == os.getpid():
            self._closed = True
            _stop(self._crew, self._pid)
            self._end.detach()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._crew else "not started"
        return f"Pool(stage={self.stage!r}, kind={self.kind!r}, workers={self.workers}, {state})"

    def _hire(self) -> Crew:
        if self.kind == "inline":
            return InlineCrew(self.task, self.workers, self.stage)
        if self.kind == "thread":
            return ThreadCrew(self.task, self.workers, self.stage, self.timeout)
        if os.name != "posix":
            raise UsageError(f"{self.stage} needs processes as POSIX has them; on this system use its thread class")
        return ProcessCrew(
            self.task,
            self.workers,
            self.stage,
            self.timeout,
            over_zmq=self.kind == "zmq",
            start_method=self.start_method,
        )

    def _running(self) -> Crew:
        if self._closed:
            raise UsageError(f"the pool of {self.stage} is closed; make a new one")
        if self._crew is None:
            raise UsageError(f"the pool of {self.stage} has not been started")
        if self._pid != os.getpid():
            raise UsageError(f"the pool of {self.stage} belongs to process {self._pid}; make a new one in this process")
        return self._crew

    def _use(self) -> Crew:
        """Return the crew, for this thread alone until it leaves it."""
        crew = self._running()
        if not crew.gate.acquire(blocking=False):
            raise UsageError(f"{self.stage} is waiting in another thread; a pool has one consumer")
        return crew

    def _leave(self, crew: Crew) -> None:
        crew.gate.release()
        if crew.stopped:
            crew.stop()  # free what another thread that stopped it could not

    def _say_stopped(self) -> NoReturn:
        if self._closed:
            raise UsageError(f"the pool of {self.stage} was closed while it was waited for")
        raise SystemExit  # the interpreter is leaving, and a thread has nothing to say about that

    def _listen(self, crew: Crew, block: bool) -> bool:
        """Wait until a worker is heard from; False if the caller does not want to wait, and none was."""
        before = time.monotonic()
        heard = crew.wait(self._patience() if block else 0)
        self._waited += time.monotonic() - before
        for worker in heard:
            self._heard[worker] = self._waited
        if not crew.events and block:
            self._look_for_stuck(crew)
        return block or bool(crew.events)

    def _take(self, crew: Crew, event: Event) -> tuple[int, Any] | None:
        worker, kind, payload, size = event
        if kind is Kind.MESSAGE:
            message = self._open(crew, event)
            self.received_bytes = size
            if self._sent[worker]:
                self._sent_bytes -= self._sent[worker].popleft().size
            return worker, message
        if kind is Kind.READY:
            self._ready.add(worker)
        elif kind is Kind.END:
            self._end_of(crew, worker)
        elif kind is Kind.ERROR:
            self._raise(crew, worker, payload)
        elif kind is Kind.DEATH:
            error = failures.died(crew.contexts[worker], crew.pid(worker), payload, self._in_flight(worker))
            if not self.restarts or payload.exitcode is None:
                raise error
            self._replace(crew, worker, error)
        return None

    def _replace(self, crew: Crew, worker: int, error: WorkerDied) -> None:
        """Put a new worker in the place of a dead one, and send it what that had not answered."""
        self.restarts -= 1
        logger.warning("%s It is replaced; %d more may be.", error, self.restarts)
        sent, self._sent[worker] = self._sent[worker], deque()
        self._ready.discard(worker)
        self._heard[worker] = self._waited
        try:
            crew.restart(worker, self.forget)
        except TypeError as unsendable:  # the dead one was forked, which a thread that runs by now forbids
            raise error from unsendable
        messages = [one.message for one in sent]
        again = messages if self.again is None else self.again(worker, messages)
        for one, message in zip(sent, again, strict=True):
            packed, size = crew.pack(message)
            slow = one.slow or message is not one.message  # it goes back to where the dead one was
            self._sent[worker].append(Sent(one.samples, size, message, slow))
            self._sent_bytes += size - one.size
            crew.send(worker, packed)

    def _open(self, crew: Crew, event: Event) -> Any:
        try:
            return crew.open(event)
        except Exception as error:
            context, pid = crew.contexts[event.worker], crew.pid(event.worker)
            raise WorkerError(
                f"a message of {failures.name(context, pid)} cannot be unpickled: {type(error).__name__}: {error}",
                stage=self.stage, worker=event.worker, pid=pid,
            ) from error  # fmt: skip

    def _end_of(self, crew: Crew, worker: int) -> None:
        lost = self._in_flight(worker)
        if lost:
            context, pid = crew.contexts[worker], crew.pid(worker)
            raise WorkerError(
                f"{failures.name(context, pid)} ended without an answer to {failures.numbers(lost)}: "
                "its task returned too early, or a function in it raised StopIteration",
                stage=self.stage, worker=worker, pid=pid,
            )  # fmt: skip
        self._ended.add(worker)

    def _raise(self, crew: Crew, worker: int, error: BaseException) -> NoReturn:
        if not any(note.startswith(f"in {self.stage}, worker ") for note in getattr(error, "__notes__", ())):
            oldest = self._sent[worker][0].samples if self._sent[worker] else ()
            error.add_note(failures.place(crew.contexts[worker], crew.pid(worker), oldest))
        raise error

    def _in_flight(self, worker: int) -> list[int]:
        return list(chain.from_iterable(sent.samples for sent in self._sent[worker]))

    def _with_work(self) -> list[int]:
        """List the workers that owe a message: an answer, or anything if the pool was never sent to."""
        return [
            worker for worker in range(self.workers)
            if worker not in self._ended and (self._sent[worker] or not self._fed)
        ]  # fmt: skip

    def _limit(self, worker: int) -> float:
        assert self.timeout is not None
        starts = worker not in self._ready or any(sent.slow for sent in islice(self._sent[worker], 1))
        limit = max(self.timeout, STARTING) if starts else self.timeout
        return self._heard[worker] + limit - self._waited

    def _patience(self) -> float | None:
        """Return how long to wait: until the first worker counts as stuck, or it is time to look for signals."""
        limits = [] if self.timeout is None else [self._limit(worker) for worker in self._with_work()]
        if threading.current_thread() is threading.main_thread():
            limits.append(LONGEST_WAIT)
        return max(0.0, min(limits)) if limits else None

    def _look_for_stuck(self, crew: Crew) -> None:
        if self.timeout is None:
            return
        for worker in self._with_work():
            if self._limit(worker) <= 0:
                samples, context, pid = self._in_flight(worker), crew.contexts[worker], crew.pid(worker)
                raise failures.stuck(context, pid, self.timeout, crew.give_up(worker), samples)


def _stop(crew: Crew, pid: int) -> None:
    """Stop ``crew``, unless this is a forked child of the process that it works for."""
    if pid == os.getpid():
        try:
            crew.stop()
        except BaseException:  # Ctrl-C in the middle of it, which must not be the end of it
            crew.stop()
            raise
