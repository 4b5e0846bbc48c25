"""Many small datapoints of one layout, pickled as columns: a few large buffers instead of many small objects.

    [[a0, 7], [a1, 8], ...]  ->  bytes of all arrays, bytes of all ints  ->  [[view, 7], [view, 8], ...]

To pickle and load a small array takes 5 us, as a part of a column 0.4. What comes back equals what was sent, type by
type. Its arrays may be written to, as all that ``pickling.dumps`` sends; they are views on the memory of their column,
so PIECE bytes at most stay for as long as one of them does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import numpy as np

# Fewer datapoints than this are pickled as they are.
LEAST = 8
# Arrays of this many bytes and more are, too: to copy them costs more than to name them.
LARGE = 2048
# Bytes of one piece of a column.
PIECE = 1 << 16

_dtypes, _shapes = attrgetter("dtype"), attrgetter("shape")
# A column on its way: what makes values of it, and its arguments.
Column = tuple[Callable[..., Iterable[Any]], tuple[Any, ...]]


class RowList(list[Any]):
    """A list of datapoints, whose pickle loads as a list of them."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        columns = _columns(self) if len(self) >= LEAST and protocol >= 5 else None
        return (list, (list(self),)) if columns is None else (_rows, columns)


def _columns(rows: list[Any]) -> tuple[Any, list[Column]] | None:
    """Return the keys of dicts, or None for lists, and the columns; None if they are not of one layout."""
    kind, size = type(rows[0]), len(rows)
    if [*map(type, rows)].count(kind) != size:
        return None
    if kind is dict:
        keys = tuple(rows[0])
        if [*map(tuple, rows)].count(keys) != size or not all(type(key) is str for key in keys):
            return None
        values = zip(*map(dict.values, rows), strict=True)
    elif kind is list:
        keys = None
        if [*map(len, rows)].count(len(rows[0])) != size:
            return None
        values = zip(*rows, strict=True)
    else:
        return None
    columns = [*map(_column, values)]
    return (keys, columns) if columns and None not in columns else None  # type: ignore[return-value]


def _column(values: tuple[Any, ...]) -> Column | None:
    kind, size = type(values[0]), len(values)
    if [*map(type, values)].count(kind) != size:
        return None
    if kind is np.ndarray:
        return _arrays(values)
    if kind in (str, bytes):
        return list, (values,)
    dtype = _NUMBERS.get(kind)
    if dtype is None:
        return None
    try:
        return _numbers, (dtype.char, np.fromiter(values, dtype, size).tobytes())
    except OverflowError:  # an int beyond 64 bits
        return None


_NUMBERS = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64)}


def _arrays(values: tuple[Any, ...]) -> Column | None:
    first, size = values[0], len(values)
    dtype, shape = first.dtype, first.shape
    if (
        not shape  # of zero dimensions
        or not 0 < first.nbytes < LARGE
        or dtype.hasobject
        or [*map(_dtypes, values)].count(dtype) != size
        or [*map(_shapes, values)].count(shape) != size
    ):
        return None
    try:
        joined = b"".join(values)
    except (BufferError, TypeError, ValueError):  # not contiguous, or of a dtype that has no buffer
        return None
    step = max(PIECE // first.nbytes, 1) * first.nbytes
    return _views, (dtype, shape, [pickle.PickleBuffer(joined[i : i + step]) for i in range(0, len(joined), step)])


def _rows(keys: tuple[str, ...] | None, columns: list[Column]) -> list[Any]:
    values = zip(*(make(*arguments) for make, arguments in columns), strict=True)
    if keys is None:
        return [*map(list, values)]
    return [dict(zip(keys, row, strict=True)) for row in values]


def _numbers(code: str, data: bytes) -> list[Any]:
    numbers: list[Any] = np.frombuffer(data, code).tolist()
    return numbers


def _views(dtype: np.dtype[Any], shape: tuple[int, ...], pieces: list[Any]) -> list[Any]:
    views: list[Any] = []
    for piece in pieces:
        writable = np.frombuffer(piece, np.uint8)
        if not writable.flags.writeable:
            writable = writable.copy()
        views.extend(writable.view(dtype).reshape(-1, *shape))
    return views
