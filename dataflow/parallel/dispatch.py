"""Deal the frames of a flow to the workers of a map, and take their answers in; mapping.py draws who talks to whom."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..engine import Pool
from ..errors import TooManyErrors, UsageError, WorkerError
from ..passes import Place
from ..policies import ErrorReport
from ..utils.gauge import Gauge
from ..utils.speed import count_bytes
from .feed import FRAME_SECONDS, MOST, Feed, Frame, weakly

if TYPE_CHECKING:
    from .mapping import ParallelMap

logger = logging.getLogger(__name__)

# Frames that a worker has at first: one that it works on, and one so that it need not wait for the next.
DEPTH = 2


class Queues:
    """The workers of a map, and the frames that each has in hand.

    Args:
        pool: a pool that is started.
        buffer_size: datapoints that all together may have in hand.
    """

    def __init__(self, pool: Pool, buffer_size: int) -> None:
        self.pool = pool
        self.pid = os.getpid()
        self.gauge = Gauge(buffer_size)
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
            frame.take(answer, self.pool.received_bytes or _bytes(answer.results))
            self._fit(frame)
            if stream == self.stream:
                yield frame
            message = self.pool.receive(block=False)

    def unanswered(self) -> list[Frame]:
        """List the frames of this stream that are in the workers' hands, oldest first."""
        frames = [frame for sent in self._frames for frame, stream in sent if stream == self.stream]
        return sorted(frames, key=attrgetter("first"))

    def was_unwanted(self, error: Exception) -> bool:
        """Say whether ``error`` comes from work for a stream before this one, which nobody waits for."""
        sent = [self._frames[error.worker]] if isinstance(error, WorkerError) else self._frames
        oldest = [frames[0][1] for frames in sent if frames]
        return bool(oldest) and self.stream not in oldest

    def _fit(self, frame: Frame) -> None:
        """Make frames smaller or larger by the time that one took."""
        seconds = frame.seconds + frame.answer.seconds
        if seconds > 2 * FRAME_SECONDS:
            self.limit = max(1, self.limit // 2)
        elif frame.count == self.limit and seconds < FRAME_SECONDS / 2:
            self.limit = min(2 * self.limit, self._most)


def _bytes(results: list[Any]) -> int:
    """Return about how many bytes there are in results of a kind."""
    return count_bytes(results[0]) * len(results) if results else 0


class Dispatch:
    """One stream on its way through the workers: ``rows()`` is what comes out, ``place()`` where it stands.

    Args:
        flow: the map.
        feed: what it maps.
        ordered: in the order of the feed, else as it comes.
    """

    weight = 1  # datapoints that a result counts for in the buffer

    def __init__(self, flow: ParallelMap, feed: Feed, ordered: bool) -> None:
        self._flow, self._feed, self._ordered = flow, feed, ordered
        self._answered: deque[Frame] = deque()  # what is to be delivered as it came
        self._held_bytes = 0  # of answers that are not delivered
        self._made, self._made_bytes = 0, 0  # datapoints that were answered, and bytes of the answers
        self._asked = 0  # frames in the workers' hands
        self._in_hand = 0  # datapoints in these
        self._held = 0  # and with them, results that are not delivered
        self._reports: dict[int, ErrorReport] = {}  # of passes
        self._failure: Exception | None = None  # of ds, or of a datapoint that cannot be sent
        self._broken: Exception | None = None  # of the workers

    def rows(self) -> Iterator[Any]:
        """Return the stream; call it once."""
        return chain.from_iterable(self._lists())

    def place(self) -> Place:
        """Return where to start to continue behind the datapoint delivered last."""
        return self._feed.place(self._done())

    def _done(self) -> Callable[[Frame], int]:
        """Return the function that says how many datapoints of an open frame are done with."""
        return attrgetter("done")

    def _lists(self) -> Iterator[Iterator[Any]]:
        """Yield the results of one frame after another; who iterates them uses them up before the next."""
        self._queues = self._flow._ready()
        self._stream = self._queues.begin()
        self._queues.pool.forget = weakly(self._forget)
        try:
            while (frame := self._next()) is not None:
                self._report_on(frame)
                yield frame.left
                if frame.answer.failure is not None:  # what is behind it in the frame is not done with
                    raise frame.answer.failure.error
                self._held -= self.weight * len(frame.answer.results)
                self._held_bytes -= frame.size
                self._close(frame)
            yield from self._rest()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._forget()  # whoever keeps the error keeps this
            if not isinstance(error, Exception):  # Ctrl-C: nobody knows what was half done
                self._flow._dismiss()
            raise

    def _forget(self) -> None:
        """Let go of what is not delivered; it can be read again from ``place()``."""
        for frame in self._answered:
            frame.forget()
        for frame in self._feed.open.values():
            frame.rows = []

    def _report_on(self, frame: Frame) -> None:
        """Report the datapoints at which the function raised, and end the stream at one too many."""
        i = frame.place.get("i", 0)
        if self._flow.on_error is not None and i not in self._reports:  # an endless stream has a report a pass
            oldest = next(iter(self._feed.open.values()), frame).place.get("i", 0)
            self._reports = {j: report for j, report in self._reports.items() if j >= oldest}
            self._reports[i] = self._flow._new_report(self._flow.on_error)
        for settled in frame.answer.settled:
            try:
                self._reports[i].note(settled)
            except TooManyErrors as error:
                frame.fail(settled.number, error)
                break

    def _close(self, frame: Frame) -> None:
        """Let go of what is delivered."""
        del self._feed.open[frame.first]

    def _rest(self) -> Iterator[Iterator[Any]]:
        """Yield what the workers have kept back, if they do that."""
        yield from ()

    def _next(self) -> Frame | None:
        """Return the frame that is to be delivered next, None at the end, and keep the workers busy."""
        if self._queues.stream != self._stream:
            raise UsageError(f"{self._flow!r} was reset while it was iterated; call iter() for a new pass")
        if self._asked:
            self._collect(block=False)
        self._queues.gauge.visit(self._held - self._in_hand)
        if self._feed.offset and self._room() > 0:
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
                start = time.perf_counter()
                self._collect(block=True)
                self._queues.gauge.waited_since(start)

    def _due(self) -> Frame | None:
        """Return the frame whose turn it is, if it is there."""
        if self._ordered:
            head = next(iter(self._feed.open.values()), None)
            return head if head is not None and head.answered else None
        return self._answered[0] if self._answered else None

    def _room(self) -> int:
        """Return how many datapoints more there is room for, in number and in bytes; none is 0 or less."""
        if self._feed.ended or self._failure or self._broken:
            return 0
        room = self._flow.buffer_size - self._held
        if self._made_bytes and (self._asked or self._answered):
            pool = self._queues.pool
            most = (pool.buffer_bytes - pool.held_bytes - self._held_bytes) * self._made // self._made_bytes
            room = min(room, most - self._in_hand)  # which will be as large as what was made so far
        return room

    def _feed_one(self) -> bool:
        """Send a frame, if there is one and somebody has room for it."""
        room = self._room()
        if room <= 0 or (worker := self._queues.free()) is None:
            return False
        start = time.perf_counter()
        try:
            frame = self._feed.read(min(self._queues.limit, room))
            self._queues.gauge.read_since(start)
            if frame is None:
                return False
            self._queues.send(worker, frame, self._message(frame))
        except Exception as error:  # raised when all that came before is delivered
            self._failure = error
            return False
        self._asked += 1
        self._in_hand += frame.count
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
                self._in_hand -= frame.count
                self._held += self.weight * len(frame.answer.results) - frame.count
                self._held_bytes += frame.size
                self._made, self._made_bytes = self._made + frame.count, self._made_bytes + frame.size
                self._answered.append(frame)
        except Exception as error:
            self._flow._dismiss()
            if self._queues.was_unwanted(error) and self._can_send_again():
                logger.warning("%s It worked for a pass that was given up; new workers go on with this one.", error)
                self._send_again()
            else:  # raised when all that is there is delivered
                self._broken = error

    def _can_send_again(self) -> bool:
        """Say whether other workers can take over what is not answered."""
        return True

    def _send_again(self) -> None:
        """Give what is not answered to new workers."""
        frames = self._queues.unanswered()
        self._queues = self._flow._ready()
        self._stream = self._queues.begin()
        for i, frame in enumerate(frames):
            self._queues.send(i % self._queues.pool.workers, frame, self._message(frame))
