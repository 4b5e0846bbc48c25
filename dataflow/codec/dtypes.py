"""A dtype as plain strings and lists, and back: exactly, or not at all."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

MAX_DEPTH = 32

# numpy's own spelling of every plain dtype but object. What else it reads ("i4,f8", "(9,9)f8") is refused.
_PLAIN = re.compile(r"[<>|=]?([biufcSUV]\d{1,10}|[mM]8(\[\d{0,10}[a-zA-Z]{1,2}\])?)", re.ASCII)


def describe(dtype: np.dtype[Any]) -> Any:
    """Put ``dtype`` into strings and lists that ``restore`` turns back into it.

    A dtype's metadata, which numpy itself does not compare, is left out.

    >>> describe(np.dtype("int16")), describe(np.dtype([("x", "<f4")]))
    ('<i2', ['struct', 4, False, False, [['x', None, 0, '<f4']]])

    Raises:
        TypeError: if it holds Python objects, or numpy knows no way to write it down.
    """
    if not dtype.itemsize:
        raise TypeError(f"an array of dtype {dtype}, whose items have no bytes")
    return _describe(dtype, 0)


def restore(written: Any) -> np.dtype[Any]:
    """Build the dtype that ``describe`` wrote down, from bytes that nobody vouches for.

    Raises:
        ValueError: if no array may have it.
        TypeError: if numpy does not know it, on this machine.
    """
    return checked(_restore(written, 0))


def checked(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return ``dtype`` if an array over foreign bytes may have it: no pointers, and items that take room."""
    if dtype.hasobject or dtype.subdtype is not None or not dtype.itemsize:
        raise ValueError(f"no array of dtype {dtype} can be held")
    return dtype


def plain(name: str) -> np.dtype[Any]:
    """Return the dtype that numpy spells ``name``, unless it holds objects or fields."""
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is no dtype of plain values")
    return np.dtype(name)


def raw(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what to copy an array as: between fields, numpy's own copy has whatever bytes were there before."""
    return dtype if dtype.names is None or dtype.hasobject else np.dtype((np.void, dtype.itemsize))


def _describe(dtype: np.dtype[Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise TypeError(f"an array whose dtype is nested deeper than {MAX_DEPTH} levels")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["subarray", _describe(base, depth + 1), list(shape)]
    if dtype.names is None:
        name = dtype.str
        # The types of ml_dtypes call themselves "<V2", which is another dtype.
        if not _PLAIN.fullmatch(name) or np.dtype(name) != dtype:
            raise TypeError(f"an array of dtype {dtype}")
        return name
    if dtype.type not in (np.void, np.record):
        raise TypeError(f"an array of {dtype.type.__qualname__}")
    fields = []
    for name in dtype.names:
        kind, offset, *title = dtype.fields[name]  # type: ignore[index]  # names and fields go together
        if title and type(title[0]) is not str:
            raise TypeError(f"an array whose field {name!r} has a title that is no string")
        fields.append([name, title[0] if title else None, offset, _describe(kind, depth + 1)])
    return ["struct", dtype.itemsize, dtype.isalignedstruct, dtype.type is np.record, fields]


def _restore(node: Any, depth: int) -> np.dtype[Any]:
    if depth > MAX_DEPTH:
        raise ValueError(f"a dtype is nested deeper than {MAX_DEPTH} levels")
    match node:
        case str():
            return plain(node)
        case ["subarray", base, list(shape)] if all(type(n) is int for n in shape):
            return np.dtype((_restore(base, depth + 1), tuple(shape)))
        case ["struct", int(itemsize), bool(aligned), bool(is_record), list(fields)]:
            names, titles, offsets, kinds = [], [], [], []
            for name, title, offset, kind in fields:
                names.append(name)
                titles.append(title)
                offsets.append(offset)
                kinds.append(_restore(kind, depth + 1))
            struct = np.dtype(
                {
                    "names": names,
                    "titles": titles,
                    "offsets": offsets,
                    "formats": kinds,
                    "itemsize": itemsize,
                },
                align=aligned,
            )
            return np.dtype((np.record, struct)) if is_record else struct
        case _:
            raise ValueError(f"a {type(node).__name__} is no dtype")
