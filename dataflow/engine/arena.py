"""Shared memory for large arrays: one file without a name a pool, a part of it for each worker.

    worker i                                                             consumer
    Blocks: take, write --- offset and sizes, in a frame --------------> Leases: views on the block
            reuse       <-- offset, once nobody has an array of it any more --+

The life of one block:

1.  The worker takes one from its part of the file: one of that size that came back last, which is still in the cache
    of the processor, or else a new one (blocks.py). If there is no room, the bytes go through the channel as they
    always can.
2.  It writes the arrays there, or has stacked a batch there in the first place, and sends where they lie.
3.  The consumer cuts its arrays from one plain ndarray over the block. They are its own, to write to and to keep: all
    that is derived from them, by slicing, reshaping or `torch.from_numpy`, keeps that ndarray alive.
4.  When it goes, its weak reference notes the block. The next time the consumer sends or waits, the worker is told.
5.  Before a process forks, and when the pool closes, the blocks of its arrays become memory of its own, as any other:
    a child that sees an array is not seen, and what is kept keeps nothing else. That memory goes with its array.
6.  When a worker dies, the pages of what nobody holds go back at once, those of the rest with its last array. One that
    takes its place may use all of these ranges.

The first touch of a page costs as much as copying it forty times, so few blocks that are used again are all there is
to speed. The file is as long as it may become, which costs nothing before it is touched; a worker keeps HOT_BYTES of
free pages (blocks.py), and the others go back to the kernel. Nothing of it has a name, so nothing can be left behind,
and a small /dev/shm is no limit. Where the kernel offers no such file, or not so much address space, there is no arena.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import pickle
import struct
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .descriptors import Descriptor, Weakly, memory_file
from .frames import Frame

# The length of the file: memory that arrays which the consumer keeps may take before their bytes use the channel.
BYTES = 8 << 30
# Blocks begin and end at multiples of this many bytes, so that each has pages of its own.
GRAIN = 1 << 16
MAP_FIXED, MADV_DONTNEED, MADV_POPULATE_WRITE = 0x10, 4, 23
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
READ_WRITE = 3  # PROT_READ and PROT_WRITE, which Windows has no names for

TABLE = struct.Struct("<QI")  # bytes of all arrays, how many there are
PLACE = struct.Struct("<QQQ")  # of an array: its block, where it starts in the file, its bytes
SPAN = struct.Struct("<QQ")  # a block, or a range of them: its start in the file, its bytes


class Arena:
    """The file, mapped into this process.

    Args:
        descriptor: of the file.
        workers: how many parts it has.
    """

    def __init__(self, descriptor: Descriptor, workers: int) -> None:
        self.descriptor = descriptor
        self._workers = workers
        self.memory: Any = _mapped(descriptor.fileno(), BYTES)
        self.address = ctypes.addressof(self.memory)
        # By block, weak references to the arrays over memory of this process. They give it back when their array goes,
        # so they are kept for as long as any array is.
        self.private: dict[int, weakref.ref[Any]] = {}
        self.memory.private = self.private

    @classmethod
    def make(cls, workers: int) -> Arena | None:
        """Return a new one; None if this machine does not give it."""
        if not hasattr(os, "memfd_create"):
            return None
        descriptor = memory_file("dataflow-arena")
        try:
            os.ftruncate(descriptor.fileno(), BYTES)
            return cls(descriptor, workers)
        except OSError:  # a limit of the address space, or of the size of files
            descriptor.close()
            return None

    def make_private(self, block: int, owner: np.ndarray[Any, Any]) -> bool:
        """Make the memory of a block that of this process, with what is in it, until ``owner``, its array, goes.

        Other threads may read and write it meanwhile: the kernel copies each page when it is next written to, which is
        asked for here. Then the file does not need its pages any more.

        Returns:
            False if the machine does not allow it: then the block must not be used again.
        """
        libc, address, size = _libc(), self.address + block, whole(owner.nbytes)
        if not self._map(block, size, mmap.MAP_PRIVATE):
            return False
        # A callback of C: in one of Python Ctrl-C would be lost.
        self.private[block] = weakref.ref(owner, functools.partial(_forgetting(), address, size, MADV_DONTNEED))
        if libc.madvise(address, size, MADV_POPULATE_WRITE):  # Linux before 5.14
            return False
        self.release(block, size)
        return True

    def map_again(self, block: int, size: int) -> bool:
        """Put the file back in the place of memory of this process; False if the machine does not allow it."""
        del self.private[block]
        return self._map(block, size, mmap.MAP_SHARED)

    def _map(self, block: int, size: int, flags: int) -> bool:
        address, fd = self.address + block, self.descriptor.fileno()
        return bool(_libc().mmap(address, whole(size), READ_WRITE, flags | MAP_FIXED, fd, block) == address)

    def release(self, start: int, size: int) -> None:
        """Give pages of the file back to the kernel; they read as zeros from then on."""
        if size:  # where it fails, they stay until the file goes
            _libc().fallocate(self.descriptor.fileno(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, size)

    @property
    def share(self) -> int:
        """The bytes of the part of each worker; worker 0 has the first of them."""
        return BYTES // self._workers // GRAIN * GRAIN


class _Lease(weakref.ref[Any]):
    """Refers to the array over a block of some bytes. Its callback is of C: in one of Python Ctrl-C would be lost."""

    __slots__ = ("block", "orphan", "size")

    block: int
    size: int
    orphan: bool  # the worker that lent it is dead


class Leases:
    """The blocks that the arrays of a consumer lie in."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self._alive: dict[int, _Lease] = {}  # by offset
        self._dropped: deque[Any] = deque()
        self._lost: set[int] = set()  # those that may not be used again
        _all.add(self)

    def open(self, data: Any) -> Any:
        """Return the message that ``Blocks.share`` has put into a frame."""
        _, count = TABLE.unpack_from(data)
        behind = TABLE.size + count * PLACE.size
        places = [*PLACE.iter_unpack(data[TABLE.size : behind])]
        ends: dict[int, int] = {}
        for block, start, size in places:
            ends[block] = max(ends.get(block, 0), start + size)
        owners = {block: self._lease(block, end - block) for block, end in ends.items()}
        arrays = [owners[block][start - block : start - block + size] for block, start, size in places]
        return pickle.loads(data[behind:], buffers=arrays)

    def _lease(self, block: int, size: int) -> Any:
        # Plain: a subclass or a memoryview would go before the views of it.
        owner = np.frombuffer(self.arena.memory, np.uint8, size, block)
        lease = self._alive[block] = _Lease(owner, self._dropped.append)
        lease.block, lease.size, lease.orphan = block, size, False
        return owner

    def returned(self) -> dict[int, bytes]:
        """Return the blocks that have come back since this was asked last, packed, by worker."""
        spans: dict[int, bytes] = {}
        while self._dropped:
            lease = self._dropped.popleft()
            block, size = lease.block, whole(lease.size)
            if block in self._lost or (block in self.arena.private and not self.arena.map_again(block, size)):
                continue
            del self._alive[block]
            if lease.orphan:
                self.arena.release(block, size)
            worker = block // self.arena.share
            spans[worker] = spans.get(worker, b"") + SPAN.pack(block, size)
        return spans

    @property
    def waiting(self) -> bool:
        """True if blocks have come back."""
        return bool(self._dropped)

    def part(self, worker: int) -> tuple[int, int]:
        """Return where a new worker may take blocks, from and to: behind those that its predecessor has lent."""
        *_, behind = self._gaps(self._alive, *self._bounds(worker))
        return behind

    def inherit(self, worker: int) -> bytes:
        """Give back the pages of all that a dead worker had and nobody holds.

        Returns:
            What its successor may use between the blocks that it had lent, packed.
        """
        first, last = self._bounds(worker)
        for block, lease in self._alive.items():
            lease.orphan = lease.orphan or first <= block < last
        gaps = [*self._gaps(self._alive, first, last)]
        for start, stop in gaps:
            self.arena.release(start, stop - start)
        return b"".join(SPAN.pack(start, stop - start) for start, stop in gaps[:-1] if start < stop)

    def _bounds(self, worker: int) -> tuple[int, int]:
        return worker * self.arena.share, (worker + 1) * self.arena.share

    def _gaps(self, blocks: Iterable[int], start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield what is not of these blocks, from and to; the last is behind all of them."""
        for block in sorted(block for block in blocks if start <= block < stop):
            yield start, block
            start = block + whole(self._alive[block].size)
        yield start, stop

    def make_private(self) -> None:
        """Turn the blocks of arrays that are there into memory that a child gets a copy of."""
        for block, lease in list(self._alive.items()):  # another thread may be receiving
            owner = lease()
            if owner is None or block in self.arena.private or block in self._lost:
                continue
            if not self.arena.make_private(block, owner):
                self._lost.add(block)  # a child may see it

    def close(self) -> None:
        """Give the file back. Arrays that are still there have memory of their own from now on."""
        try:
            self.make_private()
            for start, stop in self._gaps(self._alive.keys() & self._lost, 0, BYTES):
                self.arena.release(start, stop - start)
        finally:
            self.arena.descriptor.close()


def whole(size: int) -> int:
    """Return the bytes of the pages that so many bytes at the start of a block use."""
    return -(-size // GRAIN) * GRAIN


def _mapped(fd: int, size: int) -> Any:
    """Map a file for as long as anything refers to what is returned.

    Not by ``mmap.mmap``, which keeps a descriptor as long as somebody has an array.
    """
    address = _libc().mmap(None, size, READ_WRITE, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, _libc().munmap, address, size).atexit = False  # arrays may be there to the very end
    return memory


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size, number, pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    libc.mmap.restype, libc.mmap.argtypes = pointer, [pointer, size, number, number, number, ctypes.c_int64]
    libc.munmap.argtypes = [pointer, size]
    libc.madvise.argtypes = [pointer, size, number]
    libc.fallocate.argtypes = [number, number, ctypes.c_int64, ctypes.c_int64]
    return libc


@functools.cache
def _forgetting() -> Any:
    """Return ``madvise``, to be a callback: it does not look at its last argument, which is the weak reference."""
    madvise = _libc()["madvise"]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.py_object]
    return madvise


_all: Weakly[Leases] = Weakly()


def _before_fork() -> None:
    for leases in _all.items():
        leases.make_private()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def head(places: list[tuple[int, int, int]]) -> bytes:
    """Return what stands before the pickle of a message whose arrays lie at ``places``."""
    total = sum(size for _, _, size in places)
    return TABLE.pack(total, len(places)) + b"".join(PLACE.pack(*place) for place in places)


def bytes_of(frame: Frame) -> int:
    """Return the bytes of the arrays of a frame that lie in blocks."""
    total: int = TABLE.unpack_from(frame.data)[0]
    return total
