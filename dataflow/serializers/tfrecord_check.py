"""Look at TFRecord files: what one is, and which of its records are damaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..codec import loads
from ..codec.record import FIRST_BYTE
from ..errors import CorruptDataError, UsageError
from ..sources.tfrecord_frames import (
    FOOT_BYTES,
    FRAME_BYTES,
    HEAD_BYTES,
    Cursor,
    Verified,
    cut_short,
    indexed_bounds,
    read_frames,
    refuse_damaged,
    size_of_frame,
)
from ..utils.open_file import checked_path, is_url, open_binary
from .pickles import holds_pickles

OURS, PICKLE = bytes([FIRST_BYTE]), b"\x80"


def inspect(path: Any) -> dict[str, Any]:
    """Tell what a TFRecord file is; see ``TFRecordSerializer.inspect``."""
    path = checked_path(path=path)
    with open_binary(path) as file:
        end = file.seek(0, os.SEEK_END)
        first = next(read_frames(path, file, Cursor(0, 0), None, Verified(), np.ndarray.tobytes), None)
    bounds = None if is_url(path) else indexed_bounds(path, end)
    return {
        "format": "TFRecord",
        "codec": None if first is None else _codec_of(first),
        "datapoints": None if bounds is None else len(bounds) - 1,
        "bytes": end,
        "checksums": "every record",
        "index": bounds is not None,
    }


def damages(path: Any, *, allow_pickle: bool, on_record: Callable[[], None] | None) -> Iterator[tuple[int | None, str]]:
    """Read every record of a TFRecord file, and yield those that are damaged; see ``TFRecordSerializer.damages``."""
    path = checked_path(path=path)
    with open_binary(path) as file:
        end = file.seek(0, os.SEEK_END)
        bounds, unfit = None, None
        try:
            bounds = None if is_url(path) else indexed_bounds(path, end)
        except CorruptDataError as error:
            unfit = str(error)
        number, offset = 0, 0
        codec: str | None = ""  # not known yet
        while offset < end:
            behind = fault = None
            file.seek(offset)
            is_cut = end - offset < HEAD_BYTES
            try:
                size = size_of_frame(file.read(HEAD_BYTES))
                is_cut = offset + size > end
                if is_cut:
                    raise cut_short(end)
                behind = offset + size
                record = file.read(size - FRAME_BYTES)
                refuse_damaged(record, file.read(FOOT_BYTES))
                if codec == "":
                    codec = _codec_of(record)
                if codec is not None:
                    loads(record, allow_pickle, copy=False, verify=False)
            except UsageError as error:
                if codec != "dataflow":
                    raise holds_pickles(path) from error
                fault = f"at byte {offset:,}: {error}"
            except CorruptDataError as error:
                fault = f"at byte {offset:,}: {error}"
            except Exception as error:  # a damaged pickle raises anything, and the records behind it are to be read too
                fault = f"at byte {offset:,}: {type(error).__name__}: {error}"
            if behind is None and bounds is None and is_cut:
                yield None, f"the file is cut short: it ends at byte {end:,}, behind {number:,} records. Copy it again"
                break
            if behind is None and bounds is None and number == 0:
                yield None, "this is no TFRecord file, or its first bytes are damaged; what follows cannot be reached"
                break
            if on_record is not None:
                on_record()
            if behind is None:
                behind = end if bounds is None else bounds.item(np.searchsorted(bounds, offset, side="right"))
                if behind == end:
                    fault = f"{fault}; what may follow cannot be reached"
            if fault is not None:
                yield number, fault
            number, offset = number + 1, behind
    if unfit is not None:
        yield None, unfit


def _codec_of(record: bytes) -> str | None:
    """Name the layout of a record; None if no serializer of ``dumps`` has written it."""
    if record[:1] == OURS:
        return "dataflow"
    try:
        return "msgpack-numpy" if isinstance(loads(record), list | dict) else None
    except CorruptDataError:
        return None
    except UsageError:
        return "pickle" if record[:1] == PICKLE else "msgpack-numpy"
