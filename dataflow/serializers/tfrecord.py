"""Write a flow to a TFRecord file, and read it again, without TensorFlow."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..codec import SERIALIZERS, dumps
from ..sources.tfrecord_file import TFRecordRecords, TFRecordStream
from ..sources.tfrecord_frames import framed, index_lines, index_of
from ..utils import check
from ..utils.open_file import checked_path, existing_path, is_url, published_stream, refuse_existing
from . import tfrecord_check
from .saving import saving


class TFRecordSerializer:
    """Save a flow to a TFRecord file, and load it again.

    Each datapoint is one record (see ``dumps``), and carries a checksum. TensorFlow reads the file, and what it wrote
    is read with ``decode=False``. Beside the file stands its index, ``PATH.index``, in the form of tfrecord2idx.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     TFRecordSerializer.save(DataFromList([["a", 1], ["b", 2]], shuffle=False), f"{folder}/x.tfrecord")
    ...     list(TFRecordSerializer.load(f"{folder}/x.tfrecord", size=2))
    [['a', 1], ['b', 2]]
    """

    @staticmethod
    def save(df: Any, path: Any, *, serializer: str = "dataflow") -> None:
        """Write one pass of a flow, after a ``reset_state``, to a new file, and its index.

        The file is there when it is complete and on the disk, or not at all. The index comes after it; a file without
        one is whole, too.

        Args:
            df: a finite flow of lists or dicts.
            path: path or URL of a file that does not exist. There is no index at a URL.
            serializer: layout of the datapoints: "dataflow"; "msgpack-numpy" or "pickle" for tensorpack.

        Raises:
            FileExistsError: if the file or its index exists.
            OSError: with ``path`` in it, if it cannot be written.
            UsageError: if the flow never ends.
            TypeError: if a datapoint holds something that would not come back as it is; a note says which.
        """
        check.one_of(SERIALIZERS, serializer=serializer)
        dump = partial(dumps, serializer=serializer, checksum=False)  # the frame has one
        lengths = array("Q")
        with saving(df, path, by="TFRecordSerializer.save") as job:
            index = None if is_url(job.path) else index_of(job.path)
            if index is not None:
                refuse_existing(index)
            write = job.open().write
            for dp in job.rows():
                head, record, foot = framed(dump(dp))
                lengths.append(len(record))
                write(head)
                write(record)
                write(foot)
        if index is not None:
            with published_stream(index) as file:
                file.writelines(index_lines(lengths))

    @staticmethod
    def load(
        path: Any, size: int | None = None, *, shuffle: bool = False, index: bool = False, verify: str = "first",
        copy: bool = True, decode: bool = True, allow_pickle: bool = False, seed: int | None = None,
    ) -> TFRecordStream | TFRecordRecords:  # fmt: skip
        """Return a flow of the datapoints that ``save``, or tensorpack, wrote to a file, in their order.

        It may be iterated any number of times. It has no length unless ``size`` or ``index`` is given, since only who
        has read the file knows it. A file that was cut between two records is found out by any of the two, and by the
        index beside the file.

        Args:
            path: path or URL.
            size: how many datapoints to read, which is the length of the flow then.
            shuffle: yield the datapoints in a new random order in each pass, which needs ``index``.
            index: find the records by the index beside the file or, if there is none, after reading their lengths
                once. The flow has a length then. For files on this machine.
            verify: compare the checksum of a record "always", when a process reads it "first", or never, "off".
            copy: give out private arrays, to write to; else read-only ones.
            decode: decode the records; else each is one datapoint ``[bytes]``, for what other programs wrote.
            allow_pickle: load pickles too, as tensorpack writes them, which may run any code.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if ``shuffle`` is given without ``index``, or ``size`` with it.
            UsageError: if ``index`` is given and the path is a URL; while iterating, if a record is a pickle and
                ``allow_pickle`` is not set.
            CorruptDataError: while iterating, with file, record and offset, if the bytes are damaged, or fewer than
                ``size`` or the index says.
        """
        check.flag(shuffle=shuffle, index=index)
        if index:
            if size is not None:
                raise ValueError(f"size={size} and index=True both say how many there are: give one of them")
            return TFRecordRecords(
                path, shuffle, verify=verify, copy=copy, decode=decode, allow_pickle=allow_pickle, seed=seed
            )
        if shuffle:
            existing_path("TFRecord file", path=path)  # what is missing needs no index
            raise ValueError(
                "shuffle=True needs index=True, as the records are read along the file else; for a part of the order "
                "without an index, ShuffleData(ds, buffer_size)"
            )
        return TFRecordStream(path, size, verify=verify, copy=copy, decode=decode, allow_pickle=allow_pickle)

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what a file is, in a JSON-able dict; only its first record and its index are read.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if its first record or its index is damaged, or it is no TFRecord file.
        """
        return tfrecord_check.inspect(path)

    @staticmethod
    def damages(
        path: Any, *, allow_pickle: bool = False, on_record: Callable[[], None] | None = None
    ) -> Iterator[tuple[int | None, str]]:
        """Read every record of a file, and yield the number and the fault of each that is damaged.

        None for a number: the file itself is at fault, such as one that is cut short, or its index. Only the index
        knows how many records there are to be, and the way behind one whose length is damaged. Records that are not
        of ``save`` or tensorpack are compared with their checksums, and not decoded.

        Args:
            path: path or URL.
            allow_pickle: load pickles too, which may run any code.
            on_record: is called after each record.

        Raises:
            FileNotFoundError: if there is no such file.
            UsageError: if it holds pickles and ``allow_pickle`` is not set.
        """
        return tfrecord_check.damages(path, allow_pickle=allow_pickle, on_record=on_record)


def has_index(path: Any) -> bool:
    """Say whether there is an index beside a file on this machine."""
    path = checked_path(path=path)
    return not is_url(path) and os.path.exists(index_of(path))
