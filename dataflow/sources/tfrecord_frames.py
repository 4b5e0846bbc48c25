"""The framing of TFRecord files.

A file is a row of frames and nothing else. All numbers are little-endian::

    u64      length of the record
    u32      masked crc32c of these 8 bytes
    bytes    the record
    u32      masked crc32c of the record

Where a frame begins is known to who has read all those before it, or has an index: the text file ``PATH.index`` with
a line ``offset size`` for each frame, as the program tfrecord2idx writes it.
"""

from __future__ import annotations

import functools
import os
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from ..errors import CorruptDataError
from ..utils.deps import need

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEAD = struct.Struct("<QI")
HEAD_BYTES, FOOT_BYTES = _HEAD.size, _CHECKSUM.size
# What a frame adds to its record.
FRAME_BYTES = HEAD_BYTES + FOOT_BYTES
# The last line of an index lies in its last so many bytes.
_LINE_BYTES = 64
# So many lines of an index are Python objects at a time.
_LINES = 1 << 16


# The bytes of a record in memory of their own: not zeroed before they are read, and google_crc32c takes no bytearray.
Record = np.ndarray[Any, np.dtype[np.uint8]]


def framed(record: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the frame of a record in three parts, of which the record is the second."""
    length = _LENGTH.pack(len(record))
    return length + _CHECKSUM.pack(_masked_crc32c(length)), record, _CHECKSUM.pack(_masked_crc32c(record))


def size_of_frame(head: bytes) -> int:
    """Return how long the frame is that begins with ``head``."""
    if len(head) < HEAD_BYTES:
        raise CorruptDataError("the file is cut short: it ends in the length of this record. Copy it again")
    length, crc = _HEAD.unpack(head)
    if _masked_crc32c(head[: _LENGTH.size]) != crc:
        raise CorruptDataError("the length of the record is damaged, or this is no TFRecord file. Copy it again")
    return int(length) + FRAME_BYTES


def cut_short(end: int) -> CorruptDataError:
    """Return the error for a record that goes beyond the end of its file."""
    return CorruptDataError(f"the file is cut short: it ends at byte {end:,}, in this record. Copy it again")


def refuse_damaged(record: bytes | Record, foot: bytes | bytearray) -> None:
    """Raise if a record and its checksum do not agree."""
    if _masked_crc32c(record) != _CHECKSUM.unpack(foot)[0]:
        raise CorruptDataError('its bytes and their checksum do not agree. Copy it again, or read on with verify="off"')


def _masked_crc32c(data: bytes | Record) -> int:
    """Return the crc32c of bytes in the form in which the format stores it."""
    crc = _crc32c()(0, data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc32c() -> Callable[[int, Any], int]:
    extend: Callable[[int, Any], int] = need("google_crc32c", by="the checksum of a TFRecord").extend
    return extend


# Where each frame begins, and at last where the file ends.
Bounds = np.ndarray[Any, np.dtype[np.int64]]


class Cursor:
    """Where a reader along the file is: in front of which record, and at which byte."""

    __slots__ = ("number", "offset")

    def __init__(self, number: int, offset: int) -> None:
        self.number, self.offset = number, offset


class Verified:
    """How many records from the start of a file have been found undamaged."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def read_frames(
    path: str,
    file: BinaryIO,
    cursor: Cursor,
    stop: int | None,
    verified: Verified | None,
    make: Callable[[Record], Any],
) -> Iterator[Any]:
    """Yield what ``make`` makes of each record from ``cursor`` on.

    Args:
        path: the name of the file.
        file: the file, to read and to seek in.
        cursor: the first record to read; it is moved along.
        stop: the number of the first record not to read; None to read to the end.
        verified: compare the checksums of the records behind these; None for those of no record.
        make: is given each record in memory of its own.

    Raises:
        CorruptDataError: if a record is damaged, or missing.
    """
    read = file.read
    readinto = file.readinto  # type: ignore[attr-defined]  # typeshed has it on the classes only
    end = file.seek(0, os.SEEK_END)
    file.seek(cursor.offset)
    known, size = b"", 0
    try:
        while cursor.number != stop:
            if cursor.offset >= end:
                if stop is None:
                    return
                raise CorruptDataError(f"the file ends here, and {stop:,} records are expected. Is it cut short?")
            head = read(HEAD_BYTES)
            if head != known:  # records of one length have one head, and it need not be looked at again
                known, size = head, size_of_frame(head)
            behind = cursor.offset + size
            if behind > end:  # seen before memory is taken
                raise cut_short(end)
            record: Record = np.empty(size - FRAME_BYTES, np.uint8)
            readinto(record)
            foot = read(FOOT_BYTES)
            if len(foot) < FOOT_BYTES:
                raise CorruptDataError("the file has become shorter while it was read")
            if verified is not None and cursor.number >= verified.count:
                refuse_damaged(record, foot)
                if cursor.number == verified.count:
                    verified.count += 1
            dp = make(record)
            cursor.number += 1
            cursor.offset = behind
            yield dp
    except CorruptDataError as error:
        raise located(path, cursor.number, cursor.offset, error) from error
    except Exception as error:
        error.add_note(f"in {path!r}, record {cursor.number} at byte {cursor.offset:,}")
        raise


def index_of(path: str) -> str:
    """Return where the index of a file on this machine is."""
    return f"{path}.index"


def index_lines(lengths: Iterable[int]) -> Iterator[bytes]:
    """Yield the lines of an index, from the lengths of the records."""
    offset = 0
    for length in lengths:
        size = length + FRAME_BYTES
        yield b"%d %d\n" % (offset, size)
        offset += size


def indexed_bounds(path: str, end: int) -> Bounds | None:
    """Return the bounds of the frames as the index says; None if there is none.

    Args:
        path: the TFRecord file.
        end: how long it is.

    Raises:
        CorruptDataError: if the index is not one of this file.
    """
    numbers = [np.empty(0, np.int64)]
    try:
        with open(index_of(path), "rb") as file:
            while lines := list(islice(file, _LINES)):
                # By way of bytes: numpy reads the numbers, and refuses what is none.
                numbers.append(np.array(b"".join(lines).split(), "S20").astype(np.int64))
        offsets, sizes = np.concatenate(numbers).reshape(-1, 2).T
    except FileNotFoundError:
        return None
    except (ValueError, OverflowError) as error:
        raise _unfit(path, f"it is no list of numbers ({error})") from error
    said = sum(map(int, (*offsets[-1:], *sizes[-1:])))
    if said > end:
        raise _shorter(path, end, said)
    bounds = np.append(offsets, end)
    if (sizes < FRAME_BYTES).any() or bounds.min() != bounds[0] or bounds[0] or bounds.max() > end:
        raise _unfit(path, f"its frames do not lie in {end:,} bytes")
    if (np.diff(bounds) != sizes).any():
        raise _unfit(path, f"its frames do not fill {end:,} bytes one after another")
    return bounds


def refuse_other_end(path: str, end: int) -> None:
    """Raise if there is an index by which the file does not end at ``end``: it may end between two records, too.

    Raises:
        CorruptDataError: if it is so.
    """
    try:
        with open(index_of(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LINE_BYTES))
            last = file.read().splitlines()[-1:]
    except FileNotFoundError:
        return
    try:
        said = sum(int(word) for line in last for word in line.split())
    except ValueError as error:
        raise _unfit(path, f"its last line is {last[0]!r}") from error
    if said > end:
        raise _shorter(path, end, said)
    if said != end:
        raise _unfit(path, f"by its last line the file has {said:,} bytes, and it has {end:,}")


def scanned_bounds(path: str, file: BinaryIO, end: int) -> Bounds:
    """Return the bounds of the frames of a file without an index, after reading all lengths.

    Raises:
        CorruptDataError: at the first length that is damaged.
    """
    bounds, offset, descriptor = array("q", [0]), 0, file.fileno()
    try:
        while offset < end:
            behind = offset + size_of_frame(os.pread(descriptor, HEAD_BYTES, offset))
            if behind > end:
                raise cut_short(end)
            bounds.append(behind)
            offset = behind
    except CorruptDataError as error:
        raise located(path, len(bounds) - 1, offset, error) from error
    return np.array(bounds, np.int64)


def located(path: str, number: int, offset: int, why: object) -> CorruptDataError:
    """Return the error for a record that cannot be read."""
    return CorruptDataError(f"{place_of(path, number, offset)}: {why}")


def place_of(path: str, number: int, offset: int) -> str:
    """Say where a record is."""
    return f"{path!r}, record {number} at byte {offset:,}"


def _shorter(path: str, end: int, said: int) -> CorruptDataError:
    return CorruptDataError(
        f"{path!r} is cut short: it has {end:,} bytes, and {said:,} by {index_of(path)!r}. Copy it again; or, if the "
        "file is whole, remove the index, which is of another one then: without it the file is read through once"
    )


def _unfit(path: str, why: str) -> CorruptDataError:
    return CorruptDataError(
        f"{index_of(path)!r} is not the index of {path!r}: {why}. If the file is whole, remove the index: "
        "without one the file is read through once"
    )
