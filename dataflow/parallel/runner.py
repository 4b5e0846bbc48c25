"""Run a whole flow in each of several workers, and merge what they yield.

Each worker has its own copy of the flow, a *replica*, and runs it pass after pass. The consumer's process asks it for
frames of datapoints ahead of need, up to the buffer's size, and a worker does nothing that it was not asked for::

           +-----------(limit, start)------------+
           v                                     |
    worker 0: ReplicaTask, ds --(place, rows)--> Lines --> Merge --> Parts --> consumer
    worker 1: ReplicaTask, ds --(place, rows)--> Lines
           ^                                     |
           +-----------(limit, start)------------+

The life of one datapoint:

1.  A request reaches the worker; the first of a pass says where to start and how the flows are numbered.
2.  The replica notes its place and yields the datapoint. It travels with those that come within the same 4 ms.
3.  ``Lines`` keeps the frame until it is due: frames are due as they arrive, and each worker's arrive in order.
4.  When it is due the worker is asked for as many again. ``Merge`` delivers its datapoints to the consumer.

The position is, for each replica, the place noted before the frame delivered last, and how many behind it were
delivered. A pass that is given up leaves requests; the frames that answer them are passed over.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, ClassVar

from ..base import DataFlow, length
from ..engine import Pool
from ..errors import UsageError
from ..passes import Exclusive, Part, Place, Run, Walk, graph, lost
from ..utils.gauge import Gauge
from ..utils.parts import Parts
from .failure import started
from .feed import MOST, weakly
from .replicas import ReplicaTask, Rows, Start

# What a worker may be ahead of the consumer in any case, and for as long as that is no more than so many bytes: the
# few blocks of memory that are in use then stay in the cache of the processor.
LEAST_AHEAD = 3
AHEAD_BYTES = 24 << 20
# Requests that a worker has in hand while it is not known yet how large its frames can be: if it is fast, it would be
# asked for all that it may be ahead in frames of one or two.
AT_FIRST = 3


class Lines:
    """The workers of a runner, and what each was asked for.

    Args:
        pool: a pool that is started.
        credit: datapoints that each worker may be ahead of the consumer.
    """

    def __init__(self, pool: Pool, credit: int) -> None:
        self.pool = pool
        me = weakref.ref(self)  # the pool must go when this goes
        pool.again = lambda worker, messages: lines._again(worker, messages) if (lines := me()) else messages
        pool.forget = weakly(self.forget)
        self.pid = os.getpid()
        self.gauge = Gauge(credit * pool.workers)
        self.stream = 0  # the number of the stream whose frames are wanted; 0 is none
        self._streams = count(1)
        self._reset = False  # whether the replicas are to be reset
        self._credit = credit
        self._most = min(MOST, max(1, credit // 2))
        self._asked: list[deque[tuple[int, int]]] = [deque() for _ in range(pool.workers)]
        self._frames: deque[tuple[int, Rows]] = deque()
        self._ready = 0  # datapoints in these
        self._limits: list[int] = []
        self._is_known: list[bool] = []  # whether the limit has stopped to grow
        self._in_hand: list[int] = []  # requests of this stream that are not answered
        self._free: list[int] = []
        self._kept_back: list[int] = []  # of what is free: what would be too many bytes
        self._starts: list[Start] = []  # what would make the replicas go on from where they have answered last
        self._lost: set[int] = set()  # replicas that have to be told so when they are asked next
        self._broken: Exception | None = None  # raised when all that came before it is delivered

    def reset(self) -> None:
        """Reset the replicas, unless they have not run since they were."""
        self._reset = self._reset or self.stream > 0
        self.stream = 0

    def start(self, part: Part, outer: tuple[int, ...], places: list[list[Any]]) -> None:
        """Start every replica anew; what is on its way from before is passed over when it comes."""
        self.stream = next(self._streams)
        self._frames.clear()
        self._ready = 0
        self._limits = [1] * len(places)
        self._is_known = [False] * len(places)
        self._in_hand = [0] * len(places)
        self._free = [self._credit] * len(places)
        self._kept_back = [max(self._credit - LEAST_AHEAD, 0)] * len(places)  # until its size is known
        self._starts = [Start(part, outer, place, skip, False) for place, skip in places]
        self._lost.clear()
        for worker, start in enumerate(self._starts):
            self._ask(worker, start._replace(reset=self._reset))
        self._reset = False

    def take(self, most: int | None) -> tuple[int, Rows]:
        """Return the next frame and its worker, cut to ``most`` datapoints; ask for as many more."""
        self._collect(block=False)
        self.gauge.visit(self._ready)
        while not self._frames:
            if self._broken:
                raise self._broken
            start = time.perf_counter()
            self._collect(block=True)
            self.gauge.waited_since(start)
        worker, frame = self._frames.popleft()
        if most is not None and len(frame.rows) > most:
            self._frames.appendleft((worker, Rows(frame.place, frame.skip + most, frame.rows[most:])))
            frame = frame._replace(rows=frame.rows[:most])
        self._ready -= len(frame.rows)
        self._free[worker] += len(frame.rows)
        self._ask(worker)
        return worker, frame

    def _ask(self, worker: int, start: Start | None = None) -> None:
        """Ask a worker for as much as it may be ahead, in frames that suit its speed."""
        limit = min(self._limits[worker], self._credit - self._kept_back[worker])
        while (
            self._free[worker] - self._kept_back[worker] >= limit
            and (self._is_known[worker] or self._in_hand[worker] < AT_FIRST)
            and not self._broken
        ):
            if worker in self._lost:
                self._lost.discard(worker)
                start = self._starts[worker]
            self.pool.send(worker, (limit, start), slow=start is not None)
            self._asked[worker].append((limit, self.stream))
            self._in_hand[worker] += 1
            self._free[worker] -= limit
            start = None

    def _collect(self, block: bool) -> None:
        """Take in frames, after a wait for at least one if ``block``, and ask for what they leave free."""
        try:
            while not self._broken and (message := self.pool.receive(block)) is not None:
                worker, frame = message
                limit, stream = self._asked[worker].popleft()
                if stream == self.stream:
                    self._in_hand[worker] -= 1
                    count = len(frame.rows)
                    most = AHEAD_BYTES * count // max(self.pool.received_bytes, 1)
                    self._kept_back[worker] = max(self._credit - max(most, LEAST_AHEAD), 0)
                    self._starts[worker] = self._starts[worker]._replace(place=frame.place, skip=frame.skip + count)
                    self._frames.append((worker, frame))
                    self._ready += count
                    self._free[worker] += limit - count
                    self._is_known[worker] = self._is_known[worker] or count < limit or limit == self._most
                    self._limits[worker] = min(2 * limit, self._most) if count == limit else max(1, count)
                    self._ask(worker)
                block = False
        except Exception as error:
            self._broken = error

    def forget(self) -> None:
        """Let go of what is not delivered."""
        self._frames.clear()

    def _again(self, worker: int, messages: list[Any]) -> list[Any]:
        """Return what a new worker is asked that stands for a dead one, which has not answered ``messages``."""
        if not self.stream or any(start is not None for _, start in messages):
            return messages
        if not messages:
            self._lost.add(worker)
            return []
        (limit, _), *rest = messages
        return [(limit, self._starts[worker]), *rest]


class Merge:
    """One pass of a runner: ``rows()`` is what comes out, ``place()`` where it stands.

    Args:
        runner: the flow.
        at: where to start.
        run: the run of the graph.
    """

    def __init__(self, runner: Runner, at: Place, run: Run) -> None:
        self._runner = weakref.ref(runner)  # which keeps its last pass: a cycle would keep the workers
        self._part, self._outer = run.part(runner._replica()), run.replica
        self._size, self._workers = length(runner), runner._workers
        flows = graph(runner._replica())
        self._carries = any(flow._carries for flow in flows)
        # A runner inside of this one that merges copies: nobody can tell the order in which they come.
        self._unordered = next((repr(flow) for flow in flows if flow._remote and flow._unordered), "")
        self.path: list[int] = at["pass"]
        self._before: int = at.get("n", 0)
        self._loaded: list[Any] | None = at.get("replicas")
        self._stream = -1
        # Of each replica: its place before the frame delivered last, and how many datapoints behind it are delivered.
        self._places: list[list[Any]] = []
        self._current = 0
        self._parts = Parts()

    def rows(self) -> Iterator[Any]:
        """Return the pass; call it once."""
        return self._parts.rows(self._lists())

    def place(self) -> Place:
        """Return where to start to continue behind the datapoint delivered last."""
        if self._unordered:
            return lost(self.path, f"{self._unordered} in a runner has no fixed order. Use one worker in it")
        places = self.places()
        if places is None:
            return {"pass": self.path}
        return {"pass": self.path, "n": self._before + self._parts.given, "replicas": places}

    def places(self) -> list[list[Any]] | None:
        """Return the places of the replicas; None if they start anew."""
        if not self._places:
            runner = self._runner()
            last = None if runner is None else runner._last
            if self._loaded is not None or last is None:
                return self._loaded and [[*pair] for pair in self._loaded]
            if self._goes_on_from(last):
                return last.places()
            return self._after(last) if self._carries else None
        places = [[*pair] for pair in self._places]
        # What is left of the current frame is not delivered.
        places[self._current][1] -= self._parts.left
        return places

    def _goes_on_from(self, last: Merge) -> bool:
        """Say whether the replicas run on from where they were in the pass before."""
        if not last._places and last._before == 0:  # put there to continue from
            return True
        if last._before + last._parts.given != last._size:
            return False  # given up
        # One replica that is told the pass it is in draws what the flow itself would.
        return self._workers > 1 or self.path == [*last.path[:-1], last.path[-1] + 1]

    def _lists(self) -> Iterator[list[Any]]:
        """Yield the frames; who iterates them uses one up before asking for the next."""
        runner, total = self._runner(), self._before
        if runner is None or total == self._size:
            return
        lines = self._start(runner)
        while total != self._size:
            if lines.stream != self._stream or runner._last is not self:
                raise UsageError(f"{runner!r} was reset while it was iterated; call iter() for a new pass")
            try:
                worker, frame = lines.take(None if self._size is None else self._size - total)
            except BaseException:  # Ctrl-C too: nobody knows what was half done
                runner._last = None
                lines.forget()  # whoever keeps the error keeps this
                runner._dismiss()
                raise
            total += len(frame.rows)
            self._current = worker
            self._places[worker] = [frame.place, frame.skip + len(frame.rows)]
            yield frame.rows

    def _start(self, runner: Runner) -> Lines:
        """Set the replicas going, or let them run on.

        Raises:
            UsageError: if dead workers are to be replaced, and the new ones could not go back to where those were.
        """
        if runner.restarts and self._unordered:
            raise UsageError(
                f"{runner!r} cannot restart a worker: {self._unordered} in it has no fixed order. Use one worker in "
                "that, or restarts=0"
            )
        lines, last = runner._ready(), runner._last
        self._places = self.places() or [[self._first(), 0] for _ in range(self._workers)]
        if self._loaded is not None or last is None or last._stream != lines.stream or not self._goes_on_from(last):
            lines.start(self._part, self._outer, self._places)
        self._stream, runner._last = lines.stream, self
        return lines

    def _after(self, last: Merge) -> list[list[Any]] | None:
        """Return the places of replicas that start anew, after they gave up what they did before."""
        return [[{**self._first(), **_left(place, skip)}, 0] for place, skip in last.places() or ()] or None

    def _first(self) -> Place:
        """Return where a replica starts that starts anew.

        Its passes bear the numbers that the runner's bear, as far as one can know them, so that one replica draws what
        the flow itself would. A runner without a length is in one endless pass, which repeats the flow.
        """
        return {"path": self.path} if self._size is None else {"path": self.path[:-1], "i": self.path[-1]}


def _left(place: Place, skip: int) -> Place:
    """Return what a replica that was given up at ``place`` adds to the place where it starts anew."""
    if "ds" in place:
        return {"after": [place, skip]}
    return {"after": place["after"]} if "after" in place else {}  # it has not moved


class Runner(DataFlow):
    """Run a flow in workers; base class of the runners.

    Args:
        workers: how many.
        credit: datapoints that each may be ahead of the consumer.
        start_method: how processes start.
        timeout: seconds that a worker may be silent.
        restarts: how many dead workers are replaced.
    """

    _transient = (*DataFlow._transient, "_lines", "_last", "_gauge")
    _remote = True
    _carries = True
    _kind: ClassVar[str]
    _lines: Lines | None = None
    # The pass that ran last: the next one may go on from where it ended.
    _last: Merge | None = None

    def __init__(
        self, workers: int, credit: int, start_method: str | None, timeout: float | None, restarts: int = 0
    ) -> None:
        self.start_method = start_method
        self.timeout = timeout
        self.restarts = restarts
        self._workers = int(workers)
        self._credit = int(credit)
        self._unordered = self._workers > 1
        self._pool()  # checks the rest

    def _pool(self) -> Pool:
        return Pool(
            ReplicaTask(self._make), self._workers, kind=self._kind, stage=repr(self), start_method=self.start_method,
            timeout=self.timeout, restarts=self.restarts,
        )  # fmt: skip

    @property
    def _make(self) -> Callable[[], DataFlow]:
        """The function that returns a replica."""
        raise NotImplementedError

    def _replica(self) -> DataFlow:
        """Return a flow like those in the workers."""
        raise NotImplementedError

    def _ready(self) -> Lines:
        """Return the workers, started unless they run."""
        if self._lines is None or self._lines.pid != os.getpid() or self._lines.pool.closed:
            self._lines = Lines(self._started(self._pool()), self._credit)
            self._gauge = self._lines.gauge
        return self._lines

    def _started(self, pool: Pool) -> Pool:
        return started(pool, self)

    def _dismiss(self) -> None:
        """End the workers."""
        if self._lines is not None:
            self._lines.pool.close()
            self._lines = None

    def _complete_reset(self, stamp: int) -> None:
        self._last = None
        self._ready().reset()
        super()._complete_reset(stamp)

    def close(self) -> None:
        super().close()
        self._dismiss()

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
