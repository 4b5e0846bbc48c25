"""A file that goes to the disk while it is written, and not all at its end.

::

    write:  | 1 | 2 | 3 | 4 |          the caller makes the next bytes while these are on their way
    sync:       | 1 | 2 | 3 | 4 |      in a thread, which waits for the disk
"""

from __future__ import annotations

import os
from io import FileIO
from queue import SimpleQueue
from threading import Thread
from typing import Any

# The disk works as long as something is due; much less, and each part costs more than its bytes.
_PART_BYTES = 1 << 23


class WriteBehind(FileIO):
    """A new or empty file of which no more than some megabytes wait to be synced, if the disk is fast enough.

    What has come last is not synced by ``close``. A sync that failed is an error of ``close``.

    Args:
        path: of the file.
        mode: as for ``FileIO``.
    """

    def __init__(self, path: str, mode: str = "w") -> None:
        self._syncer: _Syncer | None = None
        self._waiting = 0
        super().__init__(path, mode)

    def write(self, data: Any, /) -> int:
        """Write some of ``data``, and return how many bytes."""
        count = super().write(data)
        self._waiting += count
        if self._waiting >= _PART_BYTES:
            self._waiting = 0
            if self._syncer is None:
                self._syncer = _Syncer(self.fileno())
            self._syncer.parts.put(True)
        return count

    def close(self) -> None:
        """Wait for the sync that runs, and close the file.

        Raises:
            OSError: if a sync has failed.
        """
        syncer, self._syncer = self._syncer, None
        try:
            if syncer is not None:
                syncer.end()
        finally:
            super().close()


class _Syncer:
    """A thread that syncs a file whenever a part of it has been written.

    It holds nothing of the file but a descriptor of its own, so that an abandoned file is closed all the same.
    """

    def __init__(self, descriptor: int) -> None:
        self.parts: SimpleQueue[bool] = SimpleQueue()
        self._failure: list[OSError] = []
        args = os.dup(descriptor), self.parts, self._failure
        self._thread = Thread(target=_sync, args=args, name="dataflow-sync", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.parts.put(False)
        self._thread.join()
        if self._failure:
            raise self._failure[0]


def _sync(descriptor: int, parts: SimpleQueue[bool], failure: list[OSError]) -> None:
    sync = getattr(os, "fdatasync", os.fsync)
    try:
        while parts.get():
            sync(descriptor)
    except OSError as error:
        failure.append(error)
    finally:
        os.close(descriptor)
