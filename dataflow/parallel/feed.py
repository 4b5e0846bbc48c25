"""Read a flow ahead in frames, so that what is not delivered can be read again.

A frame is a run of datapoints of one pass of the flow below, with the place before its first one. Datapoints are
counted at dispatch: their *offset* counts from where this feed started, their *number* within a pass of the flow, from
1, as in ``MapData``. Everything here is plain bookkeeping in the consumer's process.

A frame is *open* until the whole of it is done with. The position is the place before the oldest open frame, with the
spans behind it that are done with. It is right at every moment, also between two lines that Ctrl-C comes between: a
frame is open before its datapoints are counted, and what is delivered of it is what its own iterator has given.
"""

from __future__ import annotations

import time
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import length_hint
from typing import Any, NamedTuple

from ..errors import EmptyFlowError
from ..passes import SAMPLE, Key, Place, Run, below
from ..policies import Settled
from ..utils.row_list import RowList
from .failure import Failure

# Datapoints in the largest frame.
MOST = 1024
# A frame is so much work, so that neither the overhead of a frame (50 to 100 us) nor the wait for one is felt; and it
# takes no longer to read, however slow the flow: a worker may be waiting for it.
FRAME_SECONDS = 4e-3


class Answer(NamedTuple):
    """What a worker made of a frame."""

    results: list[Any]
    ends: list[int]  # how many datapoints of the frame are done with after each of the results
    failure: Failure | None = None  # what ended it before its end
    settled: Sequence[Settled] = ()  # the datapoints at which the function raised, and what became of them
    seconds: float = 0.0


NOTHING = Answer([], [])


class Frame:
    """A run of datapoints on its way: what the consumer keeps of it.

    Args:
        rows: the datapoints.
        first: the offset of the first.
        place: where the flow below stands before the first: ``n``, ``ds``, and ``i`` in an endless feed.
        key: seed and spawn key of what a function draws for its samples, or None.
    """

    __slots__ = ("answer", "answered", "count", "first", "key", "left", "place", "rows", "seconds", "size", "worker")

    def __init__(self, rows: list[Any], first: int, place: Place, key: Key | None) -> None:
        self.rows = rows
        self.count = len(rows)
        self.first = first
        self.place = place
        self.key = key
        self.worker = 0
        self.seconds = 0.0  # what sending it took
        self.answer = NOTHING
        self.answered = False
        self.size = 0  # bytes of the answer
        self.left: Iterator[Any] = iter(())  # the results that are still to be delivered

    def take(self, answer: Answer, size: int) -> None:
        """Take in what a worker made of it."""
        left = iter(answer.results)
        self.answer, self.left, self.size, self.answered, self.rows = answer, left, size, True, []

    def forget(self) -> None:
        """Let go of the results, as if none were there; none is delivered."""
        self.take(NOTHING, 0)

    def fail(self, number: int, error: Exception) -> None:
        """Drop the results from datapoint ``number`` of the pass on, and raise ``error`` in their place."""
        count = bisect_left(self.answer.ends, number - int(self.place["n"]) + 1)
        results, ends = self.answer.results[:count], self.answer.ends[:count]
        self.take(self.answer._replace(results=results, ends=ends, failure=Failure(error)), self.size)

    @property
    def stop(self) -> int:
        """The offset behind the last datapoint."""
        return self.first + self.count

    @property
    def done(self) -> int:
        """How many datapoints are done with, by the results that are delivered."""
        given = len(self.answer.results) - length_hint(self.left)
        return self.answer.ends[given - 1] if given else 0


class Feed:
    """Read ``ds`` in frames, from ``at`` on: one pass, or pass after pass.

    Args:
        ds: the flow.
        owner: the flow that reads it, which numbers and names the stream.
        run: the run of the graph.
        at: the place to start from; ``given`` in it are offsets that have been delivered, [start, stop).
        endless: pass after pass, each under a path of its own, as ``LocallyShuffleData`` does; else the pass of ``at``.
    """

    def __init__(self, ds: Any, owner: Any, run: Run, at: Place, endless: bool) -> None:
        self._ds, self._owner, self._run, self._path = ds, owner, run, at["pass"]
        self._endless = endless
        self._i: int = at.get("i", 0)
        self._n: int = at.get("n", 0)
        self._failure: Exception | None = None
        # The offset and place before a read that has failed, or has not ended yet: `ds` itself is somewhere behind.
        self._before: tuple[int, Place] | None = None
        self.offset = 0
        self.open: dict[int, Frame] = {}  # frames that are not done with, by offset, oldest first
        self.given: list[list[int]] = [[*span] for span in at.get("given", [])]
        self.ended = False
        self._open(at if "ds" in at or not endless else None)

    def _open(self, at: Place | None) -> None:
        path = [self._i] if self._endless else self._path
        self._it, self._up = self._ds._walk(below(at) if at else {"pass": path}, self._run)
        self._fresh = at is None or "ds" not in at
        self._key = self._run.key(self._owner, path, SAMPLE) if self._owner._random else None

    def place(self, done: Callable[[Frame], int]) -> Place:
        """Return where to start to continue behind what is done with: ``done(frame)`` datapoints of an open frame."""
        head = next(iter(self.open.values()), None)
        base, at = (head.first, head.place) if head is not None else self._before or (self.offset, self._place())
        given = [[start - base, stop - base] for start, stop in merged(self._spans(base, done))]
        return {**at, "given": given} if given else {**at}

    def _spans(self, offset: int, done: Callable[[Frame], int]) -> Iterator[tuple[int, int]]:
        """Yield the spans of offsets that are done with, from ``offset`` on."""
        for frame in self.open.values():
            yield offset, frame.first  # a frame that was here is closed
            yield frame.first, frame.first + done(frame)
            offset = frame.stop
        yield offset, self.offset
        for start, stop in self.given:
            yield max(start, self.offset), stop

    def _place(self) -> Place:
        """Return where the flow stands now."""
        place = {"n": self._n, "ds": self._up()}
        return {"i": self._i, **place} if self._endless else place

    def read(self, limit: int) -> Frame | None:
        """Open the next frame, of at most ``limit`` datapoints, and return it; None at the end.

        Raises:
            Exception: what the flow raised, once the datapoints before it are read.
        """
        while not self.ended:
            if self._failure is not None:
                self.ended = True
                raise self._failure
            place = self._place()
            self._before = self.offset, place
            frame = None
            gap = self.given[0][0] - self.offset if self.given else limit
            if gap > 0 and (rows := self._some(min(limit, gap))):
                frame = self.open[self.offset] = Frame(rows, self.offset, place, self._key)
                self._pass(len(rows))
            elif self._failure is None and (gap > 0 or self._pass_over()):
                self._end_pass()
            if self._failure is None:
                self._before = None
            if frame is not None:
                return frame
        return None

    def _some(self, limit: int) -> list[Any]:
        """Read up to ``limit`` datapoints, fewer if the flow is slow, fails or ends its pass."""
        rows = RowList()
        try:
            read_some(self._it, limit, rows)
        except Exception as error:
            self._failure = error
        return rows

    def _pass(self, count: int) -> None:
        self.offset += count
        self._n += count

    def _pass_over(self) -> bool:
        """Leave out datapoints that have been delivered before; return whether the pass ended in the middle of it."""
        stop = self.given[0][1]
        self._pass(sum(1 for _ in islice(self._it, stop - self.offset)))
        if self.offset == stop:
            del self.given[0]
        return self.offset < stop

    def _end_pass(self) -> None:
        if not self._endless:
            self.ended = True
            return
        if self._fresh and self._n == 0:
            raise EmptyFlowError(f"{self._owner!r} repeats {self._ds!r} for ever, but one pass of it is empty")
        self._i += 1
        self._n = 0
        self._open(None)


def read_some(it: Iterator[Any], limit: int, rows: list[Any]) -> None:
    """Append up to ``limit`` datapoints to ``rows``, which is empty: those of FRAME_SECONDS, but at least one."""
    start, wanted = time.perf_counter(), 1
    while True:
        rows.extend(islice(it, wanted - len(rows)))  # which keeps what came before an error
        have, seconds = len(rows), max(time.perf_counter() - start, 1e-9)
        if have < wanted or have == limit or seconds > FRAME_SECONDS:
            return
        # At most twice as many: it is not known yet how evenly they come.
        wanted = min(limit, have + max(1, min(have, int(have * (FRAME_SECONDS / seconds - 1)))))


def merged(spans: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Join spans [start, stop) that touch; they come in order.

    >>> list(merged([(0, 2), (2, 3), (5, 5), (7, 9)]))
    [[0, 3], [7, 9]]
    """
    last: list[int] = []
    for start, stop in spans:
        if start >= stop:
            continue
        if last and last[1] == start:
            last[1] = stop
        else:
            if last:
                yield last
            last = [start, stop]
    if last:
        yield last


def weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls a method, as long as its object is there."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := reference()) is not None:
            alive()

    return call
