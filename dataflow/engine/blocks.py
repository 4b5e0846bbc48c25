"""The blocks of one worker: what it takes from its part of the arena, lends to the consumer, and uses again.

    in use: written here, or lent to the consumer
      |  ^                      ^                        ^
      v  | take: of its size    | take: another size     | take: more than before
    free, by size --------> warm: joined --------> cold: joined, without pages
                   gather                 cool

A stream of one size moves two or three blocks between the first two, without a system call. Where sizes are mixed, what
is free is joined with its neighbours and cut anew, so that its pages serve all sizes: the first touch of new ones is
what costs. Beyond HOT_BYTES those behind all others in the file go, so what is in use gathers at its beginning.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..utils.pickling import Buffers, dumps
from .arena import GRAIN, SPAN, Arena, head
from .crew import Kind
from .descriptors import Weakly
from .frames import Frame
from .ranges import Ranges

# Arrays that together have fewer bytes go through the channel: a copy in the kernel is cheaper than a block.
LEAST = 1 << 15
# Arrays begin at multiples of LINE, a line of the cache. A batch begins as far behind one as the first array that is to
# be stacked there, in steps of STEP that suit every dtype: other distances cost the processor up to 1.7 times the time.
# (That is not so of what is copied as one large piece.)
LINE, STEP = 64, 16
# Free bytes of a worker that keep their pages; or so many blocks of the size that came back last, if that is more.
HOT_BYTES, AT_LEAST = 32 << 20, 3


class Blocks:
    """Take, lend and reuse blocks. Only the thread that makes this may use it.

    Args:
        arena: the file.
        part: where in it blocks may be taken, from and to.
        hear: takes in what the consumer has sent meanwhile, without waiting; it calls ``free``.
    """

    def __init__(self, arena: Arena, part: tuple[int, int], hear: Callable[[], None]) -> None:
        self._arena = arena
        self._bytes = memoryview(arena.memory).cast("B")
        self._warm, self._cold = Ranges(), Ranges()
        self._cold.add(part[0], part[1] - part[0])
        self._hear = hear
        self._user = os.getpid(), threading.get_ident()
        self._sizes: dict[int, int] = {}  # of blocks in use, and of free ones that are not joined
        self._free: defaultdict[int, list[int]] = defaultdict(list)  # these, the one that came back last at the end
        self._hot_bytes = 0  # of these and of warm ranges
        self._lent: set[int] = set()
        # Blocks in which this worker has an array itself, and those whose array has gone.
        self._own: dict[int, weakref.ref[Any]] = {}
        self._gone: deque[Any] = deque()
        self._lost: set[int] = set()  # those that may not be used again
        _all.add(self)

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], source: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, Any] | None:
        """Return an array in a block of its own, to be filled from ``source`` on, and sent; None if there is none."""
        if self._user != (os.getpid(), threading.get_ident()):  # a child of this worker, or another thread
            return None
        offset = source.__array_interface__["data"][0] % LINE // STEP * STEP
        size = offset + math.prod(shape) * dtype.itemsize
        block = self._take(size)
        if block is None:
            return None
        owner = np.frombuffer(self._arena.memory, np.uint8, size, block)
        self._own[block] = weakref.ref(owner, self._gone.append)  # of C: in a callback of Python Ctrl-C would be lost
        return np.ndarray(shape, dtype, owner, offset)

    def share(self, frame: Frame) -> Frame:
        """Return a frame whose arrays lie in blocks; or the same, if they are small or there is no room."""
        sizes = [*map(len, frame.arrays)]
        if sum(sizes) < LEAST:
            return frame
        places = [self._place(array) for array in frame.arrays]
        room = sum(size + -size % LINE for size, place in zip(sizes, places, strict=True) if place is None)
        block = self._take(room) if room else 0
        if block is None:
            return frame
        start = block
        for number, (array, place) in enumerate(zip(frame.arrays, places, strict=True)):
            if place is None:
                size = sizes[number]
                self._bytes[start : start + size] = array
                places[number] = block, start, size
                start += size + -size % LINE
        known = [place for place in places if place is not None]
        self._lent.update(place[0] for place in known)
        return Frame(Kind.SHARED, head(known) + frame.data)

    def _place(self, array: Any) -> tuple[int, int, int] | None:
        """Return where an array lies, if that is in a block, and nothing but the message refers to it."""
        source = array.obj
        owner = getattr(source, "base", None)
        if owner is None or not self._own:
            return None
        block = next((block for block, alive in self._own.items() if alive() is owner), None)
        if (
            block is None
            or block in self._lent
            or block in self._lost
            or block in self._arena.private
            or (sys.getrefcount(source), sys.getrefcount(owner)) != SOLE
        ):
            return None  # who else holds it, its datapoint or a part of it would share it with the consumer
        start = int(np.frombuffer(array, np.uint8).__array_interface__["data"][0]) - self._arena.address
        return block, start, len(array)

    def free(self, data: Any) -> None:
        """Take back blocks that the consumer does not need any more."""
        for block, size in SPAN.iter_unpack(data):
            if block in self._lent:
                self._lent.discard(block)
                if block not in self._own:
                    self._put(block)
            elif block not in self._arena.private:  # else this is a fork of the consumer, and it is a copy here
                self._cold.add(block, size)  # it was of a worker that this one has replaced

    def _take(self, size: int) -> int | None:
        size = rounded(size)
        if self._gone:
            self._bury()
        free = self._free[size]
        if not free:
            self._hear()
            self._bury()
            if not free:
                return self._new(size)
        self._hot_bytes -= size
        return free.pop()

    def _new(self, size: int) -> int | None:
        self._gather()
        block = self._warm.take(size)
        if block is not None:
            self._hot_bytes -= size
        else:
            block = self._cold.take(size)
        if block is None:
            self._cool(0)
            block = self._cold.take(size)
        if block is not None:
            self._sizes[block] = size
        return block

    def _bury(self) -> None:
        """Put back blocks in which this worker had an array."""
        if self._gone:
            self._gone.clear()
            for block in [block for block, alive in self._own.items() if alive() is None]:
                del self._own[block]
                if block not in self._lent:
                    self._put(block)

    def _put(self, block: int) -> None:
        size = self._sizes[block]
        if block in self._lost or (block in self._arena.private and not self._arena.map_again(block, size)):
            return
        self._free[size].append(block)
        self._hot_bytes += size
        if self._hot_bytes > HOT_BYTES and self._hot_bytes > AT_LEAST * size:
            self._cool(max(HOT_BYTES, AT_LEAST * size))

    def _gather(self) -> None:
        """Join free blocks, so that they can be cut anew."""
        for size, blocks in self._free.items():
            for block in blocks:
                del self._sizes[block]
                self._warm.add(block, size)
            blocks.clear()

    def _cool(self, left: int) -> None:
        """Release pages of what is free, but for so many bytes."""
        self._gather()
        while self._hot_bytes > left:
            start, end = self._warm.take_last(self._hot_bytes - left)
            self._arena.release(start, end - start)
            self._cold.add(start, end - start)
            self._hot_bytes -= end - start

    def make_private(self) -> None:
        """Turn the blocks of arrays that this worker has into memory that a child gets a copy of."""
        for block, alive in list(self._own.items()):  # another thread may have forked
            owner = alive()
            if owner is None or block in self._lost or block in self._arena.private:
                continue
            # A child may see it; and while another thread forks, it may be on its way out.
            alone = threading.get_ident() == self._user[1] and block not in self._lent
            if not alone or not self._arena.make_private(block, owner):
                self._lost.add(block)


@functools.lru_cache(maxsize=64)
def rounded(size: int) -> int:
    """Return the size of a block for so many bytes: one of at most eight between two powers of two.

    >>> rounded(1), rounded(100_000), rounded(10_000_000)
    (65536, 131072, 10485760)
    """
    grain = max(GRAIN, 1 << max(size.bit_length() - 3, 0))
    return max(-(-size // grain), 1) * grain


_all: Weakly[Blocks] = Weakly()


def _before_fork() -> None:
    for blocks in _all.items():
        blocks.make_private()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def _references_to_a_message() -> tuple[int, int]:
    """Count the references to an array, and to what it views, that was in a message which is pickled and gone."""
    buffers = Buffers()
    dumps([[np.ndarray((1 << 16,), np.uint8, np.zeros(1 << 16, np.uint8))]], buffers)
    source = buffers[0].obj
    owner = getattr(source, "base", None)
    return sys.getrefcount(source), sys.getrefcount(owner)


SOLE = _references_to_a_message()
