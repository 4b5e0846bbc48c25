"""Tell what went wrong in a flow: the user's part of the traceback, then one line."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sysconfig
from traceback import TracebackException

from ..errors import DataFlowError
from ..utils.remote_error import RemoteTraceback


def _folder_of(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return [str(pathlib.Path(spec.origin).parent)] if spec and spec.origin else []


# The code of progress bars counts for ours, and that of URLs: they hand on what passes through them.
URLS = tuple(_folder_of("fsspec"))
OUR_CODE = (str(pathlib.Path(__file__).parent.parent), "<frozen ", *_folder_of("tqdm"), *URLS)
STANDARD_LIBRARY = sysconfig.get_path("stdlib")
# The lines of a frame in a traceback that came as text.
OUR_FRAMES = re.compile(rf'^  File "(?:{"|".join(map(re.escape, OUR_CODE))}).*\n(?:    .*\n)*', re.MULTILINE)
FILES = re.compile(r'^  File "(.*?)"', re.MULTILINE)


def explain(error: BaseException, *, code: bool = True) -> str:
    """Return the traceback of ``error`` without the frames of dataflow itself, and at its end one line that says it.

    Where no other code was running, but for the standard library, there is no traceback, only the line. Of an error in
    a worker process it is the traceback of that process.

    Args:
        error: what was raised.
        code: whether code of the user may have run; else, too, there is only the line.
    """
    if not code:
        return _one_line(error)
    if isinstance(error.__cause__, RemoteTraceback):
        text = OUR_FRAMES.sub("", error.__cause__.args[0])
        return f"{text if any(map(_is_theirs, FILES.findall(text))) else ''}{_one_line(error)}"
    told = TracebackException.from_exception(error)
    _leave_out_our_code(told)
    if any(_is_theirs(frame.filename) for frame in told.stack) or isinstance(
        error, SyntaxError
    ):  # which has the place in itself
        return f"{''.join(told.format())}{_one_line(error)}"
    return _one_line(error)


def _leave_out_our_code(told: TracebackException) -> None:
    told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(OUR_CODE)]
    for other in (told.__cause__, told.__context__):
        if other is not None:
            _leave_out_our_code(other)


def _is_theirs(filename: str) -> bool:
    # Packages may be installed inside the folder of the standard library.
    return not filename.startswith(STANDARD_LIBRARY) or "-packages" in filename


def _one_line(error: BaseException) -> str:
    first, _, more = str(error).strip().partition("\n")
    what = f"{first} [...]" if more else first
    if not isinstance(error, DataFlowError) or not what:
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
    notes = [*getattr(error, "__notes__", ()), *_way_out(error)]
    return "; ".join([f"dataflow: {what.removesuffix('.') if notes else what}", *notes])


def _way_out(error: BaseException) -> list[str]:
    """Say what helps if a kind of URL needs a package that is not installed; fsspec says which."""
    frames = TracebackException.from_exception(error).stack
    if isinstance(error, ImportError) and frames and frames[-1].filename.startswith(URLS):
        return ["install it with pip, or copy the file to this machine"]
    return []
