"""Shared memory for large arrays: one file without a name a pool, a part of it for each worker.

    worker i                                                             consumer
    Blocks: take, write --- offset and sizes, in a frame --------------> Leases: views on the block
            reuse       <-- offset, once nobody has an array of it any more --+

The life of one block:

1.  The worker takes one from its part of the file: the one that came back last, which is still in the cache of the
    processor, or else a new one (blocks.py). If there is none, the bytes go through the channel as they always can.
2.  It writes the arrays there, or has stacked a batch there in the first place, and sends where they lie.
3.  The consumer cuts its arrays from one plain ndarray over the block. They are its own, to write to and to keep: all
    that is derived from them, by slicing, reshaping or `torch.from_numpy`, keeps that ndarray alive.
4.  When it goes, its weak reference notes the offset. The next time the consumer sends or waits, the worker is told.
5.  Before a process forks, its blocks become memory of its own, as any other: a child that sees an array is not seen.

The first touch of a page costs as much as copying it forty times, so few blocks that are used again are all there is
to speed. The file is as long as it may become, which costs nothing before it is touched; pages of blocks that are not
needed any more go back to the kernel. Nothing of it has a name, so nothing can be left behind, and a small /dev/shm is
no limit. Where the kernel offers no such file, or not so much address space, there is no arena.
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
from typing import Any

import numpy as np

from .descriptors import Descriptor, Weakly, memory_file
from .frames import Frame

# The length of the file: memory that arrays which the consumer keeps may take before their bytes use the channel.
BYTES = 8 << 30
# Blocks begin and end at multiples of this many bytes, so that each has pages of its own.
GRAIN = 1 << 16
MADV_REMOVE, MAP_FIXED = 9, 0x10

TABLE = struct.Struct("<QI")  # bytes of all arrays, how many there are
PLACE = struct.Struct("<QQQ")  # of an array: its block, where it starts in the file, its bytes
OFFSET = struct.Struct("<Q")


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

    def make_private(self, block: int, size: int) -> None:
        """Put memory of this process in the place of a block, with what is in it."""
        address = ctypes.addressof(self.memory) + block
        content = ctypes.string_at(address, size)
        self._map(address, whole(size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        ctypes.memmove(address, content, size)

    def map_again(self, block: int, size: int) -> None:
        """Put the file back in the place of memory of this process."""
        self._map(ctypes.addressof(self.memory) + block, whole(size), mmap.MAP_SHARED, self.descriptor.fileno(), block)

    @staticmethod
    def _map(address: int, size: int, flags: int, fd: int, offset: int) -> None:
        found = _libc().mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags | MAP_FIXED, fd, offset)
        if found != address:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    @property
    def share(self) -> int:
        """The bytes of the part of each worker; worker 0 has the first of them."""
        return BYTES // self._workers // GRAIN * GRAIN


class _Lease(weakref.ref[Any]):
    """Refers to the array over a block of some bytes. Its callback is of C: in one of Python Ctrl-C would be lost."""

    __slots__ = ("block", "size")

    block: int
    size: int


class Leases:
    """The blocks that the arrays of a consumer lie in."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self._alive: dict[int, _Lease] = {}  # by offset
        self._dropped: deque[Any] = deque()
        self._private: set[int] = set()  # those that are not part of the file, for now
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
        lease.block, lease.size = block, size
        return owner

    def returned(self) -> dict[int, bytes]:
        """Return the blocks that have come back since this was asked last, packed, by worker."""
        offsets: dict[int, bytes] = {}
        while self._dropped:
            lease = self._dropped.popleft()
            del self._alive[lease.block]
            if lease.block in self._private:
                self._private.discard(lease.block)
                self.arena.map_again(lease.block, lease.size)
            worker = lease.block // self.arena.share
            offsets[worker] = offsets.get(worker, b"") + OFFSET.pack(lease.block)
        return offsets

    @property
    def waiting(self) -> bool:
        """True if blocks have come back."""
        return bool(self._dropped)

    def part(self, worker: int) -> tuple[int, int]:
        """Return where a new worker may take blocks, from and to: behind those that its predecessor has lent."""
        start, stop = worker * self.arena.share, (worker + 1) * self.arena.share
        lent = [lease.block + lease.size for lease in self._alive.values() if start <= lease.block < stop]
        return whole(max(lent, default=start)), stop

    def make_private(self) -> None:
        """Turn the blocks of arrays that are there into memory that a child gets a copy of."""
        for block, lease in list(self._alive.items()):  # another thread may be receiving
            if block not in self._private and lease() is not None:
                self.arena.make_private(block, lease.size)
                self._private.add(block)

    def close(self) -> None:
        """Give the file back. Arrays that are still there have memory of their own from now on."""
        try:
            self.make_private()
            os.ftruncate(self.arena.descriptor.fileno(), 0)
        finally:
            self.arena.descriptor.close()


def whole(size: int) -> int:
    """Return the bytes of the pages that so many bytes at the start of a block use."""
    return -(-size // GRAIN) * GRAIN


def _mapped(fd: int, size: int) -> Any:
    """Map a file for as long as anything refers to what is returned.

    Not by ``mmap.mmap``, which keeps a descriptor as long as somebody has an array.
    """
    address = _libc().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, _libc().munmap, address, size).atexit = False  # arrays may be there to the very end
    return memory


def discard(memory: Any, start: int, size: int) -> None:
    """Give pages back to the kernel; they read as zeros from then on."""
    if size:  # where it fails, they stay until the file goes
        _libc().madvise(ctypes.addressof(memory) + start, size, MADV_REMOVE)


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size, number, pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    libc.mmap.restype, libc.mmap.argtypes = pointer, [pointer, size, number, number, number, ctypes.c_int64]
    libc.munmap.argtypes = [pointer, size]
    libc.madvise.argtypes = [pointer, size, number]
    return libc


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
