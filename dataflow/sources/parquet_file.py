"""Open Parquet and Arrow files: where their groups are, whether they are whole, and how one is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from ..codec import checksum
from ..codec.columns import parts_of, pyarrow
from ..errors import CorruptDataError
from ..utils.deps import need
from .parquet_groups import ColumnData, Table
from .parquet_note import NOTE, Note, note_in
from .parquet_source import Source

# A group that unpacks to more than this, and to a thousand times its size, is a trap.
_TRAP_BYTES, _TRAP_RATIO = 1 << 30, 1000
# Rows that are made at a time: a group may hold millions.
_PIECE = 4096


class ParquetData(ColumnData):
    """Read a Parquet file; ``ParquetSerializer.load`` makes these and explains them."""

    _format = "Parquet"

    def _table(self, source: Source) -> Table:
        parquet = need("pyarrow.parquet", by="ParquetSerializer")
        sealed = source.check_seal()
        file = parquet.ParquetFile(
            pyarrow().PythonFile(source, "r"), pre_buffer=False, page_checksum_verification=self.verify != "off"
        )
        about = file.metadata
        sizes = [about.row_group(number) for number in range(about.num_row_groups)]
        counts = [group.num_rows for group in sizes]
        note = note_in(about.metadata)
        if note is not None:
            if not sealed:
                raise CorruptDataError("the checksum of its end is missing: damaged, or changed by another program")
            _check_columns(note, file.schema_arrow, tensors=False)
            if [group[3:4] for group in note.groups] != [[count] for count in counts]:
                raise CorruptDataError("it holds other groups of rows than it notes. Copy it again")
            if any(offset + length > source.size for offset, length, *_ in note.groups):
                raise CorruptDataError("a group that it notes lies behind its end. Copy it again")
        # Of single columns pyarrow tells nothing without ending the process, where they are damaged.
        claims = [group.total_byte_size for group in sizes]
        if (most := max(claims, default=0)) > max(_TRAP_BYTES, _TRAP_RATIO * source.size) or min(counts, default=0) < 0:
            raise CorruptDataError(f"a group would unpack from less than {source.size:,} bytes to {most:,}: a trap")
        unpacked = sum(max(claim, 8 * count * about.num_columns) for claim, count in zip(claims, counts, strict=True))

        names = self.columns or file.schema_arrow.names

        def read(group: int, verify: bool) -> Iterator[Any]:
            view = None
            if note is not None:
                offset, length, crc, *_ = note.groups[group]
                view = _view(note, group, names)
                source.load(offset, length, crc if verify else None, align=view.place if view else 0)
            if view is None:
                batches: Iterator[Any] = file.iter_batches(_PIECE, [group], self.columns, use_threads=False)
                return batches
            others = [name for name in dict.fromkeys(names) if name != view.name]
            batches = file.iter_batches(_PIECE, [group], others, use_threads=False)
            return _joined(batches, others, view.name, view.array(source))

        rows = self._maker(file.schema_arrow, note, _no_block if self._shuffle else _memory)
        return Table(
            [*accumulate(counts, initial=0)],
            read,
            rows,
            unpacked // max(1, sum(counts)),
            _types(file.schema_arrow),
            note,
            self._verified_before(source),
        )


class ArrowData(ColumnData):
    """Read an Arrow file; ``ArrowSerializer.load`` makes these and explains them."""

    _format = "Arrow"

    def _table(self, source: Source) -> Table:
        ipc = need("pyarrow.ipc", by="ArrowSerializer")
        file = ipc.open_file(pyarrow().PythonFile(source, "r"))
        batches = file.num_record_batches
        note = note_in(file.schema.metadata)
        if note is None:
            counts = [_foreign_rows(file, number) for number in range(batches)]
        else:
            _check_columns(note, file.schema, tensors=True)

        def read(group: int, verify: bool) -> Iterator[Any]:
            batch, noted = file.get_batch_with_custom_metadata(group)
            batch.validate()  # or its checksum might be taken of less than it says
            if note is not None and not _is_noted(batch, noted, group, group == batches - 1, verify):
                raise CorruptDataError("its checksum does not agree, or batches behind it are missing. Copy it again")
            return (batch.slice(start, _PIECE) for start in range(0, len(batch), _PIECE))

        if note is not None:
            counts = note.groups[0] * (batches - 1) + [_last_rows(file, batches, note)] if batches else []
        rows = self._maker(file.schema, note, lambda _: source.block)
        return Table(
            [*accumulate(counts, initial=0)],
            read,
            rows,
            source.size // max(1, sum(counts)),
            _types(file.schema),
            note,
            self._verified_before(source),
        )


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


def _no_block(_: Any) -> None:
    """Have arrays copied: in a random order, a few that are kept would keep all of the file that is read ahead."""


def batch_note(batch: Any, number: int, is_last: bool) -> bytes:
    """Return what our writer notes of a batch: its place, and the checksum of all that it holds."""
    extend = need("google_crc32c", by="the checksum of a batch").extend
    crcs = [len(batch), *(extend(0, part) for column in batch.columns for part in parts_of(column))]
    return b"%b%08x" % (_place(number, is_last), checksum(str(crcs).encode()))


def _place(number: int, is_last: bool) -> bytes:
    return b"%d %d " % (number, is_last)


def _is_noted(batch: Any, noted: Any, number: int, is_last: bool, verify: bool) -> bool:
    """Say whether a batch is the one that our writer noted to be in this place; its bytes only if they are verified."""
    written = (noted or {}).get(NOTE, b"")
    if verify:
        return bool(written == batch_note(batch, number, is_last))
    return bool(written.startswith(_place(number, is_last)))


def _foreign_rows(file: Any, number: int) -> int:
    """Return how many rows are in a batch of a file without a note.

    Raises:
        CorruptDataError: if the batch is ours: a flipped bit may hide the note.
    """
    batch, noted = file.get_batch_with_custom_metadata(number)
    if NOTE in (noted or {}):
        raise CorruptDataError("its batches have checksums, and what it notes of its columns is lost. Copy it again")
    return len(batch)


def _last_rows(file: Any, batches: int, note: Note) -> int:
    """Return how many rows are in the last batch, which is verified when it is due; all others have the noted number.

    Raises:
        CorruptDataError: if it does not say that it is the last.
    """
    batch, noted = file.get_batch_with_custom_metadata(batches - 1)
    if not _is_noted(batch, noted, batches - 1, True, verify=False) or not 0 < len(batch) <= note.groups[0][0]:
        raise CorruptDataError("batches at its end are missing, or its last one is damaged. Copy it again")
    return len(batch)


def _types(schema: Any) -> dict[str, str]:
    return dict(zip(schema.names, map(str, schema.types), strict=True))


def _check_columns(note: Note, schema: Any, tensors: bool) -> None:
    """Raise unless the columns of a file are those that it notes."""
    noted = [(column.name, column.arrow_type(tensors)) for column in note.columns]
    if noted != list(zip(schema.names, schema.types, strict=True)):
        raise CorruptDataError("its columns are not those that it notes: damaged, or changed by another program")
