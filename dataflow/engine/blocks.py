"""The blocks of one worker: what it takes from its part of the arena, lends to the consumer, and uses again."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..utils.pickling import Buffers, dumps
from .arena import GRAIN, OFFSET, Arena, discard, head
from .crew import Kind
from .descriptors import Weakly
from .frames import Frame

# Arrays that together have fewer bytes go through the channel: a copy in the kernel is cheaper than a block.
LEAST = 1 << 15
# Arrays begin at multiples of this.
ALIGNMENT = 64
# Free blocks of one size that keep their pages.
HOT = 4


class Blocks:
    """Take, lend and reuse blocks. Only the thread that makes this may use it.

    Args:
        arena: the file.
        part: where in it blocks may be taken, from and to.
        hear: takes in what the consumer has sent meanwhile, without waiting; it calls ``free``.
    """

    def __init__(self, arena: Arena, part: tuple[int, int], hear: Callable[[], None]) -> None:
        self._memory: Any = arena.memory
        self._bytes = memoryview(arena.memory).cast("B")
        self._address = ctypes.addressof(arena.memory)
        self._top, self._stop = part
        self._hear = hear
        self._user = os.getpid(), threading.get_ident()
        self._sizes: dict[int, int] = {}
        self._free: defaultdict[int, list[int]] = defaultdict(list)  # by size, the one that came back last at the end
        self._lent: set[int] = set()
        # Blocks in which this worker has an array itself, and those whose array has gone.
        self._own: dict[int, weakref.ref[Any]] = {}
        self._gone: deque[Any] = deque()
        self._seen: set[int] = set()  # those that a child of this worker may see: they are not used any more
        _all.add(self)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | None:
        """Return an array in a block of its own, to be filled and sent from there; None if there is none."""
        if self._user != (os.getpid(), threading.get_ident()):  # a child of this worker, or another thread
            return None
        size = int(np.prod(shape)) * dtype.itemsize
        block = self._take(size)
        if block is None:
            return None
        owner = np.frombuffer(self._memory, np.uint8, size, block)
        self._own[block] = weakref.ref(owner, self._gone.append)  # of C: in a callback of Python Ctrl-C would be lost
        return np.ndarray(shape, dtype, owner)

    def share(self, frame: Frame) -> Frame:
        """Return a frame whose arrays lie in blocks; or the same, if they are small or there is no room."""
        sizes = [*map(len, frame.arrays)]
        if sum(sizes) < LEAST:
            return frame
        places = [self._place(array) for array in frame.arrays]
        room = sum(size + -size % ALIGNMENT for size, place in zip(sizes, places, strict=True) if place is None)
        block = self._take(room) if room else 0
        if block is None:
            return frame
        start = block
        for number, (array, place) in enumerate(zip(frame.arrays, places, strict=True)):
            if place is None:
                size = sizes[number]
                self._bytes[start : start + size] = array
                places[number] = block, start, size
                start += size + -size % ALIGNMENT
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
            or block in self._seen
            or (sys.getrefcount(source), sys.getrefcount(owner)) != SOLE
        ):
            return None  # who else holds it, its datapoint or a part of it would share it with the consumer
        start = int(np.frombuffer(array, np.uint8).__array_interface__["data"][0]) - self._address
        return block, start, len(array)

    def free(self, data: Any) -> None:
        """Take back blocks that the consumer does not need any more."""
        for (block,) in OFFSET.iter_unpack(data):
            if block in self._lent:  # else it was lent by another worker, which this one has replaced
                self._lent.discard(block)
                if block not in self._own:
                    self._put(block)

    def _take(self, size: int) -> int | None:
        size = rounded(size)
        self._bury()
        free = self._free[size]
        if not free:
            self._hear()
            self._bury()
        if free:
            return free.pop()
        if self._top + size > self._stop:
            return None
        block, self._top = self._top, self._top + size
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
        if block in self._seen:
            return
        free = self._free[self._sizes[block]]
        free.append(block)
        if len(free) > HOT:
            discard(self._memory, free[-HOT - 1], self._sizes[block])


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
        blocks._seen.update(blocks._own)


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
