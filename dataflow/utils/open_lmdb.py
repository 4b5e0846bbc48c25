"""LMDB files that are open for reading: one environment a file and process, shared by all flows that read the file.

::

    LMDBData ---------+
    one of its passes +--> LMDBFile --> lmdb.Environment --> the file, mapped into memory
    another LMDBData -+       ^
                           _files (weak)

py-lmdb refuses to open a file twice in a process, and what it hands out without a copy is memory that goes with the
environment. So nothing here closes one: it closes when the last flow and the last pass let go of it.

A forked child reads on in the environments that it inherited. They are read-only, without locks and without a table
of readers, so nothing in them belongs to the parent; and the child never closes them, since py-lmdb would wait for the
readers of threads that are not there any more.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakValueDictionary

from ..errors import CorruptDataError, MissingKeyError, MissingPackageError, UsageError
from .deps import need

# The record in which LMDBSerializer lists the keys of the others; never a datapoint.
KEYS = b"__keys__"

_Identity = tuple[int, int]
# What begins an LMDB file, and where: behind a page's header, which LMDB 1.x has made longer.
_MAGIC = 0xBEEFC0DE.to_bytes(4, sys.byteorder)
_PLACES = {16: "0.9", 24: "1.x"}
# Another thread that lets go of a file takes a moment to unmap it; until then the file cannot be opened anew.
_WAITS = (0.0, 0.001, 0.01, 0.1, 1.0)

_files: WeakValueDictionary[_Identity, LMDBFile] = WeakValueDictionary()
_kept: set[LMDBFile] = set()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _kept.update(_files.values()))


def data_file(path: str | bytes) -> str:
    """Return the file of the database at ``path``, which is a folder or that file.

    Raises:
        FileNotFoundError: if there is none.
    """
    file = os.fsdecode(path)
    if os.path.isdir(file):
        file = os.path.join(file, "data.mdb")
        if not os.path.exists(file):
            raise FileNotFoundError(errno.ENOENT, "a folder without an LMDB file in it", file)
    if not os.path.exists(file):
        raise FileNotFoundError(errno.ENOENT, "no such LMDB file", file)
    return file


def open_lmdb(file: str) -> LMDBFile:
    """Open ``file``, or return it as it is open already.

    Raises:
        OSError: if the operating system does not let it be read.
        CorruptDataError: if it is no LMDB file, or only the beginning of one.
        MissingPackageError: if the installed lmdb is too old for it.
        UsageError: if other code of this process has it open.
    """
    lmdb = need("lmdb", by="reading an LMDB file")
    for wait in _WAITS:
        time.sleep(wait)
        stat = os.stat(file)
        found = _files.get(_identity(stat))
        if found is not None and found.is_still(stat):
            return found
        kind = _kind(file)
        try:
            opened = _files[_identity(stat)] = _open(lmdb, file, stat)
        except lmdb.Error as error:
            if "already open" not in str(error):
                raise _unreadable(lmdb, file, kind, error) from error
        else:
            return opened
    raise UsageError(
        f"{file!r} is open in this process already: by an lmdb.Environment of other code, or it was written to since a "
        "flow opened it. Close what has it open; for a flow, df.close()"
    )


def _open(lmdb: Any, file: str, stat: os.stat_result) -> LMDBFile:
    # Read ahead in random order too: one page at a time is 2 to 9 times slower (values of 0.2 to 150 KB).
    env = lmdb.open(os.fsencode(file), subdir=False, create=False, readonly=True, lock=False)
    try:
        return LMDBFile(file, lmdb, env, stat)
    except BaseException:
        env.close()  # not when the error is forgotten: until then nobody could open the file again
        raise


class LMDBFile:
    """An LMDB file that is open; ``open_lmdb`` makes these.

    Attributes:
        path: its name.
        count: how many datapoints it holds, without the list of keys.
        listed: whether it holds a list of keys.
        cache: for what readers find out about it.
    """

    def __init__(self, path: str, lmdb: Any, env: Any, stat: os.stat_result) -> None:
        self.path, self.lmdb, self._env = path, lmdb, env
        self._identity = _identity(stat)
        self._commit, self._size = self._extent()
        # Who reads behind the end of a mapped file gets no error, but SIGBUS.
        if stat.st_size < self._size:
            raise CorruptDataError(
                f"{path!r} is cut short: it has {stat.st_size:,} bytes of {self._size:,}. Copy or download it again"
            )
        txn = self.begin()
        cursor = txn.cursor()
        self.listed = bool(cursor.set_key(KEYS))
        self._list_is_last = not self.listed or not cursor.next()
        self.count = txn.stat()["entries"] - self.listed
        self.cache: dict[Any, Any] = {}

    def _extent(self) -> tuple[int, int]:
        """Return the number of the last write, and how long the file must be."""
        info = self._env.info()
        return info["last_txnid"], (info["last_pgno"] + 1) * self._env.stat()["psize"]

    def is_still(self, stat: os.stat_result) -> bool:
        """Say whether this is the file that ``stat`` describes, as it was when it was opened."""
        return (
            self._identity == _identity(stat)
            and stat.st_size >= self._size
            and self._extent() == (self._commit, self._size)
        )

    def keep(self) -> None:
        """Keep the file open until the process ends."""
        _kept.add(self)

    def begin(self, buffers: bool = False) -> Any:
        """Begin to read; with ``buffers`` values are views on the file, which must stay open as long as they live."""
        return self._env.begin(buffers=buffers)

    def items(self, cursor: Any) -> Iterator[tuple[Any, Any]]:
        """Iterate (key, value) of the datapoints from ``cursor`` on; the list of keys may come as the last."""
        items: Iterator[tuple[Any, Any]] = cursor.iternext()
        return items if self._list_is_last else (item for item in items if item[0] != KEYS)

    def values(self, cursor: Any) -> Iterator[Any]:
        """Iterate the values alone."""
        return cursor.iternext(keys=False) if self._list_is_last else (value for _, value in self.items(cursor))

    def missing(self, key: bytes) -> MissingKeyError:
        """Return the error for a key that is not there."""
        cursor = self.begin().cursor()
        first = f", the first with key {cursor.key()!r}" if cursor.first() else ""
        return MissingKeyError(f"{self.path!r} has no key {key!r}. It holds {self.count:,} datapoints{first}")


def _identity(stat: os.stat_result) -> _Identity:
    # Not by name: a file that takes the place of another is another.
    return stat.st_dev, stat.st_ino


def _kind(file: str) -> str:
    """Return the format of an LMDB file."""
    with open(file, "rb") as opened:
        start = opened.read(32)
    for place, name in _PLACES.items():
        if start[place : place + len(_MAGIC)] == _MAGIC:
            return name
    what = f"it begins with {start[:12]!r}" if start else "it is empty"
    raise CorruptDataError(f"{file!r} is no LMDB file of this kind of machine: {what}")


def _unreadable(lmdb: Any, file: str, kind: str, error: Any) -> Exception:
    """Return the error for a file that LMDB does not open."""
    version = lmdb.__version__
    if kind == "1.x" and int(version.partition(".")[0]) < 3:
        return MissingPackageError(
            f"{file!r} was written by LMDB 1.x, which the package lmdb {version} cannot read: pip install -U lmdb"
        )
    if (code := getattr(error, "code", 0)) > 0:
        return OSError(code, os.strerror(code), file)
    return CorruptDataError(f"{file!r} is a damaged LMDB file ({error}). Copy or download it again")
