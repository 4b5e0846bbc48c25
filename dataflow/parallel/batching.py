"""Map a flow in workers that also stack what they make into batches.

A worker keeps what does not fill a batch until its next frame. At the end the consumer asks for what is left over, and
stacks that itself, so a pass is the full batches of one pass of ``ds``, however many workers share it::

    Dispatch --(key, n, rows, stream)--> worker: BatchTask, func, kept --(batches, ends)--> Dispatch --> consumer
       `-------(key, n, None, stream)--> worker: BatchTask -----------(kept, their n)--> Dispatch._rest --^

In the order of ``ds`` the workers map only, and the consumer stacks::

    Dispatch --(key, n, rows)--> worker: BatchTask, func --(results, ends)--> Dispatch --> stack --> consumer

The life of a datapoint is that of mapping.py. A batch covers all that its worker was given up to the last datapoint in
it, dropped ones included; a frame is closed when it is covered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from operator import length_hint
from typing import Any

from ..base import length
from ..engine import Context
from ..passes import Place, Run, Walk, _inside, locate
from ..policies import ErrorPolicy
from ..utils import check
from ..utils.stack import stack
from .dispatch import Dispatch
from .failure import failed
from .feed import Answer, Feed, Frame
from .mapping import Draws, MapTask, ParallelMap


class Kept:
    """What a worker has made of one stream, with the number of each, and has not stacked yet."""

    def __init__(self) -> None:
        self.stream = 0
        self.rows: list[tuple[int, Any]] = []


class BatchTask(MapTask):
    """Apply a function, and stack the results of frames that name their stream; what the workers run.

    Args:
        func: the function.
        on_error: what to do where it raises; None raises.
        batch_size: datapoints in a batch.
    """

    def __init__(self, func: Callable[..., Any], on_error: ErrorPolicy | None, batch_size: int) -> None:
        super().__init__(func, on_error)
        self._batch_size = batch_size

    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Answer]:
        return map(partial(self._stacked, Draws(), Kept(), context), inbox)

    def _stacked(self, draws: Draws, kept: Kept, context: Context, message: tuple[Any, ...]) -> Answer:
        if len(message) == 3:
            return self._answer(draws, context, message)
        start = time.perf_counter()
        key, n, rows, stream = message
        if stream != kept.stream:  # the pass before was given up
            kept.rows, kept.stream = [], stream
        if rows is None:
            rest, kept.rows = kept.rows, []
            return Answer([dp for _, dp in rest], [number for number, _ in rest])
        results, ends, failure, fates, _ = _inside(None, self._results, rows, n, draws.of(key), context)
        kept.rows += zip([n + j for j in ends], results, strict=True)
        batches, ends = [], []
        try:
            while len(kept.rows) >= self._batch_size:
                full, kept.rows = kept.rows[: self._batch_size], kept.rows[self._batch_size :]
                batches.append(stack([dp for _, dp in full]))
                ends.append(full[-1][0] - n)
        except Exception as error:
            failure = failed(error, context, full[-1][0] - 1)
        return Answer(batches, ends, failure, fates, time.perf_counter() - start)

    def parts(self, message: Any) -> Iterable[tuple[str, Any]]:
        return () if message[2] is None else super().parts(message)


class BatchDispatch(Dispatch):
    """A stream of batches on its way through the workers.

    Args:
        flow: the map.
        feed: what it maps.
    """

    def __init__(self, flow: ParallelMapAndBatch, feed: Feed) -> None:
        super().__init__(flow, feed, ordered=False)
        self.weight = flow.batch_size
        self._remainder = flow.remainder
        self._covered = [0] * flow._workers  # the number of the last datapoint of each worker that is done with
        # A batch of what was left over, until it is delivered, and what it covers: workers and numbers.
        self._left: Iterator[Any] = iter(())
        self._covers: list[tuple[int, int]] = []

    def _message(self, frame: Frame) -> Any:
        return *super()._message(frame), self._stream

    def _done(self) -> Callable[[Frame], int]:
        covered = [*self._covered]
        for frame in self._feed.open.values():
            if done := frame.done:
                covered[frame.worker] = max(covered[frame.worker], frame.place["n"] + done)
        for worker, number in [] if length_hint(self._left) else self._covers:
            covered[worker] = max(covered[worker], number)
        return lambda frame: min(max(covered[frame.worker] - int(frame.place["n"]), 0), frame.count)

    def _close(self, frame: Frame) -> None:
        if frame.answer.ends:
            self._covered[frame.worker] = frame.place["n"] + frame.answer.ends[-1]
            done = self._done()
            for other in [other for other in self._feed.open.values() if done(other) == other.count]:
                del self._feed.open[other.first]

    def _can_send_again(self) -> bool:
        return not self._made  # else the workers that are gone may have kept something

    def _rest(self) -> Iterator[Iterator[Any]]:
        self._asked = len(self._covered)
        for worker in range(self._asked):
            frame = Frame([], self._feed.offset, {"n": 0}, None)
            self._queues.send(worker, frame, (None, frame.place["n"], None, self._stream))
        while self._asked:
            self._collect(block=True)
            if self._broken:
                raise self._broken
        kept = sorted(
            (number, frame.worker, dp)
            for frame in self._answered
            for number, dp in zip(frame.answer.ends, frame.answer.results, strict=True)
        )
        for start in range(0, len(kept), self.weight):
            numbers, workers, rows = zip(*kept[start : start + self.weight], strict=True)
            if len(rows) == self.weight or self._remainder:
                batch = _stacked(rows, self._flow, numbers[-1] - 1)
                left = iter([batch])
                self._left, self._covers = left, [*zip(workers, numbers, strict=True)]
                yield left
                for worker, number in self._covers:
                    self._covered[worker] = number


class ParallelMapAndBatch(ParallelMap):
    """Apply a function and stack the results in workers; base class of the parallel maps that batch.

    Args:
        ds: flow of lists or dicts.
        workers: how many.
        map_func: datapoint -> datapoint | None.
        batch_size: datapoints in a batch.
        buffer_size: datapoints on their way; None is ten batches.
        remainder: also yield what is left at the end as a smaller batch.
        ordered: in the order of ``ds``.
        start_method: how processes start.
        timeout: seconds that a worker may be silent.
        restarts: how many dead workers are replaced.
        on_error: what to do where ``map_func`` raises; None raises.
    """

    def __init__(
        self, ds: Any, workers: int, map_func: Callable[..., Any], batch_size: int, buffer_size: int | None,
        remainder: bool, ordered: bool, start_method: str | None, timeout: float | None, restarts: int,
        on_error: ErrorPolicy | None,
    ) -> None:  # fmt: skip
        check.integer(1, batch_size=batch_size)
        check.flag(remainder=remainder)
        self.batch_size = int(batch_size)
        self.remainder = remainder
        most = 10 * self.batch_size if buffer_size is None else buffer_size
        super().__init__(ds, workers, map_func, most, True, ordered, start_method, timeout, restarts, on_error)
        size = length(self.ds)
        if not remainder and size is not None and batch_size > size:
            raise ValueError(
                f"batch_size {batch_size} is larger than the flow, which has {size} datapoints, so no batch would "
                "ever be full. Make it smaller, or pass remainder=True."
            )

    @property
    def _state_name(self) -> str:
        return type(self).__name__

    def __len__(self) -> int:
        full, rest = divmod(len(self.ds), self.batch_size)
        return full + (self.remainder and rest > 0)

    @property
    def _keeps_order(self) -> bool:
        # What a worker keeps for its next batch would be lost with it.
        return self.ordered or self.restarts > 0

    def _task(self) -> MapTask:
        return BatchTask(self.map_func, self.on_error, self.batch_size)

    def _dispatch(self, feed: Feed, ordered: bool) -> Dispatch:
        return super()._dispatch(feed, ordered) if ordered else BatchDispatch(self, feed)

    def _walk(self, at: Place, run: Run) -> Walk:
        it, place = super()._walk(at, run)
        if not self._in_order(run):
            return it, place
        count = at.get("batches", 0)

        def batches() -> Iterator[Any]:
            nonlocal count
            least = 1 if self.remainder else self.batch_size
            while len(rows := list(islice(it, self.batch_size))) >= least:
                count += 1
                yield _stacked(rows, self, count - 1)

        return batches(), lambda: {**place(), "batches": count}


def _stacked(rows: Sequence[Any], flow: ParallelMap, number: int) -> Any:
    """Stack datapoints, or say where that failed."""
    try:
        return stack(rows)
    except Exception as error:
        locate(error, flow, number)
        raise
