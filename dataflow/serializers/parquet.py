"""Write a flow to a Parquet or an Arrow file, and read it again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np

from ..codec.columns import Column, new_column, pyarrow, to_arrow
from ..sources.parquet_file import ArrowData, ParquetData, batch_note
from ..sources.parquet_note import NOTE, SEAL, UNSEALED, Note, seal_of
from ..utils import check
from ..utils.deps import need
from . import parquet_check
from .saving import Saving, saving

# A group ends behind so many bytes or rows. One of Parquet is unpacked as a whole, for any row of it.
PARQUET_BYTES, ARROW_BYTES = 1 << 22, 1 << 20
MOST_ROWS = 1 << 16


class ParquetSerializer:
    """Save a flow to a Parquet file, and load it again; needs the package pyarrow.

    A list becomes columns named "0", "1" and so on, a dict columns of its keys. A column holds bool, int, float, str,
    bytes, None, numpy numbers, or arrays of one dtype and one shape, which other programs see as binary of fixed size.

    >>> import tempfile, pytest
    >>> _ = pytest.importorskip("pyarrow")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ParquetSerializer.save(DataFromList([["a", 1], ["b", 2]], shuffle=False), f"{folder}/x.parquet")
    ...     list(ParquetSerializer.load(f"{folder}/x.parquet", shuffle=False))
    [['a', 1], ['b', 2]]
    """

    @staticmethod
    def save(df: Any, path: Any, *, compression: str = "none") -> None:
        """Write one pass of a flow, after a ``reset_state``, to a new file.

        The file is there when it is complete and on the disk, or not at all. Every group of rows carries a checksum.

        Args:
            df: a finite flow of lists or dicts.
            path: path or URL of a file that does not exist.
            compression: "none", "snappy", "gzip", "brotli", "lz4" or "zstd".

        Raises:
            FileExistsError: if the file exists.
            OSError: with ``path`` in it, if it cannot be written.
            UsageError: if the flow never ends.
            TypeError: if a datapoint is not like the first, or holds something that a column does not; a note says
                which.
        """
        check.one_of(("none", "snappy", "gzip", "brotli", "lz4", "zstd"), compression=compression)
        parquet = need("pyarrow.parquet", by="ParquetSerializer")
        with saving(df, path, by="ParquetSerializer.save") as job:
            table = _Columns(job, "ParquetSerializer.save", tensors=False)
            groups: list[list[int]] = []
            file: Any = None
            writer: Any = None
            try:
                for rows in table.groups(PARQUET_BYTES):
                    batch = table.batch(rows)
                    if writer is None:
                        file = _Summed(job.open())
                        writer = parquet.ParquetWriter(
                            file, batch.schema, compression=compression, use_dictionary=table.texts(),
                            write_statistics=False,
                        )  # fmt: skip
                        file.part()
                    writer.write_batch(batch)
                    groups.append([*file.part(), len(rows)])
                if writer is None:
                    file = _Summed(job.open())
                    writer = parquet.ParquetWriter(file, pyarrow().schema([]))
                writer.add_key_value_metadata({NOTE: table.note(groups).written(), "seal": SEAL + UNSEALED})
                file.hold()
                writer.close()
                file.seal()
            except BaseException:
                if writer is not None:
                    file.hold()
                    writer.close()  # or it would complain later that its file is closed
                raise

    @staticmethod
    def load(
        path: Any, shuffle: bool = True, *, columns: list[str] | None = None, seed: int | None = None
    ) -> ParquetData:  # fmt: skip
        """Return a flow of the datapoints that ``save`` wrote, or of the rows of any Parquet file as dicts.

        What other programs wrote becomes values of Python, such as int, datetime, list and dict, and tensors arrays.
        Rows are read a group at a time. A shuffled pass reads 256 MiB ahead and each group once for it, so that a file
        of less is read once a pass, and one of ten times as much ten times.

        Args:
            path: path or URL.
            shuffle: yield the datapoints in a new random order in each pass.
            columns: read only the columns of these names.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: from ``len`` and ``iter``, if there is no such column.
            CorruptDataError: from ``len`` and ``iter``, if it is no Parquet file or a damaged one; while iterating,
                with file and record, if a group of rows is damaged.
        """
        return ParquetData(path, shuffle, columns=columns, seed=seed)

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what a file is, in a JSON-able dict; what stands at its end is read.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no Parquet file or a damaged one.
        """
        return parquet_check.inspect(ParquetData(path, False), "Parquet")

    @staticmethod
    def damages(
        path: Any,
        *,
        allow_pickle: bool = False,  # noqa: ARG004  # as all serializers have it
        on_record: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, str]]:
        """Read every row of a file, and yield the number and the fault of each in a group that is damaged.

        Args:
            path: path or URL.
            allow_pickle: of no effect; there are no pickles.
            on_record: is called after each datapoint.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it cannot be opened.
        """
        return parquet_check.damages(ParquetData(path, False), on_record)


class ArrowSerializer:
    """Save a flow to an Arrow (Feather) file, and load it again; needs the package pyarrow.

    As ``ParquetSerializer``, with arrays of numbers as tensors. Larger than Parquet where that compresses, and faster.

    >>> import tempfile, pytest
    >>> _ = pytest.importorskip("pyarrow")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ArrowSerializer.save(DataFromList([{"x": np.zeros(2), "y": 1}], shuffle=False), f"{folder}/x.arrow")
    ...     list(ArrowSerializer.load(f"{folder}/x.arrow", shuffle=False))
    [{'x': array([0., 0.]), 'y': 1}]
    """

    @staticmethod
    def save(df: Any, path: Any) -> None:
        """Write one pass of a flow, after a ``reset_state``, to a new file; as ``ParquetSerializer.save``.

        Args:
            df: a finite flow of lists or dicts.
            path: path or URL of a file that does not exist.

        Raises:
            FileExistsError: if the file exists.
            OSError: with ``path`` in it, if it cannot be written.
            UsageError: if the flow never ends.
            TypeError: if a datapoint is not like the first, or holds something that a column does not; a note says
                which.
        """
        ipc = need("pyarrow.ipc", by="ArrowSerializer")
        with saving(df, path, by="ArrowSerializer.save") as job:
            table = _Columns(job, "ArrowSerializer.save", tensors=True)
            writer, number, batch = None, 0, None
            for rows in table.groups(ARROW_BYTES, equal=True):
                if writer is None:
                    first = table.batch(rows)
                    note = table.note([[len(rows)]])
                    writer = ipc.new_file(job.open(), first.schema.with_metadata({NOTE: note.written()}))
                    batch = first
                    continue
                writer.write_batch(batch, custom_metadata={NOTE: batch_note(batch, number, False)})
                batch, number = table.batch(rows), number + 1
            if writer is None:
                note = table.note([[0]])
                writer = ipc.new_file(job.open(), pyarrow().schema([], {NOTE: note.written()}))
            else:
                writer.write_batch(batch, custom_metadata={NOTE: batch_note(batch, number, True)})
            writer.close()

    @staticmethod
    def load(
        path: Any, shuffle: bool = True, *, columns: list[str] | None = None, seed: int | None = None
    ) -> ArrowData:  # fmt: skip
        """Return a flow of the datapoints that ``save`` wrote, or of the rows of any Arrow file as dicts.

        As ``ParquetSerializer.load``. The groups of other programs are all read once, for the length.

        Args:
            path: path or URL.
            shuffle: yield the datapoints in a new random order in each pass.
            columns: read only the columns of these names.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: from ``len`` and ``iter``, if there is no such column.
            CorruptDataError: from ``len`` and ``iter``, if it is no Arrow file or a damaged one; while iterating, with
                file and record, if a group of rows is damaged.
        """
        return ArrowData(path, shuffle, columns=columns, seed=seed)

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what a file is, in a JSON-able dict; as ``ParquetSerializer.inspect``."""
        return parquet_check.inspect(ArrowData(path, False), "Arrow")

    @staticmethod
    def damages(
        path: Any,
        *,
        allow_pickle: bool = False,  # noqa: ARG004  # as all serializers have it
        on_record: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, str]]:
        """Yield the number and the fault of each row in a damaged group; as ``ParquetSerializer.damages``."""
        return parquet_check.damages(ArrowData(path, False), on_record)


class _Columns:
    """The datapoints of a ``save``, on their way into columns."""

    def __init__(self, job: Saving, by: str, tensors: bool) -> None:
        self._job, self._by, self._tensors = job, by, tensors
        self._layout: type[Any] = list
        self._names: list[Any] = []
        self._columns: list[Column] = []
        self._done = 0

    def groups(self, most_bytes: int, equal: bool = False) -> Iterator[list[list[Any]]]:
        """Yield the rows of one group after another; where they are to be ``equal``, the first one says how many."""
        rows: list[list[Any]] = []
        size, most = 0, MOST_ROWS
        for dp in self._job.rows():
            rows.append(self._row(dp))
            size += sum(map(_size, rows[-1]))
            if len(rows) == most or (size >= most_bytes and (most == MOST_ROWS or not equal)):
                if equal:
                    most = len(rows)
                yield rows
                self._done += len(rows)
                rows, size = [], 0
        if rows:
            yield rows

    def _row(self, dp: Any) -> list[Any]:
        if not self._names:
            if type(dp) not in (list, dict) or not dp or any(type(key) is not str for key in dp if type(dp) is dict):
                raise TypeError(
                    f"a row of a table is a list or a dict with keys of str, and not empty; got {check.seen(dp)}. Make "
                    "it one with MapData, or save it with LMDBSerializer"
                )
            self._layout, self._names = type(dp), [*dp] if type(dp) is dict else [*range(len(dp))]
        same = type(dp) is self._layout and len(dp) == len(self._names)
        if not same or (type(dp) is dict and dp.keys() != {*self._names}):
            raise TypeError(
                f"every row of a table has the same components, and this one is no {self._layout.__name__} with "
                f"{', '.join(map(repr, self._names))}. Make them alike with MapData, or save them with LMDBSerializer"
            )
        return dp if type(dp) is list else [dp[name] for name in self._names]

    def batch(self, rows: list[list[Any]]) -> Any:
        """Return rows as an Arrow batch."""
        values = [[*column] for column in zip(*rows, strict=True)]
        fails = [self._failing(name) for name in self._names]
        if not self._columns:
            self._columns = [*map(new_column, map(str, self._names), values, fails)]
        arrays = [
            to_arrow(column, part, self._tensors, fail)
            for column, part, fail in zip(self._columns, values, fails, strict=True)
        ]
        return pyarrow().record_batch(arrays, [column.name for column in self._columns])

    def _failing(self, name: Any) -> Callable[[int, str], TypeError]:
        def fail(index: int, why: str) -> TypeError:
            error = TypeError(f"cannot store dp[{name!r}]: {why}. LMDBSerializer and TFRecordSerializer hold anything")
            error.add_note(f"in {self._by}, datapoint {self._done + index}")
            return error

        return fail

    def texts(self) -> list[str]:
        """Name the columns that may repeat themselves."""
        return [column.name for column in self._columns if column.kind == "str"]

    def note(self, groups: list[list[int]]) -> Note:
        """Return what the file notes."""
        return Note(self._layout.__name__, tuple(self._columns), groups)


class _Summed:
    """What pyarrow writes to: knows how much it was, and the checksum of the part that is being written."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = self._real = file
        self._extend = need("google_crc32c", by="the checksum of a group").extend
        self._start = self._at = self._crc = 0

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._crc = self._extend(self._crc, data)
        self._at += len(data)
        return len(data)

    def part(self) -> list[int]:
        """Return offset, length and crc32c of what was written since the last time."""
        part = [self._start, self._at - self._start, self._crc]
        self._start, self._crc = self._at, 0
        return part

    def hold(self) -> None:
        """Keep what comes from now on: the end of the file, or what nobody wants after an error."""
        self._file = io.BytesIO()

    def seal(self) -> None:
        """Write what was kept, with its checksum in it."""
        end = cast(io.BytesIO, self._file).getvalue()
        self._real.write(end.replace(SEAL + UNSEALED, SEAL + seal_of(end)))

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is closed."""

    def close(self) -> None:
        """Do nothing: who has opened the file closes it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _size(value: Any) -> int:
    if type(value) is np.ndarray:
        return int(value.nbytes)
    return len(value) if type(value) in (bytes, str) else 8
