"""Read TFRecord files: along the file, also at a URL, or by the numbers of the records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..base import DataFlow
from ..codec import loads
from ..codec.record import FIRST_BYTE, decode
from ..errors import CorruptDataError, UnknownLength, UsageError
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.open_file import existing_path, identity_of, is_url, open_binary
from .indexed import IndexedData
from .order import refuse_smaller
from .tfrecord_frames import (
    FOOT_BYTES,
    FRAME_BYTES,
    HEAD_BYTES,
    Bounds,
    Cursor,
    Record,
    Verified,
    indexed_bounds,
    place_of,
    read_frames,
    refuse_damaged,
    refuse_other_end,
    scanned_bounds,
    size_of_frame,
)

VERIFY = ("off", "first", "always")

# A larger record is not read in one piece: the operating system reads up to 2 GiB at once.
_MOST_AT_ONCE = 1 << 30

Make = Callable[[Record], Any]


class _Reading:
    """How records are read: what both readers have in common."""

    def _set_options(self, path: Any, verify: str, copy: bool, decode: bool, allow_pickle: bool) -> None:
        check.one_of(VERIFY, verify=verify)
        check.flag(copy=copy, decode=decode, allow_pickle=allow_pickle)
        self.path = existing_path("TFRecord file", path=path)
        self.verify, self.copy, self.decode, self.allow_pickle = verify, copy, decode, allow_pickle

    def _maker(self) -> Make:
        """Return what makes a datapoint of a record, in memory of its own."""
        if not self.decode:
            return lambda record: [record.tobytes()]
        copy, load = self.copy, partial(loads, allow_pickle=self.allow_pickle, copy=self.copy)

        def make(record: Record) -> Any:
            data = record.data if copy else record.data.toreadonly()
            if data and data[0] == FIRST_BYTE:
                return decode(data, False, False)  # the checksum of the frame has told
            try:
                return load(data)
            except CorruptDataError as error:
                raise CorruptDataError(f"{error}; for what other programs wrote, pass decode=False") from error

        return make


class TFRecordStream(_Reading, DataFlow):
    """Read the records of a TFRecord file one after another; ``TFRecordSerializer.load`` makes these."""

    _transient = (*DataFlow._transient, "_verified")
    # Which file, and how much of it this process has verified.
    _verified: tuple[Any, Verified] = (None, Verified())

    def __init__(
        self, path: Any, size: int | None = None, *, verify: str = "first", copy: bool = True, decode: bool = True,
        allow_pickle: bool = False,
    ) -> None:  # fmt: skip
        if size is not None:
            check.integer(0, size=size)
        self._set_options(path, verify, copy, decode, allow_pickle)
        self._size = None if size is None else int(size)

    def __len__(self) -> int:
        if self._size is None:
            raise UnknownLength(
                f"how many records {self.path!r} holds is known to those who have read it: pass size=, or index=True"
            )
        return self._size

    def _walk(self, at: Place, run: Run) -> Walk:  # noqa: ARG002  # no random numbers
        path, cursor = at["pass"], Cursor(at.get("index", 0), at.get("offset", 0))
        file = open_binary(self.path)
        end = file.seek(0, os.SEEK_END)
        refuse_smaller(cursor.offset, end, self.path)
        if not is_url(self.path):
            refuse_other_end(self.path, end)
        rows = read_frames(self.path, file, cursor, self._size, self._verified_before(), self._maker())
        return rows, lambda: {"pass": path, "index": cursor.number, "offset": cursor.offset}

    def _verified_before(self) -> Verified | None:
        """Return the record of what need not be verified again."""
        if self.verify == "off":
            return None
        identity = identity_of(self.path)
        if self.verify == "always" or identity is None:
            return Verified()
        if self._verified[0] != identity:
            self._verified = identity, Verified()
        return self._verified[1]


class _File(NamedTuple):
    """A file that is open, where its frames are, and which of them have been verified: along it, and by number."""

    file: BinaryIO
    bounds: Bounds
    along: Verified
    numbers: bytearray


class TFRecordRecords(_Reading, IndexedData):
    """Read the records of a TFRecord file by their numbers; ``TFRecordSerializer.load`` makes these."""

    def __init__(
        self, path: Any, shuffle: bool = False, *, verify: str = "first", copy: bool = True, decode: bool = True,
        allow_pickle: bool = False, seed: int | None = None,
    ) -> None:  # fmt: skip
        self._set_options(path, verify, copy, decode, allow_pickle)
        if is_url(self.path):
            raise UsageError(f"{self.path!r} is read along the file only: copy it to this machine for index=True")
        super().__init__(self.path, shuffle, seed)

    def _open(self) -> _File:
        file = open_binary(self.path)
        end = file.seek(0, os.SEEK_END)
        bounds = indexed_bounds(self.path, end)
        if bounds is None:
            bounds = scanned_bounds(self.path, file, end)
        return _File(file, bounds, Verified(), bytearray(len(bounds) - 1))

    def _size(self) -> int:
        return len(self._opened().numbers)

    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        file, bounds, along, _ = self._opened()
        if self._shuffle:
            return map(self._reader(), numbers)
        first = next(numbers, len(bounds) - 1)
        known = {"off": None, "first": along, "always": Verified()}[self.verify]
        # A file of its own: passes may overlap.
        cursor, file = Cursor(first, bounds.item(first)), open_binary(self.path)
        rows = read_frames(self.path, file, cursor, len(bounds) - 1, known, self._maker())
        return chain(rows, self._refuse_more(cursor, bounds.item(-1)))

    def _refuse_more(self, cursor: Cursor, end: int) -> Iterator[Any]:
        """Yield nothing, behind the last record that is indexed."""
        if cursor.offset != end:
            raise CorruptDataError("the file goes on behind the last record of its index, which is of another file")
        yield from ()

    def _reader(self) -> Callable[[int], Any]:
        """Return what reads one record."""
        file, bounds, _, verified = self._opened()
        descriptor, make, verify = file.fileno(), self._maker(), self.verify

        def row(number: int) -> Any:
            offset = bounds.item(number)
            size = bounds.item(number + 1) - offset
            if size > _MOST_AT_ONCE:
                known = None if verify == "off" else Verified()
                return next(read_frames(self.path, file, Cursor(number, offset), None, known, make))
            head, foot = bytearray(HEAD_BYTES), bytearray(FOOT_BYTES)
            record: Record = np.empty(size - FRAME_BYTES, np.uint8)
            read = os.preadv(descriptor, (head, record.data, foot), offset)
            if read < size or size_of_frame(bytes(head)) != size:
                raise CorruptDataError(f"its index gives it {size:,} bytes, and the file does not")
            if verify == "always" or (verify == "first" and not verified[number]):
                refuse_damaged(record, foot)
                verified[number] = 1
            return make(record)

        return row

    def _where(self, number: int) -> str:
        return place_of(self.path, number, self._opened().bounds.item(number))
