"""Write a flow to an npz file, and read it again. The layout is drawn in ``dataflow/sources/npz_file.py``."""

from __future__ import annotations

import zipfile
from array import array
from collections.abc import Callable, Iterator
from io import BufferedWriter
from typing import Any

import numpy as np

from ..codec.record import encode
from ..errors import CorruptDataError, UsageError
from ..sources import DataFromList
from ..sources.npz_file import BUFFER, OFFSETS, RECORDS, NpzFile, NpzRecords, offsets_header
from ..utils import check
from ..utils.open_file import checked_path, open_binary, size_of
from .saving import saving

# Records are written in pieces of this size at least.
_BUFFER_BYTES = 1 << 18


class NumpySerializer:
    """Save a flow to an npz file, and load it again.

    The file holds the bytes of the datapoints (see ``dumps``) as the member ``records``, and where each begins as the
    array ``offsets``; ``numpy.load`` opens it. Nothing is compressed, nothing is a pickle, and no more than one
    datapoint is in memory.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     NumpySerializer.save(DataFromList([["a", 1], ["b", 2]], shuffle=False), f"{folder}/x.npz")
    ...     list(NumpySerializer.load(f"{folder}/x.npz", shuffle=False))
    [['a', 1], ['b', 2]]
    """

    @staticmethod
    def save(df: Any, path: Any) -> None:
        """Write one pass of a flow, after a ``reset_state``, to a new file.

        The file is there when it is complete and on the disk, or not at all.

        Args:
            df: a finite flow of lists or dicts.
            path: path or URL of a file that does not exist.

        Raises:
            FileExistsError: if the file exists.
            OSError: with ``path`` in it, if it cannot be written, such as PermissionError or one for a full disk.
            UsageError: if the flow never ends.
            TypeError: if a datapoint holds something that would not come back as it is; a note says which.
        """
        with saving(df, path, by="NumpySerializer.save") as job, zipfile.ZipFile(job.open(), "w") as archive:
            offsets = array("Q", [0])
            end = 0
            member = archive.open(zipfile.ZipInfo(RECORDS), "w", force_zip64=True)
            with BufferedWriter(member, _BUFFER_BYTES) as file:
                for dp in job.rows():
                    end += file.write(encode(dp, True))
                    offsets.append(end)
            with archive.open(zipfile.ZipInfo(OFFSETS), "w", force_zip64=True) as file:
                file.write(offsets_header(len(offsets)))
                file.write(np.frombuffer(offsets, np.uint64).astype("<u8").data)

    @staticmethod
    def load(
        path: Any, shuffle: bool = True, *, allow_pickle: bool = False, seed: int | None = None
    ) -> NpzRecords | DataFromList:
        """Return a flow of the datapoints that ``save``, or tensorpack, wrote to a file.

        Its length is exact. Records are read when they are due. A file of tensorpack is loaded into memory at once;
        what was an array in it may be one of objects, which tensorpack has made of it.

        Args:
            path: path or URL.
            shuffle: yield the datapoints in a new random order in each pass.
            allow_pickle: load a file of tensorpack, which is a pickle and may run any code.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no npz file, or only a part of one; from ``len`` and ``iter``, if it is of
                others; while iterating, with file and record, if a record is damaged.
            UsageError: if it is a pickle and ``allow_pickle`` is not set.
        """
        check.flag(shuffle=shuffle, allow_pickle=allow_pickle)
        file = NpzFile(checked_path(path=path))
        if BUFFER not in file.members or RECORDS in file.members:
            return NpzRecords(path, shuffle, seed=seed)
        if not allow_pickle:
            raise UsageError(
                f"{file.path!r} is a pickle, as tensorpack writes npz files, and may run any code when it is loaded. "
                "Pass allow_pickle=True if you trust it"
            )
        return DataFromList(_unpickled(file.path), shuffle, seed=seed)

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what a file is, in a JSON-able dict; no datapoint is read.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no npz file, or only a part of one.
        """
        file = NpzFile(checked_path(path=path))
        ours = RECORDS in file.members and OFFSETS in file.members
        return {
            "format": "npz",
            "codec": "dataflow" if ours else "pickle" if BUFFER in file.members else "arrays",
            "datapoints": len(file.offsets()) - 1 if ours else None,
            "bytes": size_of(file.path),
            "checksums": "every record" if ours else "every member",
            "members": file.members,
        }

    @staticmethod
    def damages(
        path: Any, *, allow_pickle: bool = False, on_record: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, str]]:
        """Read every record of a file, and yield the number and the fault of each that is damaged.

        Args:
            path: path or URL.
            allow_pickle: load a file of tensorpack, which is a pickle and may run any code.
            on_record: is called after each record.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no npz file, only a part of one, or of others.
            UsageError: if it is a pickle and ``allow_pickle`` is not set.
        """
        df = NumpySerializer.load(path, shuffle=False, allow_pickle=allow_pickle)
        if isinstance(df, NpzRecords):
            yield from df.damages(on_record)
        elif on_record is not None:  # all of it has been loaded
            for _ in df:
                on_record()


def _unpickled(path: str) -> list[Any]:
    """Return the datapoints of a file of tensorpack."""
    try:
        with open_binary(path) as file, np.load(file, allow_pickle=True) as members:
            return [list(dp) if isinstance(dp, np.ndarray) else dp for dp in members[BUFFER.removesuffix(".npy")]]
    except Exception as error:  # a pickle may raise anything
        raise CorruptDataError(f"{path!r} is damaged, or not from tensorpack: {error}") from error
