"""Run a whole flow in each of several workers, and merge what they yield.

Each worker has its own copy of the flow, a *replica*, and runs it pass after pass. The consumer's process asks it for
frames of datapoints ahead of need, up to the buffer's size, and a worker does nothing that it was not asked for::

    worker 0: ReplicaTask, ds --(place, rows)--+
                ^                              |
                +--(limit, start)-- Merge <----+---- Merge --> Parts --> consumer
                +--(limit, start)---  |
                v                              |
    worker 1: ReplicaTask, ds --(place, rows)--+

The life of one datapoint:

1.  A request reaches the worker; the first of a pass says where to start and how the flows are numbered.
2.  The replica notes its place and yields the datapoint. It travels with those that come within the same millisecond.
3.  ``Merge`` keeps the frame until its turn: frames come in the order in which they arrive. Each worker's are in order.
4.  When the frame's turn comes, the worker is asked for as many again. The consumer receives its datapoints.

The position is, for each replica, the place noted before the frame delivered last and how many of it were delivered.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from ..base import DataFlow, length
from ..engine.pool import Pool
from ..engine.task import Context, Task
from ..errors import UsageError
from ..passes import Exclusive, Part, Place, Run, Walk, _inside
from ..proxies.repeat import Again
from ..utils import check
from ..utils.parts import Parts
from .feed import MOST, READ_SECONDS


class Start(NamedTuple):
    """Where a replica starts: how its flows are numbered, its place, and how many datapoints to leave out."""

    part: Part
    outer: tuple[int, ...]
    place: Place
    skip: int


class ReplicaTask(Task):
    """Run a flow and answer each request with a frame of it; what the workers of a runner run.

    Args:
        make: returns the replica; called once in each worker.
    """

    def __init__(self, make: Callable[[], DataFlow]) -> None:
        self._make = make

    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Any]:
        ds = _inside(None, self._make)
        try:
            _inside(None, ds.reset_state)
            for limit, start in inbox:
                if start is not None:
                    stream = Stream(ds, start, context)
                yield _inside(None, stream.read, limit)
        finally:
            ds.close()

    def parts(self, message: Any) -> Iterable[tuple[str, Any]]:
        return [("dp", dp) for dp in message[1] or ()]


class Stream:
    """A replica on its way, pass after pass."""

    def __init__(self, ds: DataFlow, start: Start, context: Context) -> None:
        run = Run.of_replica(ds, start.part, (*start.outer, context.worker))
        self._path = start.place["path"]
        self._again = Again(Named(context.stage), ds, run, self._path, start.place)
        self._it = iter(self._again)
        self._error: Exception | None = None
        next(islice(self._it, start.skip, start.skip), None)

    def read(self, limit: int) -> tuple[Place, list[Any]]:
        """Return the place, and up to ``limit`` datapoints from there, fewer if they come slowly.

        Raises:
            Exception: what the flow raised, once the datapoints before it are read.
        """
        if self._error is not None:
            raise self._error
        place = {"path": self._path, **self._again.place()}
        rows: list[Any] = []
        deadline = time.perf_counter() + READ_SECONDS
        try:
            for dp in self._it:
                rows.append(dp)
                if len(rows) == limit or time.perf_counter() > deadline:
                    break
        except Exception as error:
            if not rows:
                raise
            self._error = error
        return place, rows


class Named(DataFlow):
    """Stand for the runner in a worker's messages."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError


class Lines:
    """The workers of a runner, and what each was asked for.

    Args:
        pool: a pool that is started.
        workers: how many workers it has.
        credit: datapoints that each may be ahead of the consumer.
    """

    def __init__(self, pool: Pool, workers: int, credit: int) -> None:
        self.pool = pool
        self.pid = os.getpid()
        self.user: object = None  # the merge whose frames are wanted
        self._most = min(MOST, max(1, credit // 2))
        self._credit = credit
        self._queues: list[deque[tuple[int, object]]] = [deque() for _ in range(workers)]

    def start(self, starts: list[Start]) -> None:
        """Start the replicas anew; frames of before are passed over when they come."""
        self.user = object()
        self.frames: deque[tuple[int, Place, int, list[Any]]] = deque()  # worker, place, skip, rows
        self._limits = [1] * len(starts)
        self._free = [self._credit] * len(starts)
        for worker, start in enumerate(starts):
            self._ask(worker, start)

    def _ask(self, worker: int, start: Start | None = None) -> None:
        """Ask a worker for as much as it may be ahead, in frames that fit its speed."""
        while self._free[worker] >= self._limits[worker]:
            limit = self._limits[worker]
            self._free[worker] -= limit
            self.pool.send(worker, (limit, start))
            self._queues[worker].append((limit, self.user))
            start = None

    def take(self, most: int | None) -> tuple[int, Place, int, list[Any]]:
        """Return the next frame, cut to ``most`` datapoints, once there is one."""
        self._collect(block=False)
        while not self.frames:
            self._collect(block=True)
        worker, place, skip, rows = self.frames.popleft()
        if most is not None and len(rows) > most:
            self.frames.appendleft((worker, place, skip + most, rows[most:]))
            rows = rows[:most]
        self._free[worker] += len(rows)
        self._ask(worker)
        return worker, place, skip, rows

    def _collect(self, block: bool) -> None:
        message = self.pool.receive(block)
        while message is not None:
            worker, (place, rows) = message
            limit, user = self._queues[worker].popleft()
            if user is self.user:
                self.frames.append((worker, place, 0, rows))
                self._free[worker] += limit - len(rows)
                self._limits[worker] = min(2 * limit, self._most) if len(rows) == limit else max(1, len(rows))
                self._ask(worker)
            message = self.pool.receive(block=False)


class Merge:
    """One pass of a runner: ``rows()`` is what comes out, ``place()`` where it stands.

    Args:
        runner: the flow.
        at: where to start.
        run: the run of the graph.
    """

    def __init__(self, runner: Runner, at: Place, run: Run) -> None:
        self._runner = runner
        self._part, self._outer = run.part(runner._replica()), run.replica
        self._size = length(runner)
        self.path: list[int] = at["pass"]
        self._before: int = at.get("n", 0)
        self._loaded: list[Any] | None = at.get("replicas")
        self._user: object = None
        # Of each replica: its place before the frame delivered last, and how many datapoints behind it are delivered.
        self._places: list[list[Any]] = []
        self._current = 0
        self._parts = Parts()

    def rows(self) -> Iterator[Any]:
        """Return the pass; call it once."""
        return self._parts.rows(self._lists())

    def place(self) -> Place:
        """Return where to start to continue behind the datapoint delivered last."""
        places = self.places()
        if places is None:
            return {"pass": self.path}
        return {"pass": self.path, "n": self._before + self._parts.given, "replicas": places}

    def places(self) -> list[list[Any]] | None:
        """Return the places of the replicas; None if they start anew."""
        if not self._places:
            if self._loaded is None and (last := self._runner._last) is not None and self._goes_on_from(last):
                return last.places()
            return self._loaded
        places = [[*pair] for pair in self._places]
        # What is left of the current frame is not delivered.
        places[self._current][1] -= self._parts.left
        return places

    def _goes_on_from(self, last: Merge) -> bool:
        """Say whether the replicas run on from where they were in the pass before."""
        if not last._places:  # put there to continue from
            return last._before in (0, last._size)
        if last._before + last._parts.given != last._size:
            return False  # given up
        # One replica that is told the pass it is in draws what the flow itself would.
        return self._runner._workers > 1 or self.path == _next_pass(last.path)

    def _lists(self) -> Iterator[list[Any]]:
        """Yield the frames; who iterates them uses one up before asking for the next."""
        total = self._before
        if total == self._size:
            return
        try:
            lines = self._start()
            while total != self._size:
                if lines.user is not self._user or self._runner._last is not self:
                    raise UsageError(f"{self._runner!r} was reset while it was iterated; call iter() for a new pass")
                worker, place, skip, rows = lines.take(None if self._size is None else self._size - total)
                total += len(rows)
                self._current = worker
                self._places[worker] = [place, skip + len(rows)]
                yield rows
        except (UsageError, GeneratorExit):
            raise
        except BaseException:  # Ctrl-C too: who knows what the workers are at
            self._runner._last = None
            self._runner._dismiss()
            raise

    def _start(self) -> Lines:
        """Set the replicas going, or let them run on."""
        lines, last, places = self._runner._ready_lines(), self._runner._last, self.places()
        if self._loaded is None and places is not None and last is not None and last._user is lines.user is not None:
            self._places = places
        else:
            self._places = places or [[self._first_place(), 0] for _ in range(self._runner._workers)]
            lines.start([Start(self._part, self._outer, place, skip) for place, skip in self._places])
        self._user, self._runner._last = lines.user, self
        return lines

    def _first_place(self) -> Place:
        """Return where a replica starts that starts anew.

        Its passes bear the numbers that the runner's bear, as far as one can know them, so that one replica draws what
        the flow itself would. A runner without a length is in one endless pass, which repeats the flow.
        """
        return {"path": self.path} if self._size is None else {"path": self.path[:-1], "i": self.path[-1]}


def _next_pass(path: list[int]) -> list[int]:
    return [*path[:-1], path[-1] + 1]


class Runner(DataFlow):
    """Run a flow in workers; base class of the runners.

    Args:
        workers: how many.
        credit: datapoints that each may be ahead of the consumer.
        start_method: how processes start.
        timeout: seconds.
    """

    _transient = (*DataFlow._transient, "_lines", "_last")
    _remote = True
    _carries = True
    _kind: ClassVar[str]
    _lines: Lines | None = None
    # The pass that ran last: whether the next goes on from it, and from where.
    _last: Merge | None = None

    def _prepare(self, workers: int, credit: int, start_method: str | None, timeout: float | None) -> None:
        self._workers = int(workers)
        self._credit = credit
        self.start_method = start_method
        self.timeout = timeout

    def _replica(self) -> DataFlow:
        """Return the flow that runs in the workers, or one like it."""
        raise NotImplementedError

    def _task(self) -> ReplicaTask:
        raise NotImplementedError

    def _complete_reset(self, stamp: int) -> None:
        self._last = None
        self._ready_lines().user = None
        super()._complete_reset(stamp)

    def close(self) -> None:
        super().close()
        self._dismiss()

    def _ready_lines(self) -> Lines:
        """Return the workers, started if they are not there."""
        if self._lines is None or self._lines.pid != os.getpid():
            pool = Pool(
                self._task(), self._workers, kind=self._kind, stage=repr(self), start_method=self.start_method,
                timeout=self.timeout,
            )  # fmt: skip
            pool.start()
            self._lines = Lines(pool, self._workers, self._credit)
        return self._lines

    def _dismiss(self) -> None:
        """End the workers."""
        if self._lines is not None:
            self._lines.pool.close()
            self._lines = None

    def _walk(self, at: Place, run: Run) -> Walk:
        merge = Merge(self, at, run)
        if "replicas" in at:
            if len(at["replicas"]) != self._workers:
                raise UsageError(
                    f"this state is of {len(at['replicas'])} replicas, and {self!r} runs {self._workers}; a position "
                    "among independent copies of a flow needs as many of them as there were"
                )
            self._last = merge
        return Exclusive(self, merge.rows(), run), merge.place
