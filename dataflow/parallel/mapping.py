"""Map a flow in workers that the consumer feeds.

The consumer's process reads the flow and deals frames of datapoints to the workers; each worker has a queue of its own
and answers in the order in which it was asked. Everything but the function runs in the consumer, whenever it asks for
a datapoint; there is no thread that does it meanwhile::

    ds --> Feed --> Dispatch --(key, n, rows)--> worker 0: MapTask, func --> (results, ends, failure, seconds) --+
                      |    `-----(key, n, rows)--> worker 1: MapTask, func --> ...                               |
    consumer <-- Parts <-- delivered in order, or as they come <------------------ Crew.collect <----------------+

The life of one datapoint:

1.  ``Feed.read`` notes the place of ``ds``, reads the datapoint and gives it its number: n = 1, 2, ... in its pass.
2.  With others it travels as one frame: as many as take a worker about 1 ms, fewer if ``ds`` is slow.
3.  ``Dispatch`` sends the frame to the worker with the shortest queue. A queue holds two frames; it is made longer
    when a worker ran dry before the consumer came back, up to ``buffer_size`` datapoints in all.
4.  The worker calls the function, with the generator that belongs to number n if it draws, and answers the frame.
5.  ``Dispatch`` keeps the answer until its turn: the turn of the oldest frame if ordered, else of the first answer.
6.  The consumer receives it. Its frame is forgotten when the whole of it is delivered.

Until then the position is the place noted before the oldest frame, with the numbers behind it that were delivered.
A pass that is given up leaves frames in the queues; their answers are passed over when they come.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from ..base import ProxyDataFlow
from ..engine.pool import Pool
from ..engine.task import Context, Task
from ..errors import UsageError
from ..passes import Exclusive, Key, Place, Run, Walk, _inside, locate
from ..utils import check
from ..utils.parts import Parts
from ..utils.rng import KeyedGenerator, wants_rng
from .failure import Failure
from .feed import Feed, Frame, merged

# A frame is a millisecond of work, so that neither the overhead of a frame (50 us) nor the wait for one is felt.
FRAME_SECONDS = 1e-3
MOST = 64
# Frames that a worker has at first: one that it works on, and one so that it need not wait for the next.
DEPTH = 2
Answer = tuple[list[Any], list[int] | None, Failure | None, float]


class MapTask(Task):
    """Apply a function to the datapoints of each frame; what the workers of a map run."""

    def __init__(self, func: Callable[..., Any], draws: bool) -> None:
        self._func = func
        self._draws = draws

    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Answer]:
        draw, drawn_from = None, None
        for key, n, rows in inbox:
            if self._draws and key != drawn_from:
                seed, spawn_key = drawn_from = key
                draw = KeyedGenerator(np.random.SeedSequence(seed, spawn_key=spawn_key))
            start = time.perf_counter()
            results, ends, failure = _inside(None, self._apply, rows, draw, n)
            yield results, ends, failure, time.perf_counter() - start

    def _apply(
        self, rows: list[Any], draw: KeyedGenerator | None, n: int
    ) -> tuple[list[Any], list[int] | None, Failure | None]:
        """Return the results, how many rows each of them ends, if not one, and what the function raised."""
        results: list[Any] = []
        ends: list[int] | None = None
        for j, dp in enumerate(rows):
            try:
                result = self._func(dp) if draw is None else self._func(dp, rng=draw(n + j + 1))
            except Exception as error:
                return results, ends, Failure(error, j)
            if result is None:
                ends = list(range(1, j + 1)) if ends is None else ends
                continue
            results.append(result)
            if ends is not None:
                ends.append(j + 1)
        return results, ends, None


class Crew:
    """The workers of a map, and the frames that each of them has in hand.

    Args:
        pool: a pool that is started.
        workers: how many workers it has.
        most: datapoints in the largest frame.
    """

    def __init__(self, pool: Pool, workers: int, most: int) -> None:
        self.pool = pool
        self.pid = os.getpid()
        self.user: object = None  # the dispatch whose answers are wanted
        self._queues: list[deque[tuple[Frame, object]]] = [deque() for _ in range(workers)]
        self._depth = DEPTH
        self._most = most
        self.limit = 1

    def free(self) -> int | None:
        """Return the worker with the shortest queue, unless even that is full."""
        worker = min(range(len(self._queues)), key=lambda i: len(self._queues[i]))
        return worker if len(self._queues[worker]) < self._depth else None

    def ran_dry(self) -> None:
        """Make the queues longer if a worker has nothing to do: the consumer was away for longer than they last."""
        if not all(self._queues) and self._depth < self._most * len(self._queues) * DEPTH:
            self._depth *= 2

    def send(self, worker: int, frame: Frame) -> None:
        """Give a frame to a worker; it does not wait."""
        n = frame.place["n"]
        start = time.perf_counter()
        self.pool.send(worker, (frame.key, n, frame.rows), range(n, n + frame.count))
        self._suit(frame.count, time.perf_counter() - start)
        frame.worker = worker
        self._queues[worker].append((frame, self.user))

    def collect(self, block: bool) -> Iterator[Frame]:
        """Yield the frames that were answered, those that nobody waits for any more left out."""
        message = self.pool.receive(block)
        while message is not None:
            worker, (results, ends, failure, seconds) = message
            frame, user = self._queues[worker].popleft()
            frame.answer(results, ends, failure)
            self._suit(frame.count, seconds)
            if user is self.user:
                yield frame
            message = self.pool.receive(block=False)

    def _suit(self, count: int, seconds: float) -> None:
        """Make frames larger or smaller after one of ``count`` datapoints took ``seconds``."""
        if seconds > 2 * FRAME_SECONDS:
            self.limit = max(1, self.limit // 2)
        elif count == self.limit and seconds < FRAME_SECONDS / 2:
            self.limit = min(self.limit * 2, self._most)


class Dispatch:
    """One stream on its way through the workers: ``rows()`` is what comes out, ``place()`` where it stands.

    Args:
        flow: the map.
        feed: what it maps.
    """

    def __init__(self, flow: ParallelMap, feed: Feed) -> None:
        self._flow, self._feed = flow, feed
        self._open: dict[int, Frame] = {}  # sent, and not delivered to the end; in the order in which they were sent
        self._arrived: deque[Frame] = deque()  # answered, in the order in which they are due unless that is theirs
        self._current: Frame | None = None
        self._parts = Parts()
        self._asked = 0  # frames that are not answered
        self._held = 0  # datapoints that are not delivered
        self._failure: Exception | None = None  # of the flow below, or of a datapoint that cannot be sent
        self._broken: Exception | None = None  # of the pool

    def rows(self) -> Iterator[Any]:
        """Return the stream; call it once."""
        return self._parts.rows(self._lists())

    def place(self) -> Place:
        """Return where to start to continue behind the datapoint delivered last."""
        head = next(iter(self._open.values()), None)
        base, at = (self._feed.offset, self._feed.place()) if head is None else (head.first, head.place)
        given = [[start - base, stop - base] for start, stop in merged(self._delivered(base))]
        return {**at, "given": given} if given else {**at}

    def _delivered(self, position: int) -> Iterator[tuple[int, int]]:
        """Yield spans of what is delivered, from the offset ``position`` on."""
        for frame in self._open.values():
            yield position, frame.first
            yield frame.first, frame.first + self._done(frame)
            position = frame.stop
        yield position, self._feed.offset
        for start, stop in self._feed.given:
            yield start, stop

    def _done(self, frame: Frame) -> int:
        """Return how many datapoints of a frame are done with."""
        if frame is self._current and frame.results is not None:
            return frame.covered(len(frame.results) - self._parts.left)
        return frame.done

    def _lists(self) -> Iterator[list[Any]]:
        """Yield the results, frame by frame; who iterates them uses one up before asking for the next."""
        self._crew = self._flow._ready_crew()
        self._crew.user = self._user = object()
        try:
            while (frame := self._next()) is not None:
                self._current = frame
                yield frame.results or []
                self._current = None
                self._close(frame)
                if frame.failure is not None:
                    raise self._located(frame, frame.failure)
        except (Exception, GeneratorExit):
            raise
        except BaseException:  # Ctrl-C: who knows what the workers are at
            self._flow._dismiss()
            raise

    def _close(self, frame: Frame) -> None:
        self._held -= len(frame.results or [])
        del self._open[frame.first]

    def _next(self) -> Frame | None:
        """Return the frame that is to be delivered next, or None at the end; keep the workers busy."""
        if self._crew.user is not self._user:
            raise UsageError(f"{self._flow!r} was reset while it was iterated; call iter() for a new pass")
        if self._asked:
            self._collect(block=False)
        if self._held < self._flow.buffer_size and self._open:
            self._crew.ran_dry()
        fed = 0
        while True:
            ready = self._due()
            # While there is something to deliver, feed just more than is delivered.
            if (not ready or fed < 2) and self._feed_one():
                fed += 1
            elif ready:
                return self._take()
            elif self._broken or not self._asked:
                return self._end()
            else:
                self._collect(block=True)

    def _feed_one(self) -> bool:
        """Send one more frame; return whether there was one, and room for it."""
        room = self._flow.buffer_size - self._held
        worker = self._crew.free()
        if worker is None or room <= 0 or self._failure or self._broken:
            return False
        try:
            frame = self._feed.read(min(self._crew.limit, room))
            if frame is None:
                return False
            self._open[frame.first] = frame
            self._crew.send(worker, frame)
        except Exception as error:
            self._failure = error
            return False
        self._asked += 1
        self._held += frame.count
        return True

    def _collect(self, block: bool) -> None:
        try:
            for frame in self._crew.collect(block):
                self._asked -= 1
                self._held += len(frame.results or []) - frame.count
                self._arrived.append(frame)
        except Exception as error:
            self._broken = error
            self._flow._dismiss()

    def _due(self) -> bool:
        """Say whether a frame is there whose turn it is."""
        if self._flow.ordered:
            return next((frame.results is not None for frame in self._open.values()), False)
        return bool(self._arrived)

    def _take(self) -> Frame:
        if self._flow.ordered:
            frame = next(iter(self._open.values()))
            self._arrived.remove(frame)
            return frame
        return self._arrived.popleft()

    def _end(self) -> None:
        """Raise what kept the stream from its end, if anything did."""
        if error := self._broken or self._failure:
            raise error

    def _located(self, frame: Frame, failure: Failure) -> BaseException:
        """Return what the function raised, with a note that says where."""
        locate(failure.error, self._flow, frame.place["n"] + failure.number)
        return failure.error


class ParallelMap(ProxyDataFlow):
    """Apply a function to each datapoint in workers; base class of the parallel maps."""

    _transient = (*ProxyDataFlow._transient, "_crew", "_kept", "_left_at")
    _kind: ClassVar[str]
    _crew: Crew | None = None
    # What an endless map goes on with in its next pass: the stream, or after close() its place.
    _kept: tuple[Dispatch, Iterator[Any]] | None = None
    _left_at: Place | None = None

    def __init__(
        self, ds: Any, workers: int, map_func: Callable[..., Any], buffer_size: int, strict: bool, ordered: bool,
        start_method: str | None, timeout: float | None,
    ) -> None:  # fmt: skip
        super().__init__(ds)
        check.function(map_func=map_func)
        check.integer(1, buffer_size=buffer_size)
        check.flag(strict=strict, ordered=ordered)
        self.map_func = map_func
        self.buffer_size = int(buffer_size)
        self.strict = strict
        self.ordered = ordered
        self.start_method = start_method
        self.timeout = timeout
        self._workers = int(workers)
        self._random = wants_rng(map_func)
        self._carries = not strict

    def _complete_reset(self, stamp: int) -> None:
        self._kept = self._left_at = None
        self._ready_crew().user = None  # first, so that the workers inherit nothing of what ds opens
        super()._complete_reset(stamp)

    def close(self) -> None:
        super().close()
        if self._kept is not None:
            self._left_at, self._kept = self._kept[0].place(), None
        self._dismiss()

    def _ready_crew(self) -> Crew:
        """Return the workers, started if they are not there."""
        if self._crew is None or self._crew.pid != os.getpid():
            pool = Pool(
                self._task(), self._workers, kind=self._kind, stage=repr(self), start_method=self.start_method,
                timeout=self.timeout,
            )  # fmt: skip
            pool.start()
            self._crew = Crew(pool, self._workers, min(MOST, max(1, self.buffer_size // (DEPTH * self._workers))))
        return self._crew

    def _dismiss(self) -> None:
        """End the workers."""
        if self._crew is not None:
            self._crew.pool.close()
            self._crew = None

    def _task(self) -> Task:
        return MapTask(self.map_func, self._random)

    def _walk(self, at: Place, run: Run) -> Walk:
        path = at["pass"]
        if self.strict:
            dispatch = Dispatch(self, Feed(self.ds, self, run, at, endless=False))
            return Exclusive(self, dispatch.rows(), run), lambda: {"pass": path, **dispatch.place()}
        if self._kept is None or "ds" in at:
            start = at if "ds" in at or self._left_at is None else self._left_at
            dispatch = Dispatch(self, Feed(self.ds, self, run, {**start, "pass": path}, endless=True))
            self._kept, self._left_at = (dispatch, dispatch.rows()), None
        dispatch, it = self._kept

        def rows() -> Iterator[Any]:
            try:
                # Not `yield from`, which would end the kept iterator together with this pass.
                yield from chain(it)
            except GeneratorExit:  # the consumer has left: what is on its way goes on
                raise
            except BaseException:  # Ctrl-C too: a generator that raised is finished
                self._kept = None
                raise

        return Exclusive(self, rows(), run), lambda: {"pass": path, **dispatch.place()}
