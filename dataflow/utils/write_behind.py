"""A file that goes to the disk while it is written, and not all at its end.

::

    write:  | 1 | 2 | 3 | 4 |          the caller makes the next bytes while these are on their way
    sync:       | 1 | 2 | 3 | 4 |      in a thread, which waits for the disk

The thread only saves time: nobody waits for it, and who wants the file to be on the disk syncs it at the end. So it is
none of Python's ``threading``, whose threads are waited for, and counted where processes start by fork.
"""

from __future__ import annotations

import _thread
import os
import weakref
from contextlib import suppress
from io import FileIO
from queue import SimpleQueue
from typing import Any

# The disk works as long as something is due; much less, and each part costs more than its bytes.
_PART_BYTES = 1 << 23


class WriteBehind(FileIO):
    """A new or empty file of which no more than some megabytes wait to be synced, if the disk is fast enough.

    What has come last is not synced by ``close``. A sync that failed is an error of the next ``write`` or of ``close``.

    Args:
        path: of the file.
        mode: as for ``FileIO``.
    """

    def __init__(self, path: str, mode: str = "w") -> None:
        self._parts: SimpleQueue[bool] | None = None
        self._failures: list[OSError] = []
        self._waiting = 0
        super().__init__(path, mode)

    def write(self, data: Any, /) -> int:
        """Write some of ``data``, and return how many bytes.

        Raises:
            OSError: if it cannot be written, or what was written before could not be synced.
        """
        self._refuse()
        count = super().write(data)
        self._waiting += count
        if self._waiting >= _PART_BYTES:
            self._waiting = 0
            if self._parts is None:
                self._start()
            else:
                self._parts.put(True)
        return count

    def close(self) -> None:
        """Close the file; a sync that runs ends by itself.

        Raises:
            OSError: if a sync has failed.
        """
        if self._parts is not None:
            self._parts.put(False)
        super().close()
        self._refuse()

    def _start(self) -> None:
        parts: SimpleQueue[bool] = SimpleQueue()
        self._parts = parts
        weakref.finalize(self, parts.put, False).atexit = False  # also when it is dropped
        parts.put(True)
        with suppress(RuntimeError):  # too many threads: then all is synced at the end
            _thread.start_new_thread(_sync, (self.name, parts, self._failures))

    def _refuse(self) -> None:
        if self._failures:
            raise self._failures.pop()


def _sync(path: Any, parts: SimpleQueue[bool], failures: list[OSError]) -> None:
    sync = getattr(os, "fdatasync", os.fsync)
    try:
        # A descriptor of its own, since the other may be closed at any time.
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # the file is gone already, or there are too many open
        return
    try:
        while parts.get():
            sync(descriptor)
    except OSError as error:
        failures.append(error)
    finally:
        os.close(descriptor)
