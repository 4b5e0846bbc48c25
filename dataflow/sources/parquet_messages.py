"""What the batches of an Arrow file say of themselves: their rows, and how large they are once they are unpacked.

pyarrow tells neither before it has unpacked a batch, and few bytes may unpack to any number. A file ends with a footer,
which says where each batch is. A batch begins with a message, which says where in its body each buffer is. Both are
tables of FlatBuffers: a table begins with how far before it its fields are listed, each by how far behind it it is.
A compressed buffer begins with how many bytes it unpacks to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..errors import CorruptDataError
from .parquet_note import NOTE
from .parquet_source import Source

# Behind the footer: how long it is, and "ARROW1".
_END_BYTES = 10
_CONTINUED = b"\xff\xff\xff\xff"
_BLOCK = struct.Struct("<qi4xq")  # where a batch begins, and how long its message and its body are
_BUFFER = struct.Struct("<qq")  # where in the body it begins, and how long it is
# The numbers of the fields that are read.
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3
_MESSAGE_HEADER, _MESSAGE_METADATA = 2, 4
_DICTIONARY_DATA = 1
_BATCH_ROWS, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 2, 3


class Message(NamedTuple):
    """What a batch says of itself."""

    rows: int
    noted: bytes | None  # what our writer notes of it


class Messages:
    """The batches of an Arrow file that pyarrow could open.

    Raises:
        CorruptDataError: here and from its methods, if they are damaged.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        length = int.from_bytes(source.peek(source.size - _END_BYTES, 4), "little")
        with _damage("its footer"):
            footer = _Table.root(source.peek(source.size - _END_BYTES - length, length))
            self._batches = footer.structs(_FOOTER_BATCHES, _BLOCK)
            dictionaries = footer.structs(_FOOTER_DICTIONARIES, _BLOCK)
        # All of them are read with the first batch.
        self._dictionary_bytes = sum(self._unpacked(block, is_dictionary=True) for block in dictionaries)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Message:
        with _damage(f"batch {number}"):
            message = self._message(self._batches[number])
            noted = [pair.text(1) for pair in message.tables(_MESSAGE_METADATA) if pair.text(0) == NOTE]
            return Message(message.table(_MESSAGE_HEADER).number(_BATCH_ROWS), noted[0] if noted else None)

    def unpacked(self, number: int) -> int:
        """Return how many bytes are unpacked to read a batch; 0 if nothing is compressed."""
        return self._dictionary_bytes + self._unpacked(self._batches[number])

    def _message(self, block: tuple[int, ...]) -> _Table:
        data = self._source.peek(*block[:2])
        return _Table.root(data[8:] if data[:4] == _CONTINUED else data[4:])

    def _unpacked(self, block: tuple[int, ...], is_dictionary: bool = False) -> int:
        with _damage(f"the batch at byte {block[0]:,}"):
            batch = self._message(block).table(_MESSAGE_HEADER)
            if is_dictionary:
                batch = batch.table(_DICTIONARY_DATA)
            if not batch.has(_BATCH_COMPRESSION):
                return 0
            body = block[0] + block[1]
            return sum(self._claim(body + at, length) for at, length in batch.structs(_BATCH_BUFFERS, _BUFFER))

    def _claim(self, start: int, length: int) -> int:
        """Return how many bytes a buffer says that it unpacks to; -1 stands for "as it is"."""
        if length < 8:
            return 0
        claim = int.from_bytes(self._source.peek(start, 8), "little", signed=True)
        return length if claim < 0 else claim


@contextmanager
def _damage(where: str) -> Iterator[None]:
    try:
        yield
    except struct.error as error:
        raise CorruptDataError(f"{where} is damaged ({error}). Copy it again") from error


class _Table(NamedTuple):
    """A table of FlatBuffers; what lies outside of its data is a ``struct.error``."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, 0).follow(0)

    def follow(self, at: int) -> _Table:
        """Return the table that is named at a place."""
        return _Table(self.data, at + self._get("<I", at))

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def number(self, field: int) -> int:
        place = self._place(field)
        return 0 if place is None else self._get("<q", place)

    def table(self, field: int) -> _Table:
        place = self._place(field)
        if place is None:
            raise struct.error(f"field {field} is missing")
        return self.follow(place)

    def tables(self, field: int) -> list[_Table]:
        start, count = self._items(field, 4)
        return [self.follow(start + 4 * number) for number in range(count)]

    def structs(self, field: int, kind: struct.Struct) -> list[tuple[Any, ...]]:
        start, count = self._items(field, kind.size)
        return [*kind.iter_unpack(self.data[start : start + count * kind.size])]

    def text(self, field: int) -> bytes:
        start, count = self._items(field, 1)
        return self.data[start : start + count]

    def _items(self, field: int, size: int) -> tuple[int, int]:
        """Return where the items of a list begin, and how many there are."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = place + self._get("<I", place)
        count = self._get("<I", start)
        if start + 4 + count * size > len(self.data):
            raise struct.error(f"field {field} has {count:,} items")
        return start + 4, count

    def _place(self, field: int) -> int | None:
        fields = self.at - self._get("<i", self.at)
        if 6 + 2 * field > self._get("<H", fields):
            return None
        behind = self._get("<H", fields + 4 + 2 * field)
        return self.at + behind if behind else None

    def _get(self, kind: str, at: int) -> int:
        if at < 0:  # which struct would count from the end
            raise struct.error(f"there is no byte {at}")
        found: int = struct.unpack_from(kind, self.data, at)[0]
        return found
