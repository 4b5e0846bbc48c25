"""An exception on its way from a worker to its place in the stream, or where workers do not start."""

from __future__ import annotations

from collections.abc import Callable

from ..base import DataFlow
from ..engine import Context, Pool
from ..utils.remote_error import pack, unpack


class Failure:
    """What a function raised, answered in place of a result: it is raised when its turn comes, and not before.

    Args:
        error: the exception.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Callable[[bytes], Failure], tuple[bytes]]:
        return _unpacked, (pack(self.error),)


def failed(error: Exception, context: Context, number: int) -> Failure:
    """Return the failure of datapoint ``number``, with a note that says where it was."""
    if notes := getattr(error, "__notes__", None):  # the same object was raised before, maybe elsewhere
        notes[:] = [note for note in notes if not note.startswith(f"in {context.stage}, worker ")]
    context.note(error, number)
    return Failure(error)


def started(pool: Pool, flow: DataFlow) -> Pool:
    """Start the workers of ``flow``, or say that they are its workers."""
    try:
        pool.start()
    except Exception as error:
        error.add_note(f"in {flow!r}")
        raise
    return pool


def _unpacked(data: bytes) -> Failure:
    return Failure(unpack(data))
