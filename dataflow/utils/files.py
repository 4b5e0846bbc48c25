"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

if sys.platform != "win32":
    import fcntl

_PREFIX, _SUFFIX = ".dataflow-", ".tmp"
# What file systems without hard links answer.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextmanager
def published(path: str) -> Iterator[str]:
    """Hand out the name of an empty file to be written; it becomes ``path`` once the block has ended without an error.

    The file is synced before, and its folder after. An error, also KeyboardInterrupt, leaves nothing behind; what a
    killed process has left is removed by the next one that writes to the folder.

    >>> import os, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with published(f"{folder}/new.txt") as temporary:
    ...         _ = pathlib.Path(temporary).write_text("all of it")
    ...     os.listdir(folder)
    ['new.txt']

    Raises:
        FileExistsError: if there is a file at ``path``, also if another process was faster.
        OSError: with ``path`` in it, if its folder is missing or cannot be written to.
    """
    if os.path.lexists(path):
        raise _exists(path)
    folder = existing_folder(path)
    _remove_abandoned(folder)
    temporary, descriptor = _create(folder, path)
    try:
        yield temporary
        os.fsync(descriptor)
        _publish(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        os.close(descriptor)
    _sync_folder(folder)


def existing_folder(path: str) -> str:
    """Return the folder that a file is to be written to.

    Raises:
        FileNotFoundError: if it is missing.
    """
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "no such folder to write to", folder)
    return folder


def _exists(path: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "there is a file already; remove it first, or choose another name", path)


def _create(folder: str, path: str) -> tuple[str, int]:
    """Create a file that is locked for as long as its writer lives."""
    while True:
        temporary = os.path.join(folder, f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise OSError(error.errno, f"cannot write here ({error.strerror})", path) from error
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(temporary):  # no cleaner came before the lock
            return temporary, descriptor
        os.close(descriptor)


def _remove_abandoned(folder: str) -> None:
    """Remove files whose writer was killed: nobody holds their lock."""
    if sys.platform == "win32":
        return
    for entry in os.scandir(folder):
        if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
            with suppress(OSError), open(entry.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)


def _publish(temporary: str, path: str) -> None:
    # A link and not a rename, which would silently replace what another process has put there meanwhile.
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise _exists(path) from None
        os.rename(temporary, path)


def _sync_folder(folder: str) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot, and the file is there
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
