"""Tell what went wrong in a flow: the user's part of the traceback, then one line."""

from __future__ import annotations

import pathlib
import sysconfig
from traceback import FrameSummary, TracebackException

from ..errors import DataFlowError

OUR_CODE = (str(pathlib.Path(__file__).parent.parent), "<frozen ")
STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def explain(error: BaseException) -> str:
    """Return the traceback of ``error`` without the frames of dataflow itself, and at its end one line that says it.

    Where no other code was running, but for the standard library, there is no traceback, only the line.
    """
    told = TracebackException.from_exception(error)
    _leave_out_our_code(told)
    if any(map(_is_theirs, told.stack)) or isinstance(error, SyntaxError):  # which has the place in itself
        return f"{''.join(told.format())}{_one_line(error)}"
    return _one_line(error)


def _leave_out_our_code(told: TracebackException) -> None:
    told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(OUR_CODE)]
    for other in (told.__cause__, told.__context__):
        if other is not None:
            _leave_out_our_code(other)


def _is_theirs(frame: FrameSummary) -> bool:
    # Packages may be installed inside the folder of the standard library.
    return not frame.filename.startswith(STANDARD_LIBRARY) or "-packages" in frame.filename


def _one_line(error: BaseException) -> str:
    first, _, more = str(error).strip().partition("\n")
    what = f"{first} [...]" if more else first
    if not isinstance(error, DataFlowError) or not what:
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
    notes = getattr(error, "__notes__", ())
    return "; ".join([f"dataflow: {what.removesuffix('.') if notes else what}", *notes])
