"""Walk a file of columns group by group: in order, or shuffled exactly."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice, pairwise, repeat
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..codec.columns import Column, foreign, from_arrow, pyarrow
from ..errors import CorruptDataError, UsageError
from ..utils import check
from ..utils.open_file import existing_path, is_url, open_binary
from .indexed import IndexedData
from .parquet_note import Note
from .parquet_source import Source

VERIFY = ("off", "first", "always")

# What a shuffled pass reads ahead: all of a small file, and of a large one as much as is read once for it.
AHEAD_BYTES = 1 << 28
_MOST_AHEAD = 1 << 20
# Rows that are made at a time: a group may hold millions.
PIECE = 4096
# The order of a shuffled pass that takes more is a trap: rows that are all the same may take no bytes in a file.
_ORDER_BYTES, _ORDER_RATIO = 1 << 26, 256


class Table(NamedTuple):
    """An open file of columns."""

    starts: list[int]  # the number of the first datapoint of each group and, at the end, of all
    read: Callable[[int, bool], Iterator[Any]]  # a group, perhaps verified, as Arrow batches
    rows: Callable[[Any], Iterator[Any]]  # the datapoints of a batch
    row_bytes: int
    types: dict[str, str]  # the Arrow type of each column
    note: Note | None
    verified: set[int]  # groups that need not be verified again
    unused: list[None]  # one None until a pass takes the file: passes may overlap, and what is loaded belongs to one


class ColumnData(IndexedData):
    """Read the datapoints of a Parquet or Arrow file; the two classes below say how its groups are found."""

    _transient = (*IndexedData._transient, "_verified")
    # Which file, and which of its groups this process has verified.
    _verified: tuple[Any, set[int]] = (None, set())

    def __init__(
        self, path: Any, shuffle: bool = True, *, columns: list[str] | None = None, verify: str = "first",
        seed: int | None = None,
    ) -> None:  # fmt: skip
        check.one_of(VERIFY, verify=verify)
        self.path = existing_path("file", path=path)
        if columns is not None and (type(columns) is not list or not columns or {*map(type, columns)} != {str}):
            raise TypeError(f"columns must be a list of names, got {check.seen(columns)}")
        super().__init__(self.path, shuffle, seed)
        self.columns, self.verify = columns, verify

    _format: ClassVar[str]

    @abstractmethod
    def _table(self, source: Source) -> Table:
        """Open the file."""

    def _verified_before(self, source: Source) -> set[int]:
        """Return the groups of a file that need not be verified again."""
        if self.verify != "first" or source.identity is None:
            return set()
        if self._verified[0] != source.identity:
            self._verified = source.identity, set()
        return self._verified[1]

    def _open(self) -> Table:
        source = Source(open_binary(self.path), is_url(self.path))
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

    def _size(self) -> int:
        table: Table = self._opened()
        return table.starts[-1]

    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        table = self._own_table()
        return self._shuffled(table, numbers) if self._shuffle else self._in_order(table, numbers)

    def _own_table(self) -> Table:
        """Return the open file, or, if another pass reads that, one that was opened anew."""
        table: Table = self._opened()
        try:
            table.unused.pop()  # which only one of two threads can
        except IndexError:
            table = self._open()
            table.unused.pop()
        return table

    def _in_order(self, table: Table, numbers: Iterator[int]) -> Iterator[Any]:
        first = next(numbers, table.starts[-1])
        group = bisect_right(table.starts, first) - 1

        def rows(group: int) -> Iterator[Iterator[Any]]:
            for start, batch in self._group(table, group):
                if first < start + len(batch):
                    yield table.rows(batch.slice(max(0, first - start)))

        groups = range(group, len(table.starts) - 1)
        return chain.from_iterable(chain.from_iterable(map(rows, groups)))

    def _shuffled(self, table: Table, numbers: Iterator[int]) -> Iterator[Any]:
        """Take as many numbers as there is room for, and read each group once for all of them."""
        most = min(_MOST_AHEAD, AHEAD_BYTES // max(1, table.row_bytes) + 1)
        parts = iter(lambda: [*islice(numbers, most)], [])
        return chain.from_iterable(map(self._gathered, repeat(table), parts))

    def _gathered(self, table: Table, numbers: list[int]) -> Iterator[Any]:
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

    def _group(self, table: Table, group: int) -> Iterator[tuple[int, Any]]:
        """Read a group: yield batches, each behind the number of its first row."""
        start, behind = table.starts[group : group + 2]
        try:
            batches = table.read(group, self.verify != "off" and group not in table.verified)
            if self.verify == "first":
                table.verified.add(group)
            for batch in batches:
                batch.validate(full=True)
                if start + len(batch) > behind:
                    break
                for first in range(0, len(batch), PIECE):
                    yield start + first, batch.slice(first, PIECE)
                start += len(batch)
            if start != behind:
                raise CorruptDataError("other rows are there than are promised. Copy it again")
        except _damage() as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise self._damaged(start, f"group {group}, up to record {behind - 1}: {error}") from error

    def _maker(self, schema: Any, note: Note | None, block_of: Callable[[Any], Any]) -> Callable[[Any], Iterator[Any]]:
        """Return what makes datapoints of the columns that are read.

        Args:
            schema: the columns.
            note: what our writer noted of them.
            block_of: returns the memory that an Arrow array of ours lies in, if nobody else has it: arrays are views on
                it. None if it may be in other memory, too. A column that is named twice has it only once.
        """
        path = self.path  # and not self, which holds what is made here: it would live until a collection of garbage
        names = schema.names if self.columns is None else self.columns
        if missing := [name for name in names if name not in schema.names]:
            raise ValueError(f"{path!r} has no column {missing[0]!r}, only {', '.join(map(repr, schema.names))}")
        if len({*schema.names}) < len(schema.names):
            raise CorruptDataError("two columns have one name. Rename one")
        known = {} if note is None else {column.name: column for column in note.columns}
        read = [
            partial(_values, known[name], no_block if name in names[:index] else block_of)
            if name in known
            else foreign(schema.field(name).type)
            for index, name in enumerate(names)
        ]

        def rows(group: Any) -> Iterator[Any]:
            try:
                values = [make(group.column(name)) for name, make in zip(names, read, strict=True)]
            except ValueError as error:
                times = [name for name in names if getattr(schema.field(name).type, "unit", "") == "ns"]
                if not times:
                    raise
                raise UsageError(
                    f"{path!r} has times in nanoseconds, which Python's cannot hold, in column {times[0]!r}. Cast "
                    "it to 'us' where the file is written, or name the other columns with columns=[...]"
                ) from error
            if note is not None and note.layout == "list":
                return map(list, zip(*values, strict=True))
            return (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))

        return rows


def _values(column: Column, block_of: Callable[[Any], Any], array: Any) -> Iterator[Any]:
    return from_arrow(column, array, block_of(array) if column.has_bytes else None)


def no_block(_: Any) -> None:
    """Have arrays copied: in a random order, a few that are kept would keep all of the file that is read ahead."""


def _damage() -> tuple[type[Exception], ...]:
    """Return what pyarrow says to bytes that it cannot read."""
    pa = pyarrow()
    # An OSError of the operating system has an errno; those of pyarrow have none.
    return CorruptDataError, pa.ArrowException, OSError, MemoryError, UnicodeDecodeError
