"""The table of the engine's descriptors: what a forked child must not keep.

    parent: near ends of all channels, sentinels, life lines          all in the table
      +-- fork --> worker i: closes all of them but its own
      +-- fork --> a child that the user forks: closes all of them

A child that kept the near end of a sibling's channel would keep that sibling from seeing the end of its parent, and
the parent's copy of a sentinel would be one more way to leak. The table holds objects, not numbers: an object that
was closed in a child never closes a number that has been given to something else since.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Closable(Protocol):
    """What the table holds: a Descriptor, a socket."""

    def close(self) -> None: ...


class Descriptor:
    """A file descriptor that closes once: by hand, by the garbage collector, or in a forked child."""

    def __init__(self, fd: int) -> None:
        # An object of C, since Ctrl-C in a __del__ is lost.
        self._file = io.FileIO(fd, "rb")
        register(self)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


class _Kept(threading.local):
    items: tuple[Closable, ...] = ()


class Weakly(Generic[T]):
    """A set that does not keep its items. Other than ``WeakSet`` it forgets them in C, where Ctrl-C is not lost."""

    def __init__(self) -> None:
        self._refs: dict[weakref.ref[T], None] = {}

    def add(self, item: T) -> None:
        self._refs[weakref.ref(item, self._refs.pop)] = None

    def discard(self, item: T) -> None:
        self._refs.pop(weakref.ref(item), None)

    def items(self) -> list[T]:
        """Return those that are still there."""
        return [item for ref in list(self._refs) if (item := ref()) is not None]


_table: Weakly[Closable] = Weakly()
_kept = _Kept()


def register(item: Closable) -> None:
    """Have ``item`` closed in every forked child."""
    _table.add(item)


@contextlib.contextmanager
def keeping(*items: Closable | None) -> Iterator[None]:
    """Let a child that this thread forks meanwhile keep these."""
    _kept.items = tuple(item for item in items if item is not None)
    try:
        yield
    finally:
        _kept.items = ()


def pipe() -> tuple[Descriptor, Descriptor]:
    """Return the two ends of a new pipe, reader first."""
    reader, writer = os.pipe()
    return Descriptor(reader), Descriptor(writer)


def memory_file(name: str) -> Descriptor:
    """Return an empty file without a name, so there is nothing to be left behind."""
    if hasattr(os, "memfd_create"):
        return Descriptor(os.memfd_create(name))
    with tempfile.TemporaryFile(prefix=name) as file:
        return Descriptor(os.dup(file.fileno()))


def _in_child() -> None:
    for item in _table.items():
        if not any(item is kept for kept in _kept.items):
            item.close()
            _table.discard(item)


os.register_at_fork(after_in_child=_in_child)


def make_sure_of(count: int) -> None:
    """Raise OSError unless ``count`` more descriptors can be opened.

    They are counted and not opened, since another thread may need one at this very moment.
    """
    if len(os.listdir("/dev/fd")) + count > os.sysconf("SC_OPEN_MAX"):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
