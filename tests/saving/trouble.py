"""What else may happen to a save: a full disk, another writer, a reader; a program of its own.

``python -m tests.saving.trouble`` prints a line of JSON for each format and trouble: what was wrong, or "".
"""
# ruff: noqa: T201  # a line is how it talks

from __future__ import annotations

import ctypes
import errno
import json
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import dataflow
from dataflow import DataFromGenerator, dumps

from ..fuzz.formats import SAVED, Format
from .stop import in_child

# Less than any of the saves writes.
ROOM = 1 << 18

SKIPPED = "this process may mount no file system"

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


def main(*names: str) -> None:
    for name in names or SAVED:
        for trouble in TROUBLES:
            with tempfile.TemporaryDirectory(prefix="saving-") as folder:
                wrong = trouble(SAVED[name], pathlib.Path(folder))
            print(json.dumps({"name": name, "trouble": trouble.__name__, "wrong": wrong}), flush=True)


def a_file_that_may_not_grow(kind: Format, folder: pathlib.Path) -> str:
    """Save under a limit of the size of a file: an error with its name, and nothing is left."""

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
        kind.save(str(folder / kind.file))

    said = in_child(work)
    if not said.startswith("OSError: ") or kind.file not in said:  # LMDB does not tell which
        return f"not the error of a write that failed: {said or 'none'}"
    return "" if os.listdir(folder) == [] else f"left {os.listdir(folder)}"


def a_full_disk(kind: Format, folder: pathlib.Path) -> str:
    """Save to a file system that is too small: an error with the name of the file, and nothing is left."""

    def work() -> None:
        if not _mount(folder):
            raise RuntimeError(SKIPPED)
        try:
            kind.save(str(folder / kind.file))
        except OSError as error:
            if error.errno != errno.ENOSPC or kind.file not in str(error):
                raise
            if left := os.listdir(folder):
                raise RuntimeError(f"left {left}") from error
            return
        raise RuntimeError("it did not fail")

    said = in_child(work)
    return SKIPPED if SKIPPED in said else said


def an_old_file(kind: Format, folder: pathlib.Path) -> str:
    """Save where there is a file: it stays as it is."""
    path = folder / kind.file
    path.write_bytes(b"old")
    try:
        kind.save(str(path))
    except FileExistsError:
        return "" if path.read_bytes() == b"old" and os.listdir(folder) == [path.name] else f"left {os.listdir(folder)}"
    return "it did not fail"


def two_writers(kind: Format, folder: pathlib.Path) -> str:
    """Have two processes save to one file at the same time: one wins, the other says that there is a file."""
    path = folder / "shared" / kind.file
    path.parent.mkdir()

    deadline = time.monotonic() + 20

    def work(mine: pathlib.Path, other: pathlib.Path) -> None:
        def rows() -> Iterator[Any]:
            for number, dp in enumerate(kind.rows):
                if number == 1:  # both have begun
                    mine.touch()
                    while not other.exists() and time.monotonic() < deadline:
                        time.sleep(0.001)
                yield dp

        dataflow.save(DataFromGenerator(rows), str(path))

    marks = folder / "first", folder / "second"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, in_child(partial(work, *marks)).encode())
        os._exit(0)
    os.close(writer)
    said = [in_child(partial(work, *reversed(marks)))]
    with open(reader, "rb") as file:
        said.append(file.read().decode())
    os.waitpid(pid, 0)
    errors = [error for error in said if error]
    if len(errors) != 1 or "FileExistsError" not in errors[0]:
        return f"not one winner: {said}"
    return "" if kind.load(str(path)) == list(map(_bits, kind.rows)) else "the file is damaged"


def a_reader_during_a_rewrite(kind: Format, folder: pathlib.Path) -> str:
    """Replace a file that is being read: the pass goes on in the old one, and the next reads the new one."""
    path = folder / kind.file
    new = replace(kind, rows=kind.rows[::-1])
    kind.save(str(path))
    with dataflow.load(str(path), shuffle=False) as df:
        it = iter(df)
        read = [_bits(next(it))]
        for entry in folder.iterdir():
            entry.unlink()
        new.save(str(path))
        read += map(_bits, it)
        if read != list(map(_bits, kind.rows)):
            return f"the pass read {len(read)} datapoints, not those of the old file"
        return "" if list(map(_bits, df)) == list(map(_bits, new.rows)) else "the next pass is not of the new file"


TROUBLES: list[Callable[[Format, pathlib.Path], str]] = [
    a_file_that_may_not_grow,
    a_full_disk,
    an_old_file,
    two_writers,
    a_reader_during_a_rewrite,
]


def _bits(dp: Any) -> bytes:
    return dumps(dp, checksum=False)


def _mount(folder: pathlib.Path) -> bool:
    """Put a small file system at ``folder``, for this process only; say whether this machine lets us."""
    libc = ctypes.CDLL(None)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    if libc.unshare(_CLONE_NEWNS) != 0 and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        return False
    private = 1 << 18 | 1 << 14  # or the mount would be seen by all
    libc.mount(None, b"/", None, private, None)
    return bool(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % ROOM) == 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
