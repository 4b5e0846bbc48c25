"""The bytes of a Parquet or Arrow file, as pyarrow asks for them."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np

from ..codec import checksum
from ..errors import CorruptDataError
from .parquet_note import MAGIC_BYTES, SEAL, UNSEALED, seal_of

# Batches of such sizes are read into memory of their own, and arrays are views on it: one that is kept keeps it all.
_LEAST_BLOCK, _MOST_BLOCK = 1 << 12, 1 << 22


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
        self.block = np.empty(0, np.uint8)  # what was read last, if it was a batch
        self.size = file.seek(0, os.SEEK_END)
        self.closed = False

    def load(self, offset: int, length: int, crc: int | None) -> None:
        """Read a group, and verify it if its checksum is given.

        Raises:
            CorruptDataError: if it is damaged.
        """
        self._loaded = memoryview(b"")  # first, so that never two are held
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length or crc not in (None, checksum(data)):
            raise CorruptDataError(
                f"the group at byte {offset:,} is damaged: its checksum does not agree. Copy it again"
            )
        self._start, self._loaded = offset, memoryview(data)

    def check_seal(self) -> bool:
        """Say whether the end of a Parquet file has a checksum, and verify it: damaged, pyarrow might not survive it.

        Raises:
            CorruptDataError: if it is damaged.
        """
        self._file.seek(max(0, self.size - MAGIC_BYTES))
        length = int.from_bytes(self._file.read(4), "little") + MAGIC_BYTES
        self._file.seek(max(0, self.size - length))
        end = self._file.read(min(length, self.size))
        at = end.find(SEAL) + len(SEAL)
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
        self._file.seek(self._at - size)
        if not _LEAST_BLOCK < size <= _MOST_BLOCK:
            return self._file.read(size)
        self.block = np.empty(size, np.uint8)
        view = self.block.data
        done = 0
        while done < size and (more := self._file.readinto(view[done:])):  # type: ignore[attr-defined]
            done += more
        return view[:done]

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
