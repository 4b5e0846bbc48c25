"""Write a flow to an LMDB file, and read it again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..codec import SERIALIZERS, dumps
from ..codec.record import encode
from ..errors import CorruptDataError, UsageError
from ..sources.lmdb_file import LMDBRecords
from ..utils import check
from ..utils.deps import need
from ..utils.open_file import checked_path
from ..utils.open_lmdb import KEYS
from . import lmdb_check
from .saving import saving

# Keys have as many digits, so that their order is that of the datapoints.
DIGITS = 8
# The file may grow to this size in memory, and to twice as much whenever it is full.
FIRST_MAP_BYTES = 1 << 26
# What is written in one go: few enough bytes to stay in a core's cache, which is up to twice as fast.
MOST_BYTES = 1 << 19

Batch = list[tuple[bytes, bytes]]


class LMDBSerializer:
    """Save a flow to an LMDB file, and load it again.

    The keys are the numbers of the datapoints, ``b"00000000"`` and so on, the values their bytes (see ``dumps``); the
    record ``__keys__`` lists the keys. The format is that of LMDB 0.9, which every version of the package lmdb reads.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LMDBSerializer.save(DataFromList([["a", 1], ["b", 2]], shuffle=False), f"{folder}/x.lmdb")
    ...     list(LMDBSerializer.load(f"{folder}/x.lmdb", shuffle=False))
    [['a', 1], ['b', 2]]
    """

    @staticmethod
    def save(df: Any, path: Any, write_frequency: int = 5000, *, serializer: str = "dataflow") -> None:
        """Write one pass of a flow, after a ``reset_state``, to a new file.

        The file is there when it is complete and on the disk, or not at all: an error or an interrupt leaves nothing
        behind, and what a killed process left is removed by the next ``save`` to the same folder.

        Args:
            df: a finite flow of lists or dicts.
            path: a file that does not exist, or a folder, where ``data.mdb`` is written.
            write_frequency: most datapoints in a transaction, at least 1; one ends after 512 KiB, too.
            serializer: layout of the datapoints: "dataflow"; "msgpack-numpy" or "pickle" for tensorpack.

        Raises:
            FileExistsError: if the file exists.
            OSError: with ``path`` in it, if it cannot be written, such as PermissionError or one for a full disk.
            UsageError: if the flow never ends.
            TypeError: if a datapoint holds something that would not come back as it is; a note says which.
        """
        check.integer(1, write_frequency=write_frequency)
        check.one_of(SERIALIZERS, serializer=serializer)
        file = checked_path(path=path)
        if os.path.isdir(file):
            file = os.path.join(file, "data.mdb")
        dump = (
            partial(encode, with_checksum=True) if serializer == "dataflow" else partial(dumps, serializer=serializer)
        )
        with saving(df, file, by="LMDBSerializer.save") as job:
            digits = max(DIGITS, len(str((job.total or 1) - 1)))
            with _Writer(file, job.temporary) as writer:
                for batch in _batches(map(dump, job.rows()), int(write_frequency), digits):
                    writer.put(batch)
                keys = (_key(number, digits) for number in range(writer.count))
                # As an array, millions are read in no time; other readers want the list.
                listed = np.fromiter(keys, f"S{digits}", writer.count) if serializer == "dataflow" else list(keys)
                writer.put([(KEYS, dump(listed))])
                writer.finish()

    @staticmethod
    def load(
        path: Any, shuffle: bool = True, *, verify: str = "first", copy: bool = True, allow_pickle: bool = False,
        seed: int | None = None,
    ) -> LMDBRecords:  # fmt: skip
        """Return a flow of the datapoints that ``save``, or tensorpack, wrote to a file.

        Its length is exact. It may be read by several flows, threads and processes at once. If reading is the
        bottleneck, decode in parallel: ``LMDBData`` and a mapper with ``loads(dp[1])``.

        Args:
            path: the file, or a folder with a ``data.mdb`` in it.
            shuffle: yield the datapoints in a new random order in each pass.
            verify: compare the checksum of a record "always", when a process reads it "first", or never, "off".
            copy: give out private arrays, to write to; else read-only views on the file. They stay valid, and so the
                file stays open until the process ends, also after ``close()``; do not change it meanwhile.
            allow_pickle: load pickles too, as tensorpack writes them, which may run any code.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: while iterating, with file, record and key, if the bytes are damaged; from ``len`` and
                ``iter``, if it is no LMDB file, only the beginning of one, or lacks datapoints that it lists.
            UsageError: while iterating, if a record is a pickle and ``allow_pickle`` is not set.
        """
        return LMDBRecords(path, shuffle, verify=verify, copy=copy, allow_pickle=allow_pickle, seed=seed)

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what a file is, in a JSON-able dict; only its beginning is read.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no LMDB file, or only the beginning of one.
        """
        return lmdb_check.inspect(path)

    @staticmethod
    def damages(
        path: Any, *, allow_pickle: bool = False, on_record: Callable[[], None] | None = None
    ) -> Iterator[tuple[int | None, str]]:
        """Read every record of a file, and yield the number and the fault of each that is damaged.

        None for a number: the file itself is at fault, such as its list of keys.

        Args:
            path: the file, or a folder with a ``data.mdb`` in it.
            allow_pickle: load pickles too, which may run any code.
            on_record: is called after each record.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no LMDB file, or only the beginning of one.
            UsageError: if it holds pickles and ``allow_pickle`` is not set, or values of others.
        """
        return lmdb_check.damages(path, allow_pickle=allow_pickle, on_record=on_record)


def _batches(records: Iterator[bytes], most: int, digits: int) -> Iterator[Batch]:
    """Number the records, and collect those of one transaction."""
    batch: Batch = []
    size = 0
    for number, record in enumerate(records):
        batch.append((_key(number, digits), record))
        size += len(record)
        if len(batch) == most or size >= MOST_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _key(number: int, digits: int) -> bytes:
    return b"%0*d" % (digits, number)


class _Writer:
    """An LMDB environment that is written from its first key to its last."""

    def __init__(self, path: str, temporary: str) -> None:
        self.count = 0
        self._path, self._folder = path, os.path.dirname(temporary)
        self._lmdb = need("lmdb", by="LMDBSerializer")
        # With an environment variable lmdb 3 writes the format of LMDB 1.x, which older ones do not read.
        options = {"lib_version": 0} if int(self._lmdb.__version__.partition(".")[0]) >= 3 else {}
        # What is not complete is not kept, so it need not be synced on its way.
        try:
            self._env = self._lmdb.open(
                os.fsencode(temporary), subdir=False, lock=False, sync=False, map_size=FIRST_MAP_BYTES, **options
            )
        except self._lmdb.Error as error:
            raise self._failure(error, []) from error

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._env.close()

    def put(self, batch: Batch) -> None:
        """Write all of ``batch``, whose keys are behind those before."""
        try:
            while not self._commit(batch):
                self._env.set_mapsize(2 * self._env.info()["map_size"])
        except self._lmdb.BadValsizeError as error:
            number = self.count + max(range(len(batch)), key=lambda i: len(batch[i][1]))
            raise ValueError(
                f"datapoint {number} is too large: LMDB holds values of up to 4 GiB. Make it smaller"
            ) from error
        except self._lmdb.Error as error:
            raise self._failure(error, batch) from error
        self.count += len(batch)

    def _commit(self, batch: Batch) -> bool:
        """Write ``batch``, or nothing if it does not fit."""
        try:
            with self._env.begin(write=True) as txn:
                _, written = txn.cursor().putmulti(batch, append=True)
                if written < len(batch):
                    raise UsageError(
                        f"cannot number more than {10 ** len(batch[0][0]):,} datapoints, as the length of the flow was "
                        "not known. Give it a __len__, or write several files"
                    )
        except self._lmdb.MapFullError:
            return False
        return True

    def _failure(self, error: Any, batch: Batch) -> OSError:
        """Return what the operating system would say of a write that failed."""
        code = max(getattr(error, "code", 0), 0) or errno.EIO
        free = shutil.disk_usage(self._folder).free
        if code == errno.EIO and free < 2 * sum(len(record) for _, record in batch) + MOST_BYTES:
            code = errno.ENOSPC  # LMDB calls a write that comes to no end an input/output error
        return OSError(code, f"{os.strerror(code)} after {self.count:,} datapoints", self._path)

    def finish(self) -> None:
        """Close the file, if it holds as many records as were put into it."""
        with self._env.begin() as txn:
            entries = txn.stat()["entries"]
        if entries != self.count:
            raise CorruptDataError(f"{self._path!r} was to hold {self.count:,} records, and holds {entries:,}")
        self._env.close()
