"""Map a flow in workers that the consumer feeds.

The consumer's process reads the flow and deals frames of datapoints to the workers. Each worker has a queue of its own
and answers in the order in which it was asked. Everything but the function runs in the consumer, when it asks for a
datapoint; there is no thread that does it meanwhile::

    ds --> Feed --> Dispatch --> Queues --(key, n, rows)--> worker 0: MapTask, func --(results, ends, failure)--+
                                    |                                                                           |
                                    +-----(key, n, rows)--> worker 1: MapTask, func --(results, ends, failure)--+
                                                                                                                |
    consumer <-- chain <-- Dispatch: in order, or as they come <-- Queues <-------------------------------------+

The life of one datapoint:

1.  ``Feed.read`` notes the place of ``ds``, reads the datapoint and gives it its number: n = 1, 2, ... in its pass.
2.  With others it makes a frame: as many as are 4 ms of work, fewer where ``ds`` is slow.
3.  ``Dispatch`` sends the frame to the worker with the shortest queue. A queue holds two frames at first, and more if
    the worker was idle before the consumer came back; all together hold ``buffer_size`` datapoints at most.
    Nothing is sent while the results that wait for the consumer, or will, take ``Pool.buffer_bytes``.
4.  The worker calls the function, with the generator of sample n if it draws, and answers the frame.
5.  ``Dispatch`` keeps the answer until its turn comes: that of the oldest frame if ordered, else that of any.
6.  The consumer receives it. Its frame is closed when the whole of it is delivered.

The position is the place before the oldest frame that is open, with the spans behind it that are delivered; feed.py.
A pass that is given up leaves frames in the queues; their answers are passed over when they come, and if a worker falls
over one of them, new workers take over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from ..base import ProxyDataFlow
from ..engine import Context, Pool, Task
from ..passes import Exclusive, Key, Place, Run, Walk, _inside, goes_back
from ..policies import ErrorPolicy, Forgiving, Settled, Trial, checked, settled
from ..utils import check
from ..utils.rng import KeyedGenerator, wants_rng
from ..utils.row_list import RowList
from .dispatch import Dispatch, Queues
from .failure import failed, started
from .feed import Answer, Feed


class MapTask(Task):
    """Apply a function to the datapoints of each frame; what the workers of a map run.

    Args:
        func: the function.
        on_error: what to do where it raises; None raises.
    """

    def __init__(self, func: Callable[..., Any], on_error: ErrorPolicy | None) -> None:
        self.map_func = func  # named as the user knows them, for the error where one cannot be sent to a process
        self.on_error = on_error

    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Answer]:
        # A loop would keep what it has answered until it is asked again.
        return map(partial(self._answer, Draws(), context), inbox)

    def _answer(self, draws: Draws, context: Context, message: tuple[Any, ...]) -> Answer:
        start = time.perf_counter()
        key, n, rows = message
        answer: Answer = _inside(None, self._results, rows, n, draws.of(key), context)
        return answer._replace(seconds=time.perf_counter() - start)

    def parts(self, message: Any) -> Iterable[tuple[str, Any]]:
        rows = message.results if isinstance(message, Answer) else message[2]
        return [("dp", dp) for dp in rows]

    def _results(self, rows: list[Any], n: int, draw: KeyedGenerator | None, context: Context) -> Answer:
        """Apply the function until it raises, and drop where it returns None."""
        results = RowList()
        ends: list[int] = []
        fates: list[Settled] = []
        lost = 0
        for j, dp in enumerate(context.each(rows), 1):
            try:
                result = self.map_func(dp) if draw is None else self.map_func(dp, rng=draw(n + j))
            except Exception as error:
                if self.on_error is None:
                    return Answer(results, ends, failed(error, context, n + j - 1))
                trial = Trial(dp, n + j - 1, partial(self._again, dp, draw, n + j, context), context.sleep)
                try:
                    result, fate = settled(self.on_error, error, trial)
                except Exception as unsettled:
                    return Answer(results, ends, failed(unsettled, context, n + j - 1), fates)
                fates.append(fate)
                lost += fate.fate != "retried"
                if self.on_error.at_most is not None and lost > self.on_error.at_most:
                    return Answer(results, ends, None, fates)  # the consumer raises TooManyErrors
            if result is not None:
                results.append(result)
                ends.append(j)
        return Answer(results, ends, None, fates)

    def _again(self, dp: Any, draw: KeyedGenerator | None, number: int, context: Context) -> Any:
        """Apply the function to a datapoint once more."""
        if context.alive is not None:
            context.alive()
        return self.map_func(dp) if draw is None else self.map_func(dp, rng=draw(number))


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


class ParallelMap(Forgiving, ProxyDataFlow):
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
        restarts: how many dead workers are replaced.
        on_error: what to do where ``map_func`` raises; None raises.
    """

    _transient = (*ProxyDataFlow._transient, "_queues", "_kept", "_left_at", "_gauge", "_report")
    _kind: ClassVar[str]
    _replays = True
    _queues: Queues | None = None
    # What an endless map goes on with in its next pass: the stream, or its place if the workers have gone.
    _kept: tuple[Dispatch, Iterator[Any]] | None = None
    _left_at: Place | None = None

    def __init__(
        self, ds: Any, workers: int, map_func: Callable[..., Any], buffer_size: int, strict: bool, ordered: bool,
        start_method: str | None, timeout: float | None, restarts: int, on_error: ErrorPolicy | None,
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
        self.restarts = restarts
        self.on_error = checked(on_error)
        self._workers = int(workers)
        self._random = wants_rng(map_func)
        self._carries = not strict
        self._unordered = not self._keeps_order and self._workers > 1
        self._pool()  # checks the rest

    @property
    def _state_name(self) -> str:
        # A position among the same datapoints, whoever maps them; endless ones are numbered otherwise.
        return "MapData" if self.strict else "MapData(strict=False)"

    def _pool(self) -> Pool:
        return Pool(
            self._task(), self._workers, kind=self._kind, stage=repr(self), start_method=self.start_method,
            timeout=self.timeout, restarts=self.restarts,
        )  # fmt: skip

    def _task(self) -> Task:
        return MapTask(self.map_func, self.on_error)

    def _ready(self) -> Queues:
        """Return the workers, started unless they run."""
        if self._queues is None or self._queues.pid != os.getpid() or self._queues.pool.closed:
            self._queues = Queues(started(self._pool(), self), self.buffer_size)
            self._gauge = self._queues.gauge
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
        self._leave()
        self._dismiss()

    def _leave(self) -> None:
        """Let go of the stream that an endless map goes on with, and keep its place."""
        if self._kept is not None:
            place = self._kept[0].place()
            self._left_at, self._kept = place if goes_back(place) else None, None

    def _walk(self, at: Place, run: Run) -> Walk:
        path, ordered = at["pass"], self._in_order(run)
        if self.strict:
            dispatch = self._dispatch(Feed(self.ds, self, run, at, endless=False), ordered)
            return Exclusive(self, dispatch.rows(), run), lambda: {"pass": path, **dispatch.place()}
        if self._kept is None or "ds" in at:
            start = at if "ds" in at else {**(self._left_at or {}), "pass": path}
            dispatch = self._dispatch(Feed(self.ds, self, run, start, endless=True), ordered)
            self._kept, self._left_at = (dispatch, dispatch.rows()), None
        dispatch, it = self._kept

        def rows() -> Iterator[Any]:
            try:
                # Not `yield from`, which would end the kept iterator together with this pass.
                yield from chain(it)
            except GeneratorExit:  # the consumer has left: what is on its way goes on
                raise
            except BaseException:  # Ctrl-C too: a generator that raised is finished
                if self._kept is not None and self._kept[0] is dispatch:
                    self._leave()
                raise

        return Exclusive(self, rows(), run), lambda: {"pass": path, **dispatch.place()}

    @property
    def _keeps_order(self) -> bool:
        return self.ordered

    def _in_order(self, run: Run) -> bool:
        return self._keeps_order or run.keeps_order(self)

    def _dispatch(self, feed: Feed, ordered: bool) -> Dispatch:
        return Dispatch(self, feed, ordered)
