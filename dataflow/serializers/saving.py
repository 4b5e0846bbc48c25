"""What every ``save`` does: check its arguments, run one pass, show progress, say where it failed, publish the file.

::

    with saving(df, path, by="NumpySerializer.save") as job:
        file = job.open()         # a writable binary file, or job.temporary for a library that wants a name
        for dp in job.rows():
            file.write(...)
                                  # here it becomes `path`; after an error it would be gone

The workers that a flow forks come before the file is open: what is in a buffer is written by one process only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from ..base import DataFlow, as_flow
from ..errors import EndlessLength, UsageError
from ..utils.files import existing_folder, published
from ..utils.open_file import checked_path, is_url, published_stream, refuse_existing
from ..utils.progress import progress

logger = logging.getLogger(__name__)


@contextmanager
def saving(df: Any, path: Any, by: str) -> Iterator[Saving]:
    """Hand out what a ``save`` needs to write one pass of a flow, after a ``reset_state``, to a new file.

    An error in the block, or while the file is closed, gets a note that says at which datapoint it happened, and an
    OSError of a write the path, too. A pass that is longer or shorter than the flow says is logged.

    Args:
        df: a finite flow, or what ``as_flow`` takes.
        path: path or URL.
        by: what the user called, such as "LMDBSerializer.save".

    Raises:
        TypeError: if ``df`` is no flow, or ``path`` no path.
        UsageError: if the flow never ends.
    """
    job = Saving(as_flow(df), checked_path(path=path), by)
    try:
        with job._files:
            yield job
    except Exception as error:
        failure = job._explained(error)
        if failure is error:
            raise
        raise failure from error
    if job.total not in (None, job.count):
        logger.warning("%s holds %d datapoints, and the length of the flow is %d", job.path, job.count, job.total)


class Saving:
    """A ``save`` that runs; ``saving`` makes these.

    Attributes:
        df: the flow.
        path: where the file will be: a path on this machine or a URL.
        total: the length of the flow, or None.
        count: datapoints that ``rows`` has handed out so far.
    """

    def __init__(self, df: DataFlow, path: str, by: str) -> None:
        self.df, self.path, self.count = df, path, 0
        self.total = _finite_length(df)
        self._by = by
        self._files = ExitStack()
        self._it: Iterator[Any] | None = None
        self._running = False
        self._cause: Exception | None = None

    @property
    def temporary(self) -> str:
        """The name of a new empty file on this machine, which becomes ``path`` in the end; to be asked for once.

        Raises:
            FileExistsError: if there is a file at ``path``.
            UsageError: if ``path`` is a URL.
        """
        if is_url(self.path):
            raise UsageError(
                f"{self._by} writes to this machine only, and {self.path!r} is a URL: save it here, and copy it then"
            )
        self._begin()
        return self._files.enter_context(published(self.path))

    def open(self) -> BinaryIO:
        """Return a new binary file, which becomes ``path`` in the end, also at a URL; to be called once.

        Raises:
            FileExistsError: if there is a file at ``path``.
        """
        self._begin()
        return self._files.enter_context(published_stream(self.path))

    def rows(self) -> Iterator[Any]:
        """Yield the datapoints of the pass, and show progress on a terminal."""
        it = self._begin()
        bar = self._files.enter_context(progress(self.total, f"save {os.path.basename(self.path)}", rows=it))
        self._running = True
        try:
            for self.count, dp in enumerate(bar, 1):
                yield dp
        except Exception as error:
            self._cause = error
            raise
        self._running = False

    def _begin(self) -> Iterator[Any]:
        """Start the pass, unless it is started; raise before it if there is a file already, or no folder."""
        if self._it is None:
            refuse_existing(self.path)
            if not is_url(self.path):
                existing_folder(self.path)
            self.df.reset_state()
            self._it = iter(self.df)
        return self._it

    def _explained(self, error: Exception) -> Exception:
        """Return ``error`` with a note that says where, or what says which file could not be written."""
        by_flow = error is self._cause
        if isinstance(error, OSError) and not by_flow and error.errno is not None and error.filename is None:
            return OSError(error.errno, f"{error.strerror} after {self.count:,} datapoints", self.path)
        located = any(note.startswith("in ") and ", datapoint " in note for note in getattr(error, "__notes__", ()))
        if self._running and not located:
            error.add_note(f"in {self._by}, datapoint {self.count if by_flow else self.count - 1}")
        return error


def _finite_length(df: DataFlow) -> int | None:
    try:
        return len(df)
    except EndlessLength:
        raise UsageError(f"{df!r} never ends, so no file can hold it; cut it with FixedSizeData(ds, size)") from None
    except (NotImplementedError, TypeError):
        return None
