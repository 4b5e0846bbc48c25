"""Read npz files that NumpySerializer wrote, record by record from their places, and those of tensorpack.

::

    x.npz, a zip archive that compresses nothing
      records        the bytes of all datapoints, one after another; see dataflow/codec
      offsets.npy    an array of uint64: record i lies from offsets[i] up to offsets[i + 1]

Nothing in it is compressed or pickled, so no more memory is taken than a record has bytes, and 8 for each record.
"""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..codec.record import decode
from ..errors import CorruptDataError
from ..utils.open_file import checked_path, open_binary, size_of
from .indexed import IndexedData

RECORDS, OFFSETS = "records", "offsets.npy"
# What tensorpack wrote: an array of objects, which is a pickle.
BUFFER = "buffer.npy"

# What begins a member of a zip archive, up to the lengths of its name and of what follows the name.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MAGIC = b"PK\x03\x04"


def offsets_header(count: int) -> bytes:
    """Return what ``numpy.save`` writes before an array of ``count`` offsets.

    >>> offsets_header(3)[10:].decode().strip(), len(offsets_header(10**12))
    ("{'descr': '<u8', 'fortran_order': False, 'shape': (3,), }", 128)
    """
    text = b"{'descr': '<u8', 'fortran_order': False, 'shape': (%d,), }" % count
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"


_HEADER_BYTES = len(offsets_header(0))


class NpzFile:
    """An npz file that is open for reading, and closes itself when it is dropped.

    Attributes:
        members: the names of what is in the archive.

    Raises:
        OSError: if it cannot be read.
        CorruptDataError: if it is no zip archive, or a damaged one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = open_binary(path)
        self._size = size_of(path)
        self._read_at = _reader(self._file)
        try:
            with zipfile.ZipFile(self._file) as archive:
                self._members = {info.filename: info for info in archive.infolist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OverflowError, struct.error) as error:
            raise CorruptDataError(f"{path!r} is no npz file, or a damaged one: {error}") from error
        self.members = list(self._members)

    def place_of(self, name: str) -> tuple[int, int]:
        """Return where in the file the bytes of a member begin and end.

        Raises:
            CorruptDataError: if it is not there, or not as it was written.
        """
        info = self._members.get(name)
        if info is None:
            raise self.damaged(f"it has no member {name!r}")
        head = self.read(info.header_offset, _LOCAL_HEADER.size)
        magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
        start = info.header_offset + _LOCAL_HEADER.size
        if magic != _MAGIC or self.read(start, name_bytes) != name.encode():
            raise self.damaged(f"its member {name!r} is not in its place")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise self.damaged(f"its member {name!r} is compressed or encrypted, as NumpySerializer does not write it")
        start += name_bytes + extra_bytes
        return start, start + info.file_size

    def read(self, start: int, size: int) -> bytearray:
        """Return ``size`` bytes of the file.

        Raises:
            CorruptDataError: if it has no such bytes.
        """
        if start < 0 or start + size > self._size:  # before memory is taken
            raise self.damaged(f"it ends at byte {self._size:,}, and should go up to {start + size:,}")
        data = bytearray(size)
        self._read_at(data, start)
        return data

    def offsets(self) -> np.ndarray[Any, Any]:
        """Return where in the file each record begins, and the last one ends.

        Raises:
            CorruptDataError: if that is damaged, or says what cannot be.
        """
        begin, end = self.place_of(RECORDS)
        start, stop = self.place_of(OFFSETS)
        data = self.read(start, stop - start)
        if zlib.crc32(data) != self._members[OFFSETS].CRC:
            raise self.damaged(f"the bytes of its member {OFFSETS!r} and their checksum do not agree")
        count, rest = divmod(len(data) - _HEADER_BYTES, 8)
        if count < 1 or rest or data[:_HEADER_BYTES] != offsets_header(count):
            raise self.damaged(f"its member {OFFSETS!r} is no array of offsets")
        offsets = np.frombuffer(data, "<u8", offset=_HEADER_BYTES)
        if offsets[0] != 0 or offsets[-1] != end - begin or (offsets[1:] < offsets[:-1]).any():
            raise self.damaged(f"its member {OFFSETS!r} does not fit to {RECORDS!r}")
        return offsets.astype(np.int64) + begin

    def damaged(self, why: str) -> CorruptDataError:
        """Return the error for a file that is not whole."""
        return CorruptDataError(f"{self.path!r} is damaged: {why}. Copy it again, or write it anew")


class NpzRecords(IndexedData):
    """Read the datapoints that ``NumpySerializer`` wrote; ``NumpySerializer.load`` makes these and explains them."""

    def __init__(self, path: Any, shuffle: bool = True, *, seed: int | None = None) -> None:
        self.path = checked_path(path=path)
        super().__init__(self.path, shuffle, seed)

    def _open(self) -> _Opened:
        file = NpzFile(self.path)
        if RECORDS not in file.members or OFFSETS not in file.members:
            names = ", ".join(map(repr, file.members[:8])) or "nothing"
            raise CorruptDataError(
                f"{self.path!r} is no file of NumpySerializer, or a damaged one: it holds {names}. "
                "For arrays with a row for each datapoint, DataFromList(list(zip(*np.load(path).values())))"
            )
        return _Opened(file, file.offsets())

    def _size(self) -> int:
        return len(self._opened().offsets) - 1

    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        return map(self._opened().datapoint, numbers)

    def damages(self, on_record: Callable[[], None] | None = None) -> Iterator[tuple[int, str]]:
        """Read every record, and yield the number and the fault of each that is damaged."""
        for number in range(len(self)):
            try:
                self._opened().datapoint(number)
            except CorruptDataError as error:
                yield number, str(error)
            if on_record is not None:
                on_record()


class _Opened(NamedTuple):
    file: NpzFile
    offsets: np.ndarray[Any, Any]

    def datapoint(self, number: int) -> Any:
        """Read one datapoint, in memory of its own."""
        start, stop = self.offsets.item(number), self.offsets.item(number + 1)
        return decode(self.file.read(start, stop - start), False, True)


def _reader(file: BinaryIO) -> Callable[[bytearray, int], None]:
    """Return what fills memory from a place in ``file``, for any number of threads."""
    try:
        descriptor = file.fileno()
    except OSError:
        descriptor = -1
    if descriptor >= 0 and hasattr(os, "preadv"):

        def read_at(data: bytearray, start: int) -> None:
            left = memoryview(data)
            while left and (got := os.preadv(descriptor, [left], start)):
                left, start = left[got:], start + got
            _expect_all(left)

    else:
        lock = threading.Lock()

        def read_at(data: bytearray, start: int) -> None:
            with lock:
                file.seek(start)
                got = file.readinto(data)  # type: ignore[attr-defined]  # buffered files have it
            _expect_all(memoryview(data)[got:])

    return read_at


def _expect_all(left: memoryview) -> None:
    if left:
        raise CorruptDataError(f"the file is shorter than it was: {len(left)} bytes are missing")
