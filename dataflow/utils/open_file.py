"""One way to read and write bytes: files on this machine, and whatever fsspec reaches by a URL.

A path with ``://`` in it is a URL, and ``file://`` is only another way to write a path on this machine.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import unquote

from ..errors import UsageError
from . import check
from .deps import need
from .files import published
from .write_behind import WriteBehind

# The kernel takes a third less time for a megabyte at once than for as many bytes in records of 30 kB.
_WRITE_BYTES = 1 << 20
_READ_BYTES = 1 << 18
# What stands for other characters in a URL. Control characters do not count: %06d is the number of a shard.
_ESCAPES = re.compile(r"(?:%[2-9A-F][0-9A-F])+", re.IGNORECASE)


def checked_path(**paths: Any) -> str:
    """Return the path that is given by its name as an argument, as text; of ``file://`` what it stands for.

    >>> checked_path(path=b"a/b.tar"), checked_path(path="file:///a%20b.tar"), checked_path(path="s3://a/b.tar")
    ('a/b.tar', '/a b.tar', 's3://a/b.tar')

    Raises:
        TypeError: if it is no path.
    """
    check.instance((str, bytes, os.PathLike), "a path", **paths)
    (path,) = paths.values()
    text = os.fsdecode(path)
    if not text.startswith("file://"):
        return text
    return _ESCAPES.sub(lambda found: unquote(found[0], errors="surrogateescape"), text.removeprefix("file://"))


def is_url(path: str) -> bool:
    """Say whether ``path``, as ``checked_path`` returned it, lies outside of the file systems of this machine.

    >>> is_url("s3://bucket/x.tar"), is_url("folder/x.tar")
    (True, False)
    """
    return "://" in path


def existing_path(what: str, /, **paths: Any) -> str:
    """Return what ``checked_path`` returns; on this machine there is a file.

    Raises:
        TypeError: if it is no path.
        FileNotFoundError: if it is no URL, and there is no such file, which ``what`` says in words.
    """
    path = checked_path(**paths)
    if not is_url(path) and not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, f"no such {what}", path)
    return path


def refuse_url(path: str, what: str) -> None:
    """Raise if ``path`` is a URL, for what only a library reads, by the name of a file.

    Raises:
        UsageError: if it is.
    """
    if is_url(path):
        raise UsageError(f"{what} is read from this machine only, and {path!r} is a URL: copy it here first")


def open_binary(path: str) -> BinaryIO:
    """Open a file to read it; it can seek, and closes itself when nobody holds it any more.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be read.
        ImportError: if ``path`` is a URL and fsspec, or what it needs for this kind of URL, is not installed.
    """
    if is_url(path):
        fs, name = _file_system(path)
        file = fs.open(name, "rb")
        if isinstance(file, io.BytesIO):  # of memory://, and the one object that all others read with, too
            return io.BytesIO(file.getvalue())
        return _Reader(file)  # fsspec reads in blocks as well, and takes five times as long for a few bytes
    return _Reader(_File(path))


def size_of(path: str) -> int:
    """Return how many bytes a file holds.

    Raises:
        OSError: if there is none, or its size is not known.
    """
    if not is_url(path):
        return os.path.getsize(path)
    fs, name = _file_system(path)
    size = fs.size(name)
    if size is None:
        raise OSError(errno.ENOTSUP, "its size is not known; copy it to this machine", path)
    return int(size)


def identity_of(path: str) -> tuple[int, ...] | None:
    """Return what is another value when the path leads to another file, or a changed one; None for a URL.

    Raises:
        OSError: if there is no file.
    """
    if is_url(path):
        return None
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def refuse_existing(path: str) -> None:
    """Raise if there is a file: nothing is overwritten.

    Raises:
        FileExistsError: if there is one.
    """
    if is_url(path):
        fs, name = _file_system(path)
        there = fs.exists(name)
    else:
        there = os.path.lexists(path)
    if there:
        raise FileExistsError(errno.EEXIST, "there is a file already; remove it first, or choose another name", path)


@contextmanager
def published_stream(path: str) -> Iterator[BinaryIO]:
    """Hand out a new file to be written; it becomes ``path`` once the block has ended without an error.

    On this machine as ``utils.files.published`` does it. At a URL it is written under another name beside, and moved.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with published_stream(f"{folder}/x.txt") as file:
    ...         _ = file.write(b"all of it")
    ...     pathlib.Path(folder, "x.txt").read_bytes()
    b'all of it'

    Raises:
        FileExistsError: if there is a file at ``path``.
        OSError: if it cannot be written.
    """
    if is_url(path):
        yield from _moved(path)
        return
    with published(path) as temporary, io.BufferedWriter(WriteBehind(temporary), _WRITE_BYTES) as file:
        yield file


class _Reader(io.BufferedReader):
    """A file that flows and passes share: whoever drops it last closes it, without a ResourceWarning."""

    def __del__(self) -> None:
        self.close()


class _File(io.FileIO):
    """The same below the buffer: garbage collection may begin with either of the two.

    Its position is its own: that of the operating system is one for a process and all that are forked from it.
    """

    _at = 0

    def __del__(self) -> None:
        self.close()

    if hasattr(os, "preadv"):  # as wherever there is a fork

        def readinto(self, buffer: Any, /) -> int:
            count = os.preadv(self.fileno(), [buffer], self._at)
            self._at += count
            return count

        def readall(self) -> bytes:
            return b"".join(iter(lambda: self.read(_READ_BYTES), b""))

        def read(self, size: int | None = -1, /) -> bytes:
            return self.readall() if size is None or size < 0 else io.RawIOBase.read(self, size) or b""

        def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
            start = (0, self._at, os.fstat(self.fileno()).st_size)[whence]
            if start + offset < 0:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._at = start + offset
            return self._at

        def tell(self) -> int:
            return self._at


def _moved(url: str) -> Iterator[BinaryIO]:
    """Yield a file under a temporary name, and move it to ``url``; an error removes it."""
    refuse_existing(url)
    fs, name = _file_system(url)
    temporary = f"{name}.{secrets.token_hex(8)}.tmp"
    try:
        with fs.open(temporary, "wb") as file:
            yield file
        refuse_existing(url)  # another writer may have been faster
        fs.mv(temporary, name)
    except BaseException:
        with suppress(FileNotFoundError):
            fs.rm(temporary)
        raise


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of ``url``, and what the file is called in it."""
    fs, name = need("fsspec.core", by=f"the URL {url!r}").url_to_fs(url)
    return fs, name
