"""Look at LMDB files: what one is, and which of its records are damaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ..codec import loads
from ..codec.record import CHECKED, FIRST_BYTE
from ..errors import CorruptDataError, UsageError
from ..sources.lmdb_keys import Keys, listed_keys
from ..utils.open_file import checked_path
from ..utils.open_lmdb import LMDBFile, data_file, open_lmdb
from .pickles import holds_pickles

# How many records are asked what all of them are: the first may be damaged.
SAMPLE = 8

# What a record of ours begins with, and a pickle. Inside, one of msgpack-numpy may hold a pickle, too.
OURS, PICKLE = bytes([FIRST_BYTE]), b"\x80"

Value = bytes | memoryview


def inspect(path: Any) -> dict[str, Any]:
    """Tell what an LMDB file is, from its beginning; see ``LMDBSerializer.inspect``."""
    file = _opened(path)
    key, start = _first(file)
    return {
        "format": "LMDB",
        "codec": _codec(file),
        "datapoints": file.count,
        "bytes": os.path.getsize(file.path),
        "checksums": "every record" if start.startswith(CHECKED) else "none",
        "first key": key.decode(errors="backslashreplace"),
        "list of keys": file.listed,
    }


def damages(path: Any, *, allow_pickle: bool, on_record: Callable[[], None] | None) -> Iterator[tuple[int | None, str]]:
    """Read every record of an LMDB file, and yield those that are damaged; see ``LMDBSerializer.damages``."""
    file = _opened(path)
    codec = _codec(file)
    if codec == "pickle" and not allow_pickle:
        raise holds_pickles(file.path)
    if codec is None and file.count:
        raise UsageError(
            f"{file.path!r} holds no datapoints as LMDBSerializer writes them, but values that begin with "
            f"{_first(file)[1]!r}: read them with LMDBData and a decoder of your own, or with CaffeLMDB"
        )
    keys = None
    try:
        keys = listed_keys(file, allow_pickle)
    except CorruptDataError as error:
        yield None, str(error)
    yield from _faults(file, keys, codec, allow_pickle, on_record or _nothing)
    if keys is not None and len(keys) != file.count:
        yield None, f"{file.count:,} datapoints, where the list of keys has {len(keys):,}: the writer lost some"


def _faults(
    file: LMDBFile, keys: Keys | None, codec: str | None, allow_pickle: bool, on_record: Callable[[], None]
) -> Iterator[tuple[int | None, str]]:
    """Yield number and fault of each record: of all in the file, or of those that are listed."""
    number = -1
    try:
        for number, (key, value) in enumerate(_all(file) if keys is None else _listed(file, keys)):
            fault = _fault(value, codec, allow_pickle)
            on_record()
            if fault:
                yield number, f"key {key!r}: {fault}"
    except UsageError as error:
        raise holds_pickles(file.path) from error
    except file.error as error:  # raised by the cursor, which has no way behind it
        yield number + 1, f"the file is damaged here ({error}), and what follows cannot be reached"


def _fault(value: Value | Exception | None, codec: str | None, allow_pickle: bool) -> str | None:
    """Say what is wrong with the value of a record.

    Raises:
        UsageError: if it is a pickle, or holds one, in a file of others.
    """
    if value is None:
        return "listed, and not in the file"
    if isinstance(value, Exception):
        return f"the file is damaged here ({value})"
    try:
        loads(value, allow_pickle, copy=False)
    except UsageError as error:
        if codec != "dataflow":
            raise
        return str(error)
    except CorruptDataError as error:
        return str(error)
    except Exception as error:  # a damaged pickle raises anything, and the records behind it are to be read too
        return f"{type(error).__name__}: {error}"
    return None


def _all(file: LMDBFile) -> Iterator[tuple[bytes, Value]]:
    """Yield key and value of every record, along the file."""
    cursor = file.begin(buffers=True).cursor()
    cursor.first()
    return ((bytes(key), value) for key, value in islice(file.items(cursor), file.count))


def _listed(file: LMDBFile, keys: Keys) -> Iterator[tuple[bytes, Value | Exception | None]]:
    """Yield key and value of every record that is listed; an error of LMDB in the place of a value."""
    get = file.begin(buffers=True).get
    for key in map(keys.item, range(len(keys))):
        try:
            value = get(key)
        except file.error as error:
            value = error
        yield key, value


def _opened(path: Any) -> LMDBFile:
    return open_lmdb(data_file(checked_path(path=path)))


def _first(file: LMDBFile) -> tuple[bytes, bytes]:
    """Return the first key, and what its value begins with."""
    key, value = next(_all(file), (b"", b""))
    return key, bytes(value[:12])


def _codec(file: LMDBFile) -> str | None:
    """Name the layout of the records; None if no serializer of ``dumps`` has written them."""
    return next(filter(None, (_codec_of(value) for _, value in islice(_all(file), SAMPLE))), None)


def _codec_of(value: Value) -> str | None:
    if bytes(value[:1]) == OURS:
        return "dataflow"
    try:
        return "msgpack-numpy" if isinstance(loads(value, copy=False), list | dict) else None
    except CorruptDataError:
        return None
    except UsageError:
        return "pickle" if bytes(value[:1]) == PICKLE else "msgpack-numpy"


def _nothing() -> None:
    """Stand in for ``on_record``."""
