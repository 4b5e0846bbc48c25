"""Read Parquet and Arrow files through pyarrow: group by group, in order or shuffled exactly."""

from __future__ import annotations

import os
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, chain, islice, pairwise, repeat
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

from ..codec import checksum
from ..codec.columns import Column, foreign, from_arrow, parts_of, pyarrow
from ..errors import CorruptDataError, UsageError
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.deps import need
from ..utils.open_file import existing_path, open_binary
from .indexed import IndexedData
from .parquet_note import MAGIC_BYTES, NOTE, SEAL, UNSEALED, Note, note_in, seal_of

# What a shuffled pass reads ahead: all of a small file, and of a large one as much as is read once for it.
AHEAD_BYTES = 1 << 28
_MOST_AHEAD = 1 << 20
# A group that unpacks to more than this, and to a thousand times its size, is a trap.
_TRAP_BYTES, _TRAP_RATIO = 1 << 30, 1000
# And so is the order of a shuffled pass; rows that are all the same may take no bytes in a file.
_ORDER_BYTES, _ORDER_RATIO = 1 << 26, 256
# Batches of such sizes are read into memory of their own, and arrays are views on it: one that is kept keeps it all.
_LEAST_BLOCK, _MOST_BLOCK = 1 << 12, 1 << 22
# Rows that are made at a time: a group may hold millions.
_PIECE = 4096


class _Source:
    """A file as pyarrow reads it: a group that is loaded comes from memory, all else from the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0
        self._start, self._loaded = 0, memoryview(b"")
        self.block = np.empty(0, np.uint8)  # what was read last, if it was a batch
        self.size = file.seek(0, os.SEEK_END)
        self.closed = False

    def load(self, offset: int, length: int, crc: int) -> None:
        """Read a group, and verify it.

        Raises:
            CorruptDataError: if it is damaged.
        """
        self._loaded = memoryview(b"")  # first, so that never two are held
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length or checksum(data) != crc:
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


class _Table(NamedTuple):
    """An open file of columns."""

    starts: list[int]  # the number of the first datapoint of each group and, at the end, of all
    read: Callable[[int], Iterator[Any]]  # a group, as Arrow batches of at most _PIECE rows
    rows: Callable[[Any], list[Any]]  # the datapoints of a batch
    row_bytes: int
    types: dict[str, str]  # the Arrow type of each column
    note: Note | None


class ColumnData(IndexedData):
    """Read the datapoints of a Parquet or Arrow file; the two classes below say how its groups are found."""

    def __init__(
        self, path: Any, shuffle: bool = True, *, columns: list[str] | None = None, seed: int | None = None
    ) -> None:  # fmt: skip
        self.path = existing_path("file", path=path)
        if columns is not None and (type(columns) is not list or not columns or {*map(type, columns)} != {str}):
            raise TypeError(f"columns must be a list of names, got {check.seen(columns)}")
        super().__init__(self.path, shuffle, seed)
        self.columns = columns

    _format: ClassVar[str]

    @abstractmethod
    def _table(self, source: _Source) -> _Table:
        """Open the file."""

    def _open(self) -> _Table:
        return self._opened_by(_Source(open_binary(self.path)))

    def _opened_by(self, source: _Source) -> _Table:
        try:
            table = self._table(source)
            order = 8 * table.starts[-1]
            if self._shuffle and order > max(_ORDER_BYTES, _ORDER_RATIO * source.size):
                raise CorruptDataError(
                    f"the order of its {table.starts[-1]:,} rows would take {order:,} bytes, and it has {source.size:,}"
                    ": a trap. If you trust it, read it with shuffle=False"
                )
            return table
        except _damage() as error:
            if getattr(error, "errno", None) is not None:
                raise
            if isinstance(error, CorruptDataError):
                raise CorruptDataError(f"{self.path!r}: {error}") from error
            raise CorruptDataError(
                f"{self.path!r} is no {self._format} file, or a damaged one ({str(error).rstrip('.')}). Copy it again"
            ) from error

    def _walk(self, at: Place, run: Run) -> Walk:
        self._held = None  # a file of this pass alone: passes may overlap, and the group that is loaded belongs to it
        return super()._walk(at, run)

    def _size(self) -> int:
        table: _Table = self._opened()
        return table.starts[-1]

    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        table = self._opened()
        return self._shuffled(table, numbers) if self._shuffle else self._in_order(table, numbers)

    def _in_order(self, table: _Table, numbers: Iterator[int]) -> Iterator[Any]:
        first = next(numbers, table.starts[-1])
        group = bisect_right(table.starts, first) - 1

        def rows(group: int) -> Iterator[list[Any]]:
            for start, batch in self._group(table, group):
                if first < start + len(batch):
                    yield table.rows(batch.slice(max(0, first - start)))

        groups = range(group, len(table.starts) - 1)
        return chain.from_iterable(chain.from_iterable(map(rows, groups)))

    def _shuffled(self, table: _Table, numbers: Iterator[int]) -> Iterator[Any]:
        """Take as many numbers as there is room for, and read each group once for all of them."""
        most = min(_MOST_AHEAD, AHEAD_BYTES // max(1, table.row_bytes) + 1)
        parts = iter(lambda: [*islice(numbers, most)], [])
        return chain.from_iterable(map(self._gathered, repeat(table), parts))

    def _gathered(self, table: _Table, numbers: list[int]) -> Iterator[Any]:
        order = np.argsort(numbers)
        wanted = np.array(numbers)[order]
        rows: list[Any] = [None] * len(numbers)
        for group, (first, last) in enumerate(pairwise(np.searchsorted(wanted, table.starts).tolist())):
            for start, batch in self._group(table, group) if first < last else ():
                part = slice(*np.searchsorted(wanted, (start, start + len(batch))))
                if len(wanted[part]) < len(batch):
                    batch = batch.take(pyarrow().array(wanted[part] - start))
                for place, dp in zip(order[part].tolist(), table.rows(batch), strict=True):
                    rows[place] = dp
        rows.reverse()
        while rows:  # each is let go of when it is handed on
            yield rows.pop()

    def _group(self, table: _Table, group: int) -> Iterator[tuple[int, Any]]:
        """Read a group: yield batches, each behind the number of its first row."""
        start, behind = table.starts[group : group + 2]
        try:
            for batch in table.read(group):
                batch.validate(full=True)
                if start + len(batch) > behind:
                    break
                yield start, batch
                start += len(batch)
            if start != behind:
                raise CorruptDataError("other rows are there than are promised. Copy it again")
        except _damage() as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise self._damaged(start, f"group {group}, up to record {behind - 1}: {error}") from error

    def _maker(self, schema: Any, note: Note | None, source: _Source | None) -> Callable[[Any], list[Any]]:
        """Return what makes datapoints of the columns that are read, perhaps as views on the block of ``source``."""
        names = schema.names if self.columns is None else self.columns
        if missing := [name for name in names if name not in schema.names]:
            raise ValueError(f"{self.path!r} has no column {missing[0]!r}, only {', '.join(map(repr, schema.names))}")
        if len({*schema.names}) < len(schema.names):
            raise CorruptDataError("two columns have one name. Rename one")
        known = {} if note is None else {column.name: column for column in note.columns}
        read = [
            partial(_arrays_of, known[name], source) if name in known else foreign(schema.field(name).type)
            for name in names
        ]

        def rows(group: Any) -> list[Any]:
            try:
                values = [make(group.column(name)) for name, make in zip(names, read, strict=True)]
            except ValueError as error:
                times = [name for name in names if getattr(schema.field(name).type, "unit", "") == "ns"]
                if not times:
                    raise
                raise UsageError(
                    f"{self.path!r} has times in nanoseconds, which Python's cannot hold, in column {times[0]!r}. Cast "
                    "it to 'us' where the file is written, or name the other columns with columns=[...]"
                ) from error
            if note is not None and note.layout == "list":
                return [*map(list, zip(*values, strict=True))]
            return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]

        return rows


class ParquetData(ColumnData):
    """Read a Parquet file; ``ParquetSerializer.load`` makes these and explains them."""

    _format = "Parquet"

    def _table(self, source: _Source) -> _Table:
        parquet = need("pyarrow.parquet", by="ParquetSerializer")
        sealed = source.check_seal()
        file = parquet.ParquetFile(pyarrow().PythonFile(source, "r"), pre_buffer=False, page_checksum_verification=True)
        about = file.metadata
        sizes = [about.row_group(number) for number in range(about.num_row_groups)]
        counts = [group.num_rows for group in sizes]
        note = note_in(about.metadata)
        if note is not None:
            if not sealed:
                raise CorruptDataError("the checksum of its end is missing: damaged, or changed by another program")
            _check_columns(note, file.schema_arrow, tensors=False)
            if [group[3:] for group in note.groups] != [[count] for count in counts]:
                raise CorruptDataError("it holds other groups of rows than it notes. Copy it again")
            if any(offset + length > source.size for offset, length, *_ in note.groups):
                raise CorruptDataError("a group that it notes lies behind its end. Copy it again")
        # Of single columns pyarrow tells nothing without ending the process, where they are damaged.
        claims = [group.total_byte_size for group in sizes]
        if (most := max(claims, default=0)) > max(_TRAP_BYTES, _TRAP_RATIO * source.size) or min(counts, default=0) < 0:
            raise CorruptDataError(f"a group would unpack from less than {source.size:,} bytes to {most:,}: a trap")
        unpacked = sum(max(claim, 8 * count * about.num_columns) for claim, count in zip(claims, counts, strict=True))

        def read(group: int) -> Iterator[Any]:
            if note is not None:
                source.load(*note.groups[group][:3])
            batches: Iterator[Any] = file.iter_batches(_PIECE, [group], self.columns, use_threads=False)
            return batches

        rows = self._maker(file.schema_arrow, note, None)
        return _Table(
            [*accumulate(counts, initial=0)],
            read,
            rows,
            unpacked // max(1, sum(counts)),
            _types(file.schema_arrow),
            note,
        )


class ArrowData(ColumnData):
    """Read an Arrow file; ``ArrowSerializer.load`` makes these and explains them."""

    _format = "Arrow"

    def _table(self, source: _Source) -> _Table:
        ipc = need("pyarrow.ipc", by="ArrowSerializer")
        file = ipc.open_file(pyarrow().PythonFile(source, "r"))
        batches = file.num_record_batches
        note = note_in(file.schema.metadata)
        if note is None:
            counts = [file.get_batch(number).num_rows for number in range(batches)]
        else:
            _check_columns(note, file.schema, tensors=True)

        def read(group: int) -> Iterator[Any]:
            batch, noted = file.get_batch_with_custom_metadata(group)
            batch.validate()  # or its checksum might be taken of less than it says
            is_last = group == batches - 1
            if note is not None and (noted is None or noted.get(NOTE) != batch_note(batch, group, is_last)):
                raise CorruptDataError("its checksum does not agree, or batches behind it are missing. Copy it again")
            return (batch.slice(start, _PIECE) for start in range(0, len(batch), _PIECE))

        if note is not None:
            counts = note.groups[0] * (batches - 1) + [_last_rows(file, batches, note)] if batches else []
        rows = self._maker(file.schema, note, source)
        return _Table(
            [*accumulate(counts, initial=0)], read, rows, source.size // max(1, sum(counts)), _types(file.schema), note
        )


def batch_note(batch: Any, number: int, is_last: bool) -> bytes:
    """Return what our writer notes of a batch: its place, and the checksum of all that it holds."""
    extend = need("google_crc32c", by="the checksum of a batch").extend
    crcs = [len(batch), *(extend(0, part) for column in batch.columns for part in parts_of(column))]
    return b"%d %d %08x" % (number, is_last, checksum(str(crcs).encode()))


def _last_rows(file: Any, batches: int, note: Note) -> int:
    """Return how many rows are in the last batch, which is verified when it is due; all others have the noted number.

    Raises:
        CorruptDataError: if it does not say that it is the last.
    """
    batch, noted = file.get_batch_with_custom_metadata(batches - 1)
    is_last = noted is not None and noted.get(NOTE, b"").startswith(b"%d 1 " % (batches - 1))
    if not is_last or not 0 < len(batch) <= note.groups[0][0]:
        raise CorruptDataError("batches at its end are missing, or its last one is damaged. Copy it again")
    return len(batch)


def _arrays_of(column: Column, source: _Source | None, array: Any) -> Iterator[Any]:
    return from_arrow(column, array, None if source is None else source.block)


def _types(schema: Any) -> dict[str, str]:
    return dict(zip(schema.names, map(str, schema.types), strict=True))


def _check_columns(note: Note, schema: Any, tensors: bool) -> None:
    """Raise unless the columns of a file are those that it notes."""
    noted = [(column.name, column.arrow_type(tensors)) for column in note.columns]
    if noted != list(zip(schema.names, schema.types, strict=True)):
        raise CorruptDataError("its columns are not those that it notes: damaged, or changed by another program")


def _damage() -> tuple[type[Exception], ...]:
    """Return what pyarrow says to bytes that it cannot read."""
    pa = pyarrow()
    # An OSError of the operating system has an errno; those of pyarrow have none.
    return CorruptDataError, pa.ArrowException, OSError, MemoryError, UnicodeDecodeError
