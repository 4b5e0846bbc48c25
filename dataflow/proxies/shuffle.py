"""Shuffle a stream through a buffer, in rounds that can be drawn again.

A buffer of n places is shuffled by drawing an order of its places. Place after place in this order gives up its
datapoint and takes the next from the flow below; that is a first-in-first-out buffer which was permuted. After
``interval`` datapoints a new order is drawn. Each order has a key of its own, so the buffer of any round can be
filled again from the flow below alone: ``Buffer.place`` goes back to the round in which the oldest datapoint that is
still to come went in, and says how many to pass over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from ..base import ProxyDataFlow, RNGDataFlow
from ..passes import Exclusive, Place, Run, Walk, below
from ..utils import check
from ..utils.old_names import renamed
from ..utils.own import own
from ..utils.parts import Parts
from ..utils.rng import KeyedGenerator, checked_seed
from .repeat import Again

# How many datapoints are read from below at a time: as many as take about 1 ms, so that neither the overhead of a
# read (4 us) nor the wait for a slow flow is felt. With more than 700 in one hand Python's garbage collector wakes up.
MOST, READ_SECONDS = 512, 1e-3
# The key of the order in which a finite buffer is emptied; no round gets so far.
LAST_ORDER = 1 << 63


class Buffer:
    """A shuffle buffer on its way through one flow: ``rows()`` is the stream, ``place()`` where it stands.

    Args:
        it: the flow below.
        up: its place.
        draw: gives the generator of an order.
        at: where to start.
        size: datapoints of the flow that the buffer holds.
        interval: datapoints between two orders.
        num_reuse: how often each datapoint goes in.
    """

    def __init__(
        self, it: Iterator[Any], up: Callable[[], Place], draw: KeyedGenerator, at: Place, size: int, interval: int,
        num_reuse: int = 1,
    ) -> None:  # fmt: skip
        self._it, self._up, self._draw = it, up, draw
        # The start of a pass tells the place below too: a cache there may be full.
        self._at = at if "ds" in at else {**at, "ds": up()}
        self._size, self._interval, self._reuse = size, interval, num_reuse
        # An interval above the size is several rounds in one order: no place gives up two datapoints in a round.
        self._rounds = -(-interval // size)
        self._skip: int = at.get("skip", 0)
        self._round: int = at.get("round", 0)
        # What a round that is not the first starts with has left before the datapoint that the place is behind.
        self._buffer = np.full(size * num_reuse, None)
        # The round in which each place was filled, as it was when the round that runs began.
        self._born = np.full(size * num_reuse, self._round)
        self._leaving = self._born[:0]  # the same of a buffer that is being emptied
        self._parts = Parts()
        self._journal: dict[int, tuple[Place, int]] = {}
        self._journal_limit = 64
        self.failed = False  # something raised, so the stream has ended before its end

    def rows(self) -> Iterator[Any]:
        """Return the stream; call it once."""
        rows = self._parts.rows(self._lists())
        # At once, not at the first `next`, which may never come: what is below must stand where it stood.
        deque(islice(rows, self._skip), maxlen=0)
        return rows

    def place(self) -> Place:
        """Return where to start to continue behind the datapoint handed on last."""
        done, left = self._parts.given, self._parts.left
        if not self._journal:
            return self._at
        leaving = self._leaving[len(self._leaving) - left :]
        oldest = int(min(self._born.min(initial=self._round), leaving.min(initial=self._round)))
        before, total = self._journal[oldest]
        return {"pass": self._at["pass"], "round": oldest, "skip": done - total, "ds": before}

    def _lists(self) -> Iterator[list[Any]]:
        try:
            yield from self._all_lists()
        except GeneratorExit:
            raise
        except BaseException:  # Ctrl-C too
            self.failed = True
            raise

    def _all_lists(self) -> Iterator[list[Any]]:
        """Yield the stream in parts; who iterates them uses one up before asking for the next."""
        if self._round == 0:
            self._note_round()
            self._buffer = self._read(self._size)
            self._born = self._born[: len(self._buffer)]
            self._round += len(self._buffer) == self._size * self._reuse  # a flow that ends before has no more rounds
        count, going = 1, self._round > 0
        while going:
            self._note_round()
            number, phase = divmod(self._round - 1, self._rounds)
            order = self._order(number)
            position, filled, end = 0, 0, min(self._interval - phase * self._size, self._size)
            while going and position < end:
                wanted = min(count, end - position)
                start = time.perf_counter()
                new = self._read(wanted)
                count = min(count * 2, MOST) if time.perf_counter() - start < READ_SECONDS else max(count // 2, 1)
                going = len(new) == wanted * self._reuse
                places = order[filled:][: len(new)]
                position, filled = position + wanted, filled + len(new)
                leaving = self._buffer[places].tolist()
                self._buffer[places] = new
                del new  # else it would keep alive what leaves the buffer next
                yield leaving
            self._born[order[:filled]] = self._round
            self._round += 1
        if self._round:
            self._note_round()
        order = self._draw(LAST_ORDER).permutation(len(self._buffer))
        leaving, self._leaving = self._buffer[order], self._born[order]
        self._buffer, self._born = self._buffer[:0], self._born[:0]
        yield leaving.tolist()

    def _read(self, count: int) -> np.ndarray[Any, Any]:
        """Read up to ``count`` datapoints into an array of objects."""
        rows = islice(self._it, count)
        if self._reuse > 1:
            rows = (own(dp) for dp in rows for _ in range(self._reuse))  # type: ignore[assignment]
        return np.fromiter(rows, dtype=object)

    def _order(self, number: int) -> np.ndarray[Any, Any]:
        """Return an order of the places; an interval above the size has its first part as it came."""
        places = self._size * self._reuse
        return (
            np.arange(places) if number == 0 and self._interval > self._size else self._draw(number).permutation(places)
        )

    def _note_round(self) -> None:
        """Remember where the flow below stands before this round, and forget rounds that nothing is left of."""
        if len(self._journal) >= self._journal_limit:
            oldest = self._born.min(initial=self._round)
            self._journal = {number: entry for number, entry in self._journal.items() if number >= oldest}
            self._journal_limit = max(64, 2 * len(self._journal))
        self._journal[self._round] = (self._up(), self._parts.given)


class ShuffleData(ProxyDataFlow, RNGDataFlow):
    """Yield each datapoint of a flow once, shuffled through a buffer.

    A buffer as large as the flow gives a perfect shuffle; a smaller one gives the more mixing the larger it is.

    >>> ds = DataFromList([[i] for i in range(5)], shuffle=False)
    >>> sorted(ShuffleData(ds, 3, seed=0))
    [[0], [1], [2], [3], [4]]

    Its length is ``len(ds)``. The first datapoint comes when the buffer is full.

    Args:
        ds: any finite flow.
        buffer_size: datapoints in the buffer, at least 1.
        seed: seed of the order, instead of the root seed.

    Raises:
        ValueError: at construction, if ``buffer_size`` is below 1.
    """

    _replays = True

    def __init__(self, ds: Any, buffer_size: int, *, seed: int | None = None) -> None:
        super().__init__(ds)
        check.integer(1, buffer_size=buffer_size)
        self.buffer_size = int(buffer_size)
        self._seed = checked_seed(seed)

    def _walk(self, at: Place, run: Run) -> Walk:
        it, up = self.ds._walk(below(at), run)
        draw = run.generator(self, at["pass"])
        # An order costs the draws of the whole buffer, and with all of it in every order blocks would never mix.
        buffer = Buffer(it, up, draw, at, self.buffer_size, interval=max(1, 3 * self.buffer_size // 4))
        return buffer.rows(), buffer.place


class LocallyShuffleData(ProxyDataFlow, RNGDataFlow):
    """Shuffle a flow through a buffer, endlessly.

    1. The buffer takes datapoints from ``ds``, each ``num_reuse`` times.
    2. Once it is full, datapoints leave at its front and new ones join at its end, first in, first out.
    3. It is shuffled each time ``shuffle_interval`` datapoints have come from ``ds``.

    Datapoints of one pass of ``ds`` mix with those of the next, so the iterator never ends; the next ``iter`` goes on
    with the buffer as it is. For a shuffle that ends, use ``ShuffleData``.

    >>> ds = LocallyShuffleData(DataFromList([[i] for i in range(4)], shuffle=False), 2, seed=0)
    >>> len(ds), len(list(FixedSizeData(ds, 10)))
    (4, 10)

    Its length is ``len(ds) * num_reuse``, the size of one pass of ``ds``. Its passes cannot overlap.

    Args:
        ds: any flow that is not empty.
        buffer_size: datapoints in the buffer, at least 1.
        num_reuse: how often each datapoint goes into the buffer; more is faster, and duplicates data.
        shuffle_interval: datapoints of ``ds`` between two shuffles, at least 1; ``buffer_size // 3`` if not given.
        seed: seed of the order, instead of the root seed.

    Raises:
        ValueError: at construction, if a number is below 1.
        EmptyFlowError: while iterating, if ``ds`` yields nothing.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps.
    """

    _transient = (*RNGDataFlow._transient, "_kept")
    _kept: tuple[Buffer, Iterator[Any]] | None = None
    _carries = True
    _replays = True

    @renamed(nr_reuse="num_reuse")
    def __init__(
        self, ds: Any, buffer_size: int, num_reuse: int = 1, shuffle_interval: int | None = None, *,
        seed: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(ds)
        check.integer(1, buffer_size=buffer_size, num_reuse=num_reuse)
        if shuffle_interval is not None:
            check.integer(1, shuffle_interval=shuffle_interval)
        self.buffer_size = int(buffer_size)
        self.num_reuse = int(num_reuse)
        self.shuffle_interval = shuffle_interval
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        return len(self.ds) * self.num_reuse

    def _complete_reset(self, stamp: int) -> None:
        super()._complete_reset(stamp)
        self._kept = None

    def _walk(self, at: Place, run: Run) -> Walk:
        path = at["pass"]
        if self._kept is None or self._kept[0].failed or "ds" in at:
            self._kept = None  # it holds what is below, which a new buffer reads at once
            again = Again(self, self.ds, run, [], at.get("ds", {}))
            interval = self.shuffle_interval or max(1, self.buffer_size // 3)
            size = max(1, self.buffer_size // self.num_reuse)
            buffer = Buffer(iter(again), again.place, run.generator(self, []), at, size, interval, self.num_reuse)
            self._kept = buffer, buffer.rows()
        buffer, it = self._kept
        return Exclusive(self, it, run), lambda: {**buffer.place(), "pass": path}
