"""The bytes of a Parquet or Arrow file, as pyarrow asks for them."""

from __future__ import annotations

import os
import sys
from typing import Any, BinaryIO

import numpy as np

from ..codec import checksum
from ..errors import CorruptDataError
from .parquet_note import MAGIC_BYTES, SEAL, UNSEALED, seal_of

# Batches of such sizes are read into one block, and arrays are views on it: one that is kept keeps it all.
_LEAST_BLOCK, _MOST_BLOCK = 1 << 12, 1 << 22
# A copy to memory that lies 1 to 16 bytes behind its source, not counting whole pages, takes twice the time.
_PAGE, _LINE = 4096, 64
Block = np.ndarray[Any, np.dtype[np.uint8]]


def _references(items: list[Any], index: int) -> int:
    """Count who refers to an item; one that is handed over by itself would be counted once more."""
    return sys.getrefcount(items[index])


_UNUSED = _references([np.empty(0)], 0)


class Source:
    """A file as pyarrow reads it: a group that is loaded comes from memory, all else from the file."""

    def __init__(self, file: BinaryIO, at_url: bool) -> None:
        # What tells the file from others, also from itself before a change; None if nobody knows.
        self.identity: tuple[int, ...] | None = None
        if not at_url:
            stat = os.fstat(file.fileno())
            self.identity = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
        self._file, self._at = file, 0
        self._start, self._loaded = 0, memoryview(b"")
        self._memories: list[Block] = []
        self.block = np.empty(0, np.uint8)  # what was read last, if it was a batch
        self.size = file.seek(0, os.SEEK_END)
        self.closed = False

    def load(self, offset: int, length: int, crc: int | None, align: int = 0) -> None:
        """Read a group, and verify it if its checksum is given.

        Args:
            offset: where in the file it begins.
            length: how many bytes it has.
            crc: its checksum, or None.
            align: a place in the file that shall be at a multiple of 64 in memory, as any array may begin there.

        Raises:
            CorruptDataError: if it is damaged.
        """
        self._loaded = memoryview(b"")  # or the memory of the last group would be in use
        memory = self._room(offset, length, align)
        self._file.seek(offset)
        if self._fill(memory) != length or (crc is not None and checksum(memory) != crc):
            raise CorruptDataError(
                f"the group at byte {offset:,} is damaged: its checksum does not agree. Copy it again"
            )
        self._start, self._loaded = offset, memory.data

    def loaded(self, offset: int, length: int) -> memoryview:
        """Return bytes of the group that is loaded, by their place in the file; they may be written to.

        Raises:
            CorruptDataError: if they are not in it.
        """
        start = offset - self._start
        if start < 0 or start + length > len(self._loaded):
            raise CorruptDataError("arrays that it notes lie outside of their group. Copy it again")
        return self._loaded[start : start + length]

    def peek(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, whatever is loaded.

        Raises:
            CorruptDataError: if they are not in it.
        """
        if min(offset, length) < 0 or offset + length > self.size:
            raise CorruptDataError(f"it has {self.size:,} bytes, and tells of byte {offset + length:,}. Copy it again")
        self._file.seek(offset)
        return self._file.read(length)

    def check_seal(self) -> bool:
        """Say whether the end of a Parquet file has a checksum, and verify it: damaged, pyarrow might not survive it.

        Raises:
            CorruptDataError: if it is damaged.
        """
        self._file.seek(max(0, self.size - MAGIC_BYTES))
        length = int.from_bytes(self._file.read(4), "little") + MAGIC_BYTES
        self._file.seek(max(0, self.size - length))
        end = self._file.read(min(length, self.size))
        at = end.rfind(SEAL) + len(SEAL)  # the names of columns, which stand before, may be anything
        if at < len(SEAL):
            return False
        if end[at : at + 8] != seal_of(end[:at] + UNSEALED + end[at + 8 :]):
            raise CorruptDataError("its end, which tells where all else is, is damaged. Copy it again")
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> Any:
        size = max(0, min(self.size - self._at, size if size >= 0 else self.size))
        start = self._at - self._start
        self._at += size
        if start >= 0 and start + size <= len(self._loaded):
            return self._loaded[start : start + size]
        offset = self._file.seek(self._at - size)
        if not _LEAST_BLOCK < size <= _MOST_BLOCK:
            return self._file.read(size)
        self.block = np.empty(0, np.uint8)
        self.block = self._room(offset, size)
        return self.block.data[: self._fill(self.block)]

    def _fill(self, block: Block) -> int:
        """Read on in the file until a block is full, or the file ends; return how many bytes that were."""
        view, done = block.data, 0
        while done < len(block) and (more := self._file.readinto(view[done:])):  # type: ignore[attr-defined]
            done += more
        return done

    def _room(self, offset: int, length: int, align: int = 0) -> Block:
        """Return memory that was used before, if there is some of about this size that nobody looks at, or new memory.

        Two are kept: the consumer mostly has a row of the last group still.
        """
        size = length + _PAGE
        unused = [at for at in range(len(self._memories)) if _references(self._memories, at) == _UNUSED]
        found = next((at for at in unused if size <= len(self._memories[at]) <= 2 * size), None)
        if found is None:
            for at in reversed(unused):  # first, so that no more is held than needed
                del self._memories[at]
            self._memories = [*self._memories[-1:], np.empty(size, np.uint8)]
            found = -1
        memory = self._memories[found]
        # One to two lines behind the place in a page that it has in the file.
        start = (offset + _LINE + (-align) % _LINE - memory.ctypes.data) % _PAGE
        return memory[start : start + length]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        """Do nothing: nothing is written."""

    def close(self) -> None:
        """Do nothing: the file closes itself."""
