"""Open Parquet and Arrow files: where their groups are, whether they are whole, and how one is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from ..codec import checksum
from ..codec.columns import is_text, parts_of, pyarrow
from ..errors import CorruptDataError
from ..utils.deps import need
from .parquet_groups import PIECE, ColumnData, Table, no_block
from .parquet_messages import Messages
from .parquet_note import NOTE, Note, note_in
from .parquet_source import Source

# A group that unpacks to more than this, and to a thousand times its size, is a trap.
_TRAP_BYTES, _TRAP_RATIO = 1 << 30, 1000
# What is decoded of a group at a time, where its types tell that; else as many rows as are made at a time.
_PIECE_BYTES = 1 << 26
# Of a batch, in rows: what Arrow recommends.
_MOST_COUNT = (1 << 31) - 1
# What a stream begins with, and no file.
_STREAM = b"\xff\xff\xff\xff"


class ParquetData(ColumnData):
    """Read a Parquet file; ``ParquetSerializer.load`` makes these and explains them."""

    _format = "Parquet"

    def _table(self, source: Source) -> Table:
        parquet = need("pyarrow.parquet", by="ParquetSerializer")
        sealed = source.check_seal()
        opened = partial(
            parquet.ParquetFile, pyarrow().PythonFile(source, "r"), pre_buffer=False,
            page_checksum_verification=self.verify != "off",
        )  # fmt: skip
        plain = opened()
        about, schema = plain.metadata, plain.schema_arrow
        sizes = [about.row_group(number) for number in range(about.num_row_groups)]
        counts = [group.num_rows for group in sizes]
        note = note_in(about.metadata)
        if note is not None:
            if not sealed:
                raise CorruptDataError("the checksum of its end is missing: damaged, or changed by another program")
            _check_columns(note, schema, tensors=False)
            if [group[3:4] for group in note.groups] != [[count] for count in counts]:
                raise CorruptDataError("it holds other groups of rows than it notes. Copy it again")
            if any(offset + length > source.size for offset, length, *_ in note.groups):
                raise CorruptDataError("a group that it notes lies behind its end. Copy it again")
        # Of single columns pyarrow tells nothing without ending the process, where they are damaged.
        claims = [group.total_byte_size for group in sizes]
        _refuse_trap(max(claims, default=0), source)
        if min(counts, default=0) < 0:
            raise CorruptDataError("a group has less than no rows. Copy it again")
        width = max(sum(map(_width, schema.types)), 8 * about.num_columns)
        unpacked = sum(max(claim, width * count) for claim, count in zip(claims, counts, strict=True))
        # A text of a megabyte that is repeated takes some bits for each row: it is not decoded for each. Of each piece
        # all words are made anew, so it is as large as can be.
        texts = [name for name, kind in zip(schema.names, schema.types, strict=True) if is_text(kind)]
        file = opened(metadata=about, read_dictionary=texts)
        piece = max(1, _PIECE_BYTES // max(1, width))
        if any(kind.num_fields for kind in schema.types):  # of lists nobody knows how long they are
            piece = min(piece, PIECE)
        names, wanted = self.columns or schema.names, self.columns

        def read(group: int, verify: bool) -> Iterator[Any]:
            view = None
            if note is not None:
                offset, length, crc, *_ = note.groups[group]
                view = _view(note, group, names)
                source.load(offset, length, crc if verify else None, align=view.place if view else 0)
            if view is None:
                batches: Iterator[Any] = file.iter_batches(piece, [group], wanted, use_threads=False)
                return batches
            others = [name for name in dict.fromkeys(names) if name != view.name]
            batches = file.iter_batches(piece, [group], others, use_threads=False)
            return _joined(batches, others, view.name, view.array(source))

        rows = self._maker(schema, note, no_block if self._shuffle else _memory)
        return Table(
            [*accumulate(counts, initial=0)],
            read,
            rows,
            unpacked // max(1, sum(counts)),
            _types(schema),
            note,
            self._verified_before(source),
            [None],
        )


class ArrowData(ColumnData):
    """Read an Arrow file; ``ArrowSerializer.load`` makes these and explains them."""

    _format = "Arrow"

    def _table(self, source: Source) -> Table:
        ipc = need("pyarrow.ipc", by="ArrowSerializer")
        if source.size > 4 and source.peek(0, 4) == _STREAM:
            raise CorruptDataError(
                "it is an Arrow stream and no file, which has an end that tells where all else is. Read it with "
                "pyarrow.ipc.open_stream(...).read_all(), and write that with pyarrow.feather.write_feather"
            )
        file = ipc.open_file(pyarrow().PythonFile(source, "r"))
        messages = Messages(source)
        if (batches := len(messages)) != file.num_record_batches:
            raise CorruptDataError("its footer is damaged. Copy it again")
        note = note_in(file.schema.metadata)
        if note is None:
            counts = _foreign_counts(messages)
        else:
            _check_columns(note, file.schema, tensors=True)
            counts = _noted_counts(messages, note)

        def read(group: int, verify: bool) -> Iterator[Any]:
            _refuse_trap(messages.unpacked(group), source)
            batch, noted = file.get_batch_with_custom_metadata(group)
            batch.validate()  # or its checksum might be taken of less than it says
            if note is not None and not _is_noted(batch, noted, group, group == batches - 1, verify):
                raise CorruptDataError("its checksum does not agree, or batches behind it are missing. Copy it again")
            return iter([batch])

        rows = self._maker(file.schema, note, lambda _: source.block)
        return Table(
            [*accumulate(counts, initial=0)],
            read,
            rows,
            source.size // max(1, sum(counts)),
            _types(file.schema),
            note,
            self._verified_before(source),
            [None],
        )


def _refuse_trap(claim: int, source: Source) -> None:
    """Raise if a group would take far more memory than its file has bytes."""
    if claim > max(_TRAP_BYTES, _TRAP_RATIO * source.size):
        raise CorruptDataError(f"a group would unpack from less than {source.size:,} bytes to {claim:,}: a trap")


class _View(NamedTuple):
    """Arrays that need not be decoded: they lie in a group as they are in memory."""

    name: str  # of their column
    place: int  # where in the file they begin
    rows: int
    width: int

    def array(self, source: Source) -> Any:
        """Return them as an Arrow array, which is a view on the group that is loaded."""
        pa = pyarrow()
        memory = pa.py_buffer(source.loaded(self.place, self.rows * self.width))
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(self.width), self.rows, [None, memory])


def _view(note: Note, group: int, names: list[str]) -> _View | None:
    """Return the column that is most of a group, if it is among these and its place is noted.

    Others are decoded into memory of their own: an array that is kept should not keep a group of other things.
    """
    length, _, rows, *places = note.groups[group][1:]
    for column, place in zip((column for column in note.columns if column.has_bytes), places, strict=False):
        if column.name in names and 2 * rows * column.width >= length:
            return _View(column.name, place, rows, column.width)
    return None


def _width(kind: Any) -> int:
    """Return how many bytes a value takes; 8 where that differs."""
    try:
        return int(max(8, kind.bit_width // 8))
    except ValueError:
        return 8


def _joined(batches: Iterator[Any], names: list[str], name: str, array: Any) -> Iterator[Any]:
    """Add the column ``name`` to batches of those with ``names``."""
    start = 0
    for batch in batches:
        part = array.slice(start, len(batch))
        yield pyarrow().record_batch([*map(batch.column, names), part], [*names, name])
        start += len(batch)


def _memory(array: Any) -> Any:
    """Return the memory of an array of fixed size: pyarrow has decoded it there, or a group was read there."""
    memory = array.buffers()[1]
    return np.frombuffer(memory, np.uint8) if memory is not None and memory.is_mutable else None


def batch_note(batch: Any, number: int, counts: list[int] | None) -> bytes:
    """Return what our writer notes of a batch: its place, and the checksum of all that it holds.

    Args:
        batch: the batch.
        number: which one it is.
        counts: with the last batch, the rows of each.
    """
    noted = _place(number, counts is not None) + _crc(batch)
    if counts is None:
        return noted
    text = json.dumps(counts).encode()
    return b"%b %08x%b" % (noted, checksum(text), text)


def _crc(batch: Any) -> bytes:
    extend = need("google_crc32c", by="the checksum of a batch").extend
    crcs = [len(batch), *(extend(0, part) for column in batch.columns for part in parts_of(column))]
    return b"%08x" % checksum(str(crcs).encode())


def _place(number: int, is_last: bool) -> bytes:
    return b"%d %d " % (number, is_last)


def _is_noted(batch: Any, noted: Any, number: int, is_last: bool, verify: bool) -> bool:
    """Say whether a batch is the one that our writer noted to be in this place; its bytes only if they are verified."""
    expected = _place(number, is_last) + (_crc(batch) if verify else b"")
    return bool((noted or {}).get(NOTE, b"").startswith(expected))


def _foreign_counts(messages: Messages) -> list[int]:
    """Return how many rows are in each batch of a file without a note.

    Raises:
        CorruptDataError: if they are ours: a flipped bit may hide the note.
    """
    counts = []
    for number in range(len(messages)):
        rows, noted = messages[number]
        if noted is not None:
            raise CorruptDataError(
                "its batches have checksums, and what it notes of its columns is lost. Copy it again"
            )
        if not 0 <= rows <= _MOST_COUNT:
            raise CorruptDataError(f"a batch has {rows:,} rows. Copy it again")
        counts.append(rows)
    return counts


def _noted_counts(messages: Messages, note: Note) -> list[int]:
    """Return how many rows are in each batch of a file of ours, as the last one notes it.

    Raises:
        CorruptDataError: if that is not so.
    """
    if not len(messages):
        if note.groups != [[0]]:
            raise CorruptDataError("its footer names no batches, and there are some. Copy it again")
        return []
    rows, noted = messages[len(messages) - 1]
    place = _place(len(messages) - 1, True)
    if noted is None or not noted.startswith(place):
        raise CorruptDataError(
            "batches at its end are missing, or its last one is damaged, or another program wrote it anew and kept our "
            "note. Copy it again, or write it without the metadata of its schema"
        )
    match note.groups:
        case []:
            counts = _counts_in(noted[len(place) + 9 :])
        case [[int(each)]] if rows <= each:
            counts = [each] * (len(messages) - 1) + [rows]
        case _:
            counts = []
    if len(counts) != len(messages) or counts[-1] != rows or not all(0 < count <= _MOST_COUNT for count in counts):
        raise CorruptDataError("it holds other batches than it notes. Copy it again")
    return counts


def _counts_in(written: bytes) -> list[int]:
    """Return the numbers that ``batch_note`` wrote; none if they are damaged."""
    crc, text = written[:8], written[8:]
    if crc != b"%08x" % checksum(text):
        return []
    try:
        counts = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return counts if type(counts) is list and {*map(type, counts)} <= {int} else []


def _types(schema: Any) -> dict[str, str]:
    return dict(zip(schema.names, map(str, schema.types), strict=True))


def _check_columns(note: Note, schema: Any, tensors: bool) -> None:
    """Raise unless the columns of a file are those that it notes."""
    noted = [(column.name, column.arrow_type(tensors)) for column in note.columns]
    if noted != list(zip(schema.names, schema.types, strict=True)):
        raise CorruptDataError("its columns are not those that it notes: damaged, or changed by another program")
