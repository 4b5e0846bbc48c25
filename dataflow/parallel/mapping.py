"""Map a flow in workers that the consumer feeds.

The consumer's process reads the flow and deals frames of datapoints to the workers. Each worker has a queue of its own
and answers in the order in which it was asked. Everything but the function runs in the consumer, when it asks for a
datapoint; there is no thread that does it meanwhile::

    ds --> Feed --> Dispatch --> Queues --(key, n, rows)--> worker 0: MapTask, func --(results, ends, failure)--+
                                    |                                                                           |
                                    +-----(key, n, rows)--> worker 1: MapTask, func --(results, ends, failure)--+
                                                                                                                |
    consumer <-- Parts <-- Dispatch: in order, or as they come <-- Queues <-------------------------------------+

The life of one datapoint:

1.  ``Feed.read`` notes the place of ``ds``, reads the datapoint and gives it its number: n = 1, 2, ... in its pass.
2.  With others it makes a frame: as many as are a millisecond of work, fewer where ``ds`` is slow.
3.  ``Dispatch`` sends the frame to the worker with the shortest queue. A queue holds two frames at first, and more if
    the worker was idle before the consumer came back; all together hold ``buffer_size`` datapoints at most.
4.  The worker calls the function, with the generator of sample n if it draws, and answers the frame.
5.  ``Dispatch`` keeps the answer until its turn comes: that of the oldest frame if ordered, else that of any.
6.  The consumer receives it. Its frame is forgotten when the whole of it is delivered.

The position is the place before the oldest frame that is not forgotten, with the spans behind it that are delivered.
A pass that is given up leaves frames in the queues; their answers are passed over when they come.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from ..base import ProxyDataFlow
from ..engine import Context, Pool, Task
from ..errors import UsageError
from ..passes import Exclusive, Key, Place, Run, Walk, _inside
from ..utils import check
from ..utils.parts import Parts
from ..utils.rng import KeyedGenerator, wants_rng
from .failure import Failure
from .feed import MOST, Answer, Feed, Frame, merged

# A frame is a millisecond of work, so that neither the overhead of a frame (50 us) nor the wait for one is felt.
FRAME_SECONDS = 1e-3
# Frames that a worker has at first: one that it works on, and one so that it need not wait for the next.
DEPTH = 2


class MapTask(Task):
    """Apply a function to the datapoints of each frame; what the workers of a map run.

    Args:
        func: the function.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func

    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Answer]:
        draws = Draws()
        for key, n, rows in inbox:
            start = time.perf_counter()
            results, ends, failure = _inside(None, self._results, rows, n, draws.of(key), context)
            yield Answer(results, ends, failure, time.perf_counter() - start)

    def parts(self, message: Any) -> Iterable[tuple[str, Any]]:
        rows = message.results if isinstance(message, Answer) else message[2]
        return [("dp", dp) for dp in rows]

    def _results(
        self, rows: list[Any], n: int, draw: KeyedGenerator | None, context: Context
    ) -> tuple[list[Any], list[int], Failure | None]:
        """Apply the function until it raises, and drop where it returns None."""
        results: list[Any] = []
        ends: list[int] = []
        for j, dp in enumerate(rows, 1):
            try:
                result = self._func(dp) if draw is None else self._func(dp, rng=draw(n + j))
            except Exception as error:
                context.note(error, n + j - 1)
                return results, ends, Failure(error)
            if result is not None:
                results.append(result)
                ends.append(j)
        return results, ends, None


class Draws:
    """The streams of samples that one worker draws from, pass after pass."""

    def __init__(self) -> None:
        self._key: Key | None = None
        self._draw: KeyedGenerator | None = None

    def of(self, key: Key | None) -> KeyedGenerator | None:
        """Return the streams of ``key``, or None for a function that draws nothing."""
        if key is not None and key != self._key:
            seed, spawn_key = self._key = key
            self._draw = KeyedGenerator(np.random.SeedSequence(seed, spawn_key=spawn_key))
        return self._draw


class Queues:
    """The workers of a map, and the frames that each has in hand.

    Args:
        pool: a pool that is started.
        buffer_size: datapoints that all together may have in hand.
    """

    def __init__(self, pool: Pool, buffer_size: int) -> None:
        self.pool = pool
        self.pid = os.getpid()
        self.stream = 0  # the number of the stream whose answers are wanted
        self.limit = 1  # datapoints in the next frame
        self._most = min(MOST, max(1, buffer_size // (DEPTH * pool.workers)))
        self._deepest = buffer_size
        self._depths = [DEPTH] * pool.workers
        self._frames: list[deque[tuple[Frame, int]]] = [deque() for _ in range(pool.workers)]

    def begin(self) -> int:
        """Begin a new stream, and return its number."""
        self.stream += 1
        return self.stream

    def free(self) -> int | None:
        """Return the worker that has least in hand, of those that have not enough; None if all have."""
        lengths = [*map(len, self._frames)]
        free = [worker for worker, depth in enumerate(self._depths) if lengths[worker] < depth]
        return min(free, key=lengths.__getitem__) if free and not self.pool.full else None

    def idle(self) -> None:
        """Make the queues longer of workers that have nothing left: theirs must last until the consumer comes back."""
        for worker, frames in enumerate(self._frames):
            if not frames:
                self._depths[worker] = min(2 * self._depths[worker], self._deepest)

    def send(self, worker: int, frame: Frame, message: Any) -> None:
        """Send a frame to a worker, without waiting."""
        n = frame.place["n"]
        start = time.perf_counter()
        self.pool.send(worker, message, range(n, n + frame.count))
        frame.seconds = time.perf_counter() - start
        frame.worker = worker
        self._frames[worker].append((frame, self.stream))

    def collect(self, block: bool) -> Iterator[Frame]:
        """Yield frames that were answered, without those that nobody wants any more."""
        message = self.pool.receive(block)
        while message is not None:
            worker, answer = message
            frame, stream = self._frames[worker].popleft()
            frame.answer, frame.answered, frame.rows = answer, True, []
            self._fit(frame)
            if stream == self.stream:
                yield frame
            message = self.pool.receive(block=False)

    def _fit(self, frame: Frame) -> None:
        """Make frames smaller or larger by the time that one took."""
        seconds = frame.seconds + frame.answer.seconds
        if seconds > 2 * FRAME_SECONDS:
            self.limit = max(1, self.limit // 2)
        elif frame.count == self.limit and seconds < FRAME_SECONDS / 2:
            self.limit = min(2 * self.limit, self._most)


class Dispatch:
    """One stream on its way through the workers: ``rows()`` is what comes out, ``place()`` where it stands.

    Args:
        flow: the map.
        feed: what it maps.
    """

    weight = 1  # datapoints that a result counts for in the buffer

    def __init__(self, flow: ParallelMap, feed: Feed) -> None:
        self._flow, self._feed = flow, feed
        self._open: dict[int, Frame] = {}  # sent, and not delivered to the end; by offset, oldest first
        self._answered: deque[Frame] = deque()  # what is to be delivered as it came
        self._current: Frame | None = None  # what is being delivered
        self._parts = Parts()
        self._asked = 0  # frames in the workers' hands
        self._held = 0  # datapoints in them, and results that are not delivered
        self._failure: Exception | None = None  # of ds, or of a datapoint that cannot be sent
        self._broken: Exception | None = None  # of the workers

    def rows(self) -> Iterator[Any]:
        """Return the stream; call it once."""
        return self._parts.rows(self._lists())

    def place(self) -> Place:
        """Return where to start to continue behind the datapoint delivered last."""
        head = next(iter(self._open.values()), None)
        base, at = (self._feed.offset, self._feed.place()) if head is None else (head.first, head.place)
        given = [[start - base, stop - base] for start, stop in merged(self._delivered(base))]
        return {**at, "given": given} if given else {**at}

    def _delivered(self, offset: int) -> Iterator[tuple[int, int]]:
        """Yield the spans of offsets that are done with, from ``offset`` on."""
        for frame in self._open.values():
            yield offset, frame.first  # a frame that was here is forgotten
            yield frame.first, frame.first + self._done(frame)
            offset = frame.stop
        yield offset, self._feed.offset
        for start, stop in self._feed.given:
            yield max(start, self._feed.offset), stop

    def _done(self, frame: Frame) -> int:
        """Return how many datapoints of a frame are done with."""
        if frame is self._current and (given := len(frame.answer.results) - self._parts.left):
            return frame.answer.ends[given - 1]
        return 0

    def _lists(self) -> Iterator[list[Any]]:
        """Yield the results of one frame after another; who iterates them uses one list up before the next."""
        self._queues = self._flow._ready()
        self._stream = self._queues.begin()
        try:
            while (frame := self._next()) is not None:
                self._current = frame
                yield frame.answer.results
                self._current = None
                self._held -= self.weight * len(frame.answer.results)
                self._forget(frame)
                if frame.answer.failure is not None:
                    raise frame.answer.failure.error
            yield from self._rest()
        except (Exception, GeneratorExit):
            raise
        except BaseException:  # Ctrl-C: nobody knows what was half done
            self._flow._dismiss()
            raise

    def _forget(self, frame: Frame) -> None:
        """Let go of what is delivered."""
        del self._open[frame.first]

    def _rest(self) -> Iterator[list[Any]]:
        """Yield what the workers have kept back, if they do that."""
        yield from ()

    def _next(self) -> Frame | None:
        """Return the frame that is to be delivered next, None at the end, and keep the workers busy."""
        if self._queues.stream != self._stream:
            raise UsageError(f"{self._flow!r} was reset while it was iterated; call iter() for a new pass")
        if self._asked:
            self._collect(block=False)
        if self._feed.offset and self._has_room():
            self._queues.idle()
        fed = 0
        while True:
            due = self._due()
            # More is sent than is delivered, but a slow flow does not hold up what is there.
            if (due is None or fed < 2) and self._feed_one():
                fed += 1
                self._collect(block=False)
            elif due is not None:
                self._answered.remove(due)
                return due
            elif error := self._broken or (self._failure if not self._asked else None):
                raise error
            elif self._feed.ended and not self._asked:
                return None
            else:
                self._collect(block=True)

    def _due(self) -> Frame | None:
        """Return the frame whose turn it is, if it is there."""
        if self._flow.ordered:
            head = next(iter(self._open.values()), None)
            return head if head is not None and head.answered else None
        return self._answered[0] if self._answered else None

    def _has_room(self) -> bool:
        return not (self._feed.ended or self._failure or self._broken) and self._held < self._flow.buffer_size

    def _feed_one(self) -> bool:
        """Send a frame, if there is one and somebody has room for it."""
        if not self._has_room() or (worker := self._queues.free()) is None:
            return False
        try:
            frame = self._feed.read(min(self._queues.limit, self._flow.buffer_size - self._held))
            if frame is None:
                return False
            self._open[frame.first] = frame
            self._queues.send(worker, frame, self._message(frame))
        except Exception as error:  # raised when all that came before is delivered
            self._failure = error
            return False
        self._asked += 1
        self._held += frame.count
        return True

    def _message(self, frame: Frame) -> Any:
        return frame.key, frame.place["n"], frame.rows

    def _collect(self, block: bool) -> None:
        """Take in answers, after a wait for at least one if ``block``."""
        if self._broken is not None:  # the workers are gone, and what they said last is taken in
            return
        try:
            for frame in self._queues.collect(block):
                self._asked -= 1
                self._held += self.weight * len(frame.answer.results) - frame.count
                self._answered.append(frame)
        except Exception as error:  # raised when all that is there is delivered
            self._broken = error
            self._flow._dismiss()


class ParallelMap(ProxyDataFlow):
    """Apply a function to each datapoint in workers; base class of the parallel maps.

    Args:
        ds: flow of lists or dicts.
        workers: how many.
        map_func: datapoint -> datapoint | None.
        buffer_size: datapoints on their way.
        strict: one pass; else pass after pass without end.
        ordered: in the order of ``ds``.
        start_method: how processes start.
        timeout: seconds that a worker may be silent.
    """

    _transient = (*ProxyDataFlow._transient, "_queues", "_kept", "_left_at")
    _kind: ClassVar[str]
    _queues: Queues | None = None
    # What an endless map goes on with in its next pass: the stream, or its place if the workers have gone.
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
        self._unordered = not ordered and self._workers > 1
        self._pool()  # checks the rest

    def _pool(self) -> Pool:
        return Pool(
            self._task(), self._workers, kind=self._kind, stage=repr(self), start_method=self.start_method,
            timeout=self.timeout,
        )  # fmt: skip

    def _task(self) -> Task:
        return MapTask(self.map_func)

    def _ready(self) -> Queues:
        """Return the workers, started unless they run."""
        if self._queues is None or self._queues.pid != os.getpid():
            pool = self._pool()
            pool.start()
            self._queues = Queues(pool, self.buffer_size)
        return self._queues

    def _dismiss(self) -> None:
        """End the workers."""
        if self._queues is not None:
            self._queues.pool.close()
            self._queues = None

    def _complete_reset(self, stamp: int) -> None:
        self._kept = self._left_at = None
        self._ready().begin()  # before ds opens anything that they would inherit
        super()._complete_reset(stamp)

    def close(self) -> None:
        super().close()
        if self._kept is not None:
            self._left_at, self._kept = self._kept[0].place(), None
        self._dismiss()

    def _walk(self, at: Place, run: Run) -> Walk:
        path = at["pass"]
        if self.strict:
            dispatch = self._dispatch(Feed(self.ds, self, run, at, endless=False))
            return Exclusive(self, dispatch.rows(), run), lambda: {"pass": path, **dispatch.place()}
        if self._kept is None or "ds" in at:
            start = at if "ds" in at else {**(self._left_at or {}), "pass": path}
            dispatch = self._dispatch(Feed(self.ds, self, run, start, endless=True))
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

    def _dispatch(self, feed: Feed) -> Dispatch:
        return Dispatch(self, feed)
