"""Write a flow to a Parquet or an Arrow file, and read it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..codec.columns import pyarrow
from ..sources.parquet_file import ArrowData, ParquetData, batch_note
from ..sources.parquet_note import NOTE, SEAL, UNSEALED
from ..utils import check
from ..utils.deps import need
from . import parquet_check
from .parquet_write import Columns, Summed
from .saving import saving

# A group ends behind so many bytes. One of Parquet is unpacked as a whole, for any row of it.
PARQUET_BYTES, ARROW_BYTES = 1 << 22, 1 << 21


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
            table = Columns(job, "ParquetSerializer.save", tensors=False)
            groups: list[list[int]] = []
            file: Any = None
            writer: Any = None
            try:
                for rows, _ in table.groups(PARQUET_BYTES):
                    batch = table.batch(rows)
                    if writer is None:
                        file = Summed(job.open())
                        writer = parquet.ParquetWriter(
                            file, batch.schema, compression=compression, use_dictionary=table.texts(),
                            write_statistics=False, data_page_size=PARQUET_BYTES,
                        )  # fmt: skip
                    file.begin(table.raw(batch))
                    writer.write_batch(batch)
                    groups.append(file.noted(len(rows)))
                if writer is None:
                    file = Summed(job.open())
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
        path: Any, shuffle: bool = True, *, columns: list[str] | None = None, verify: str = "first",
        seed: int | None = None,
    ) -> ParquetData:  # fmt: skip
        """Return a flow of the datapoints that ``save`` wrote, or of the rows of any Parquet file as dicts.

        What other programs wrote becomes values of Python, such as int, datetime, list and dict, and tensors arrays.
        Equal texts of a group are one object, as the file mostly has them once.
        Rows are read a group at a time. A shuffled pass reads 256 MiB ahead and each group once for it, so that a file
        of less is read once a pass, and one of ten times as much ten times.

        Args:
            path: path or URL.
            shuffle: yield the datapoints in a new random order in each pass.
            columns: read only the columns of these names.
            verify: compare the checksum of a group "always", when a process reads it "first", or never, "off". Only
                our files have them.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: from ``len`` and ``iter``, if there is no such column.
            CorruptDataError: from ``len`` and ``iter``, if it is no Parquet file or a damaged one; while iterating,
                with file and record, if a group of rows is damaged.
        """
        return ParquetData(path, shuffle, columns=columns, verify=verify, seed=seed)

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
        """Write one pass of a flow, after a ``reset_state``, to a new file.

        ``ParquetSerializer.save`` tells what it takes and raises; there is no compression.
        """
        ipc = need("pyarrow.ipc", by="ArrowSerializer")
        with saving(df, path, by="ArrowSerializer.save") as job:
            table = Columns(job, "ArrowSerializer.save", tensors=True)
            writer = None
            counts: list[int] = []
            for number, (rows, is_last) in enumerate(table.groups(ARROW_BYTES)):
                batch = table.batch(rows)
                counts.append(len(rows))
                if writer is None:
                    note = table.note([])
                    writer = ipc.new_file(job.open(), batch.schema.with_metadata({NOTE: note.written()}))
                writer.write_batch(
                    batch, custom_metadata={NOTE: batch_note(batch, number, counts if is_last else None)}
                )
            if writer is None:
                note = table.note([[0]])
                writer = ipc.new_file(job.open(), pyarrow().schema([], {NOTE: note.written()}))
            writer.close()

    @staticmethod
    def load(
        path: Any, shuffle: bool = True, *, columns: list[str] | None = None, verify: str = "first",
        seed: int | None = None,
    ) -> ArrowData:  # fmt: skip
        """Return a flow of the datapoints that ``save`` wrote, or of the rows of any Arrow file as dicts.

        ``ParquetSerializer.load`` tells what it takes and raises. Each group of another program says its rows, which
        are a small read each when a pass begins.
        """
        return ArrowData(path, shuffle, columns=columns, verify=verify, seed=seed)

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
