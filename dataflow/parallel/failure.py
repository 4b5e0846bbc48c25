"""An exception on its way from a worker to its place in the stream."""

from __future__ import annotations

from collections.abc import Callable

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


def _unpacked(data: bytes) -> Failure:
    return Failure(unpack(data))
