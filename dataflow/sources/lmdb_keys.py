"""The keys of an LMDB file: given, listed in the file or found in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..codec import loads
from ..codec.record import FIRST_BYTE
from ..errors import CorruptDataError, UsageError
from ..utils import check
from ..utils.open_lmdb import KEYS, LMDBFile
from ..utils.progress import progress

# ``keys.item(number)`` is a key.
Keys = np.ndarray[Any, np.dtype[Any]]


def checked_keys(keys: Any) -> Keys | str | None:
    """Return the argument ``keys`` as a format string or as an array, or raise."""
    if keys is None:
        return None
    if isinstance(keys, str):
        try:
            varies = keys.format(0) != keys.format(1)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"keys must be a format string for numbers, such as '{{:0>8d}}', got {keys!r}") from error
        if not varies:
            raise ValueError(f"keys must have a place for the number, such as '{{:0>8d}}', got {keys!r}")
        return keys
    check.instance((list, tuple, np.ndarray), "a list of str or bytes, or a format string", keys=keys)
    return packed([_checked_key(key) for key in (keys.tolist() if isinstance(keys, np.ndarray) else keys)])


def _checked_key(key: Any) -> bytes:
    check.instance((str, bytes), "a list of str or bytes", **{"each of keys": key})
    if not key:
        raise ValueError("keys must not be empty, and LMDB has none that are")
    return key.encode() if isinstance(key, str) else bytes(key)


def packed(keys: list[bytes]) -> Keys:
    """Put keys into an array whose ``item`` gives them back.

    Keys of one length lie side by side, which takes a sixth of the memory of a list, and processes forked share it.
    """
    lengths = {*map(len, keys)}
    if len(lengths) == 1:
        return np.frombuffer(b"".join(keys), f"V{lengths.pop()}")
    packed = np.empty(len(keys), object)
    packed[:] = keys
    return packed


@contextmanager
def damage_named(file: LMDBFile) -> Iterator[None]:
    """Make what lmdb raises in the block an error that names the file."""
    try:
        yield
    except file.error as error:
        raise CorruptDataError(f"{file.path!r} is damaged ({error}). Copy it again") from error


def listed_keys(file: LMDBFile, allow_pickle: bool) -> Keys | None:
    """Return the keys that the file lists; None if it has no list, or none that can be read."""
    if not file.listed:
        return None
    kind = "listed", allow_pickle
    if kind not in file.cache:
        file.cache[kind] = _load_list(file, allow_pickle)
    keys: Keys | None = file.cache[kind]
    return keys


def _load_list(file: LMDBFile, allow_pickle: bool) -> Keys | None:
    with damage_named(file):
        raw = file.begin().get(KEYS)
    try:
        listed = loads(raw, allow_pickle)
    except UsageError:
        return None
    except CorruptDataError as error:
        if raw[:1] == bytes([FIRST_BYTE]):
            raise CorruptDataError(f"{file.path!r}, the list of keys: {error}") from error
        return None
    if isinstance(listed, np.ndarray) and listed.dtype.kind == "S" and listed.ndim == 1:
        return listed.view(f"V{listed.itemsize}")
    if isinstance(listed, list) and all(isinstance(key, bytes) for key in listed):
        return packed(listed)
    return None


def all_keys(file: LMDBFile) -> Keys:
    """Return all keys of the file, which takes a look at every one."""
    keys = file.begin().cursor().iternext(values=False)
    rows = progress(file.count, f"list the keys of {os.path.basename(file.path)}", unit=" keys", rows=keys)
    with damage_named(file):
        return packed([key for key in rows if key != KEYS])
