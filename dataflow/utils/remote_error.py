"""An exception as bytes and back: of its own type, with the traceback of where it was raised as its cause."""

from __future__ import annotations

import pickle
import traceback
from typing import Any

from ..errors import WorkerError
from .pickling import travel


class RemoteTraceback(Exception):
    """The traceback of an exception that was raised in another process; it is text, and the cause of its copy."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def pack(error: BaseException) -> bytes:
    """Return ``error`` as bytes; never fails, whatever ``error`` holds.

    What does not come back as it was, is packed as its name and text.
    """
    text = _text(error)
    try:
        data: bytes | None = travel(error, reduce=_reduce)
        if not _same(pickle.loads(data or b""), error):
            data = None
    except Exception:
        data = None
    return pickle.dumps((data, summary(error), text))


def unpack(data: bytes | memoryview) -> BaseException:
    """Return the exception in ``data``, or a WorkerError that quotes it, with the remote traceback as its cause.

    >>> error = unpack(pack(KeyError("x")))
    >>> error, error.__cause__.args[0].strip()
    (KeyError('x'), "KeyError: 'x'")
    """
    packed, summary, text = pickle.loads(data)
    error: BaseException | None = None
    if packed is not None:
        try:
            error = pickle.loads(packed)
        except Exception:  # the class is not found here: its text is what is left
            error = None
    if error is None:
        error = WorkerError(summary)
    error.__cause__ = RemoteTraceback(text)
    return error


def _reduce(error: Any) -> Any:
    """Take an exception apart so that it comes back even if its constructor wants other arguments."""
    if not isinstance(error, BaseException):
        return NotImplemented
    parts = error.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    if not isinstance(parts, tuple) or parts[0] is not type(error):
        return NotImplemented  # it has a way of its own
    return _rebuild, (*parts[:2], str(error)), *parts[2:]


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], text: str) -> BaseException:
    """Make the exception by its constructor, or past it where that fails or adds to the text."""
    try:
        error = kind(*args)
        if str(error) == text:
            return error
    except Exception:
        pass
    builtin = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    error = kind.__new__(kind, *args)
    builtin.__init__(error, *args)  # type: ignore[misc]  # it is the base of its class that keeps the arguments
    return error


def _same(copy: Any, error: BaseException) -> bool:
    return type(copy) is type(error) and str(copy) == str(error)


def summary(error: BaseException) -> str:
    """Return ``module.Type: text`` even if the exception cannot show itself."""
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be shown)"
    return f"{name}: {text}" if text else name


def _text(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return f"{summary(error)}\n"
