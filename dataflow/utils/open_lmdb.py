"""LMDB files that are open for reading: one environment a file and process, shared by all flows that read the file.

::

    LMDBData ---------+
    one of its passes +--> LMDBFile ----+
                                        +--> _Shared --> lmdb.Environment --> the file, mapped into memory
    another LMDBData -----> LMDBFile ---+

py-lmdb refuses to open a file twice in a process, and what it hands out without a copy is memory that goes with the
environment. So an environment is closed when the last LMDBFile is gone, and flows and passes hold one as long as they
need it.

A forked child reads on in the environments that it inherited. They are read-only, without locks and without a table
of readers, so nothing in them belongs to the parent. The child never closes them, since py-lmdb would wait for the
readers of threads that are not there any more; and no environment is half open or half closed while a fork happens.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from ..errors import CorruptDataError, MissingKeyError, MissingPackageError, UsageError
from .deps import need

# The record in which LMDBSerializer lists the keys of the others; never a datapoint.
KEYS = b"__keys__"

_Identity = tuple[int, int]
# What begins an LMDB file, and where: behind a page's header, which LMDB 1.x has made longer.
_MAGIC = 0xBEEFC0DE.to_bytes(4, sys.byteorder)
_PLACES = {16: "0.9", 24: "1.x"}

# Held while an environment is opened or closed; by one thread again, where garbage collection closes one meanwhile.
_lock = threading.RLock()
_open: dict[_Identity, _Shared] = {}


def _keep_all() -> None:
    for shared in _open.values():
        shared.kept = True
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_keep_all)


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
    """Open ``file`` to read it.

    Raises:
        OSError: if the operating system does not let it be read.
        CorruptDataError: if it is no LMDB file, or only the beginning of one.
        MissingPackageError: if the installed lmdb is too old for it.
        UsageError: if other code of this process has it open.
    """
    lmdb = need("lmdb", by="reading an LMDB file")
    with _lock:
        stat = os.stat(file)
        shared = _open.get(_identity(stat))
        if shared is None or not shared.is_still(stat):
            shared = _open[_identity(stat)] = _environment(lmdb, file, stat)
        return LMDBFile(file, shared)


def _environment(lmdb: Any, file: str, stat: os.stat_result) -> _Shared:
    kind = _kind(file)
    try:
        # Read ahead in random order too: one page at a time is 2 to 9 times slower (values of 0.2 to 150 KB).
        env = lmdb.open(os.fsencode(file), subdir=False, create=False, readonly=True, lock=False)
    except lmdb.Error as error:
        raise _unreadable(lmdb, file, kind, error) from error
    try:
        return _Shared(file, lmdb, env, stat)
    except BaseException as error:
        env.close()  # not when the error is forgotten: until then nobody could open the file again
        if isinstance(error, lmdb.Error):
            raise _unreadable(lmdb, file, kind, error) from error
        raise


class _Shared:
    """An environment, and what is known of its file."""

    def __init__(self, path: str, lmdb: Any, env: Any, stat: os.stat_result) -> None:
        self.lmdb, self.env = lmdb, env
        self.users, self.kept = 0, False
        self.identity = _identity(stat)
        self._commit, self._size = self._extent()
        # Who reads behind the end of a mapped file gets no error, but SIGBUS.
        if stat.st_size < self._size:
            raise CorruptDataError(
                f"{path!r} is cut short: it has {stat.st_size:,} bytes of {self._size:,}. Copy or download it again"
            )
        txn = env.begin()
        cursor = txn.cursor()
        self.listed = bool(cursor.set_key(KEYS))
        self.list_is_last = not self.listed or not cursor.next()
        self.count = txn.stat()["entries"] - self.listed
        self.cache: dict[Any, Any] = {}

    def _extent(self) -> tuple[int, int]:
        """Return the number of the last write, and how long the file must be."""
        info = self.env.info()
        return info["last_txnid"], (info["last_pgno"] + 1) * self.env.stat()["psize"]

    def is_still(self, stat: os.stat_result) -> bool:
        """Say whether this is the file that ``stat`` describes, as it was when it was opened."""
        return (
            self.identity == _identity(stat)
            and stat.st_size >= self._size
            and self._extent() == (self._commit, self._size)
        )

    def release(self) -> None:
        """Close the environment if this was its last user."""
        with _lock:
            self.users -= 1
            if not self.users and not self.kept:
                del _open[self.identity]
                self.env.close()


class LMDBFile:
    """An LMDB file that is open, for as long as this object is held; ``open_lmdb`` makes these.

    Attributes:
        path: its name.
        count: how many datapoints it holds, without the list of keys.
        listed: whether it holds a list of keys.
        cache: for what its readers find out about it, in common.
        error: what lmdb raises.
    """

    def __init__(self, path: str, shared: _Shared) -> None:
        self.path, self._shared = path, shared
        self.count, self.listed, self.cache = shared.count, shared.listed, shared.cache
        self.error: type[Exception] = shared.lmdb.Error
        shared.users += 1
        weakref.finalize(self, shared.release).atexit = False

    def is_still(self, stat: os.stat_result) -> bool:
        """Say whether this is the file that ``stat`` describes, as it was when it was opened."""
        return self._shared.is_still(stat)

    def keep(self) -> None:
        """Keep the file open until the process ends."""
        self._shared.kept = True

    def begin(self, buffers: bool = False) -> Any:
        """Begin to read; with ``buffers`` values are views on the file, which must stay open as long as they live."""
        return self._shared.env.begin(buffers=buffers)

    def items(self, cursor: Any) -> Iterator[tuple[Any, Any]]:
        """Iterate (key, value) of the datapoints from ``cursor`` on; the list of keys may come as the last."""
        items: Iterator[tuple[Any, Any]] = cursor.iternext()
        return items if self._shared.list_is_last else (item for item in items if item[0] != KEYS)

    def values(self, cursor: Any) -> Iterator[Any]:
        """Iterate the values alone."""
        return cursor.iternext(keys=False) if self._shared.list_is_last else (value for _, value in self.items(cursor))

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
    if "already open" in str(error):
        return UsageError(
            f"{file!r} is open in this process already: by an lmdb.Environment of other code, or by a flow since "
            "before it was written to. Close what has it open; for a flow, df.close()"
        )
    version = lmdb.__version__
    if kind == "1.x" and int(version.partition(".")[0]) < 3:
        return MissingPackageError(
            f"{file!r} was written by LMDB 1.x, which the package lmdb {version} cannot read: pip install -U lmdb"
        )
    if (code := getattr(error, "code", 0)) > 0:
        return OSError(code, os.strerror(code), file)
    return CorruptDataError(f"{file!r} is a damaged LMDB file ({error}). Copy or download it again")
