"""Frames: messages as bytes on a stream, and the reader that finds them there again.

    header: kind, number of arrays, length of the pickle | size of each array | pickle | array | array ...

The pickle of a message leaves out arrays of 2 KiB and more: they follow it from where they lie, and are received
into memory of their own. To keep one of them does not keep its neighbours, and no byte of them is moved twice.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..utils import pickling
from .crew import Kind
from .task import Task

Bytes = bytes | memoryview

HEADER = struct.Struct("<BxxxIQ")  # kind, number of arrays, length of the pickle
# Frames up to this size pass through the reader's buffer.
BUFFER = 1 << 16
# Parts of one sendmsg or recvmsg; the kernel takes 1024.
PARTS = 512


class Frame(NamedTuple):
    """What travels: a kind, a pickle, and the arrays beside it."""

    kind: Kind
    data: Bytes
    arrays: Sequence[Bytes] = ()

    @property
    def size(self) -> int:
        return len(self.data) + sum(map(len, self.arrays))


def encode(task: Task, message: Any, main_by_value: bool = False) -> Frame:
    """Pickle a message.

    Raises:
        TypeError: if it cannot be pickled, naming the place.
    """
    arrays = pickling.Buffers()
    try:
        data = pickling.dumps(message, arrays, main_by_value=main_by_value)
    except Exception as error:
        raise TypeError(pickling.explain(task.parts(message), error)) from error
    return Frame(Kind.MESSAGE, data, arrays)


class Reader:
    """Cut frames out of a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = memoryview(bytearray(BUFFER))
        self._start = self._end = 0
        self._frame: Frame | None = None  # a large one that is being received,
        self._missing: list[memoryview] = []  # and the memory that is still to be filled

    def read(self, flags: int = 0) -> list[Frame]:
        """Receive until at least one frame is complete, and return all that are.

        Args:
            flags: of recv.

        Raises:
            BlockingIOError: if that would block.
            EOFError: if the other side is closed.
        """
        frames: list[Frame] = []
        while not frames:
            if self._missing:
                count = self._socket.recvmsg_into(self._missing[:PARTS], 0, flags)[0]
                self._missing = behind(self._missing, count)
            else:
                count = self._socket.recv_into(self._buffer[self._end :], 0, flags)
                self._end += count
            if not count:
                raise EOFError
            if self._frame is not None and not self._missing:
                frames.append(self._frame)
                self._frame = None
            self._cut(frames)
        return frames

    def _cut(self, frames: list[Frame]) -> None:
        """Move what is complete from the buffer to ``frames``, and begin what does not fit into it."""
        while self._frame is None and self._end - self._start >= HEADER.size:
            kind, count, length = HEADER.unpack_from(self._buffer, self._start)
            begin = self._start + HEADER.size + 8 * count
            if begin > BUFFER or begin > self._end:
                break
            sizes = [length, *struct.unpack_from(f"<{count}Q", self._buffer, self._start + HEADER.size)]
            if begin + sum(sizes) <= self._end:
                frames.append(_frame(kind, self._buffer, begin, sizes))
                self._start = begin + sum(sizes)
            elif begin - self._start + sum(sizes) > BUFFER:
                self._begin(Kind(kind), begin, sizes)
            else:
                break
        self._make_room()

    def _begin(self, kind: Kind, begin: int, sizes: list[int]) -> None:
        # numpy, because a bytearray of this size would first be filled with zeros.
        parts = [np.empty(size, np.uint8).data for size in sizes]
        missing, rest = parts, self._buffer[begin : self._end]
        while len(rest):
            count = min(len(rest), len(missing[0]))
            missing[0][:count] = rest[:count]
            missing, rest = behind(missing, count), rest[count:]
        self._start = self._end = 0
        self._frame, self._missing = Frame(kind, parts[0], parts[1:]), behind(missing, 0)

    def _make_room(self) -> None:
        """Move the beginning of a frame to the front, where all of it has room."""
        if self._start:
            rest = self._end - self._start
            self._buffer[:rest] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, rest


def parts_of(frame: Frame) -> list[Bytes]:
    """Return the parts of a frame as they are sent; what is small goes into one."""
    head = HEADER.pack(frame.kind, len(frame.arrays), len(frame.data))
    if frame.arrays:
        head += struct.pack(f"<{len(frame.arrays)}Q", *map(len, frame.arrays))
    if len(frame.data) <= BUFFER:
        return [head + frame.data, *frame.arrays]
    return [head, frame.data, *frame.arrays]


def frame_of(message: bytes) -> Frame:
    """Return the frame whose parts, joined, are a message; what is in it is copied."""
    kind, count, length = HEADER.unpack_from(message)
    sizes = [length, *struct.unpack_from(f"<{count}Q", message, HEADER.size)]
    return _frame(kind, memoryview(message), HEADER.size + 8 * count, sizes)


def _frame(kind: int, buffer: memoryview, begin: int, sizes: list[int]) -> Frame:
    parts = []
    for size in sizes:
        parts.append(memoryview(bytearray(buffer[begin : begin + size])))
        begin += size
    return Frame(Kind(kind), parts[0], parts[1:])


def behind(parts: list[Any], count: int) -> list[Any]:
    """Return what is left of ``parts`` behind the first ``count`` bytes, without empty parts."""
    first = 0
    while first < len(parts) and count >= len(parts[first]):
        count -= len(parts[first])
        first += 1
    if not count:
        return parts[first:]
    return [memoryview(parts[first])[count:], *parts[first + 1 :]]
