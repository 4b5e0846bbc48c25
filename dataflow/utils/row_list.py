"""Many small datapoints of one layout, pickled as columns: a few large buffers instead of many small objects.

    [[a0, 7], [a1, 8], ...]  ->  bytes of all arrays, bytes of all ints  ->  [[view, 7], [view, 8], ...]

To pickle and load a small array takes 5 us, as a part of a column 0.4. What comes back equals what was sent, type by
type. Its arrays may be written to, as all that ``pickling.dumps`` sends; they are views on the memory of their column,
so PIECE bytes at most stay for as long as one of them does. Other columns are pickled as the tuple of their values.

Rows stay rows where columns would change what is one object (an array that a row holds twice, or once more inside of a
list), or would not be faster.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, pairwise
from operator import attrgetter, is_
from typing import Any

import numpy as np

# Fewer datapoints than this are pickled as they are.
LEAST = 8
# Arrays of this many bytes and more are, too: to copy them costs more than to name them.
LARGE = 2048
# Bytes of one piece of a column.
PIECE = 1 << 16
# Of so many Python numbers a column is faster than a tuple of them.
NUMBERS = 64

_dtypes, _shapes, _sizes = attrgetter("dtype"), attrgetter("shape"), attrgetter("nbytes")
# A column on its way: what makes values of it, and its arguments.
Column = tuple[Callable[..., Iterable[Any]], tuple[Any, ...]]

_NUMBERS = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64)}
_SCALARS = {np.dtype(code).type: np.dtype(code) for code in "?bhilqBHILQefdFD"}


# What holds no other object that a row might hold as well.
_PLAIN = frozenset({*_NUMBERS, *_SCALARS, str, bytes, complex, type(None)})


class RowList(list[Any]):
    """A list of datapoints, whose pickle loads as a list of them."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        rows = _as_columns(self) if len(self) >= LEAST and protocol >= 5 else None
        return (list, (list(self),)) if rows is None else rows


def _as_columns(rows: list[Any]) -> Column | None:
    """Return lists, tuples or dicts of one layout as columns, or None if they are better left as they are."""
    kind, size = type(rows[0]), len(rows)
    if kind not in (list, tuple, dict) or not _all(map(type, rows), kind, size) or not rows[0]:
        return None
    first = [*map(type, rows[0].values() if kind is dict else rows[0])]
    if size < NUMBERS and np.ndarray not in first and _SCALARS.keys().isdisjoint(first):
        return None
    form: Any = kind
    values: list[Any] = rows
    if kind is dict:
        form = tuple(rows[0])
        if not all(type(key) is str for key in form) or not _all(map(tuple, rows), form, size):
            return None
        values = [*map(dict.values, rows)]
    elif not _all(map(len, rows), len(rows[0]), size):
        return None
    columns: list[Column] = []
    arrays: list[tuple[Any, ...]] = []
    for part in zip(*values, strict=True):
        column = _column(part)
        if type(part[0]) is np.ndarray:
            if any(any(map(is_, part, other)) for other in arrays):
                return None
            arrays.append(part)
        elif column is None and not _PLAIN.issuperset(map(type, part)):
            return None
        columns.append((tuple, (part,)) if column is None else column)
    return _rows, (form, columns)


def _all(found: Iterable[Any], wanted: Any, size: int) -> bool:
    return [*found].count(wanted) == size


def _column(values: tuple[Any, ...]) -> Column | None:
    kind, size = type(values[0]), len(values)
    if not _all(map(type, values), kind, size):
        return None
    if kind is np.ndarray:
        return _arrays(values)
    dtype = _NUMBERS.get(kind) if size >= NUMBERS else None
    dtype = _SCALARS.get(kind, dtype)
    return None if dtype is None else _packed(values, kind, dtype)


def _packed(values: tuple[Any, ...], kind: type, dtype: np.dtype[Any]) -> Column | None:
    try:
        data = np.fromiter(values, dtype, len(values)).tobytes()
    except OverflowError:  # an int beyond 64 bits
        return None
    return (_numbers if kind in _NUMBERS else _scalars), (dtype.char, data)


def _arrays(values: tuple[Any, ...]) -> Column | None:
    first, size = values[0], len(values)
    dtype, shape = first.dtype, first.shape
    if not shape or dtype.hasobject or not dtype.itemsize or not _all(map(_dtypes, values), dtype, size):
        return None
    shapes = None if _all(map(_shapes, values), shape, size) else [*map(_shapes, values)]
    largest = first.nbytes if shapes is None else max(map(_sizes, values))
    if not 0 < largest < LARGE or (shapes is not None and not _all(map(len, shapes), len(shape), size)):
        return None
    step = PIECE // largest
    try:
        pieces = [pickle.PickleBuffer(b"".join(values[i : i + step])) for i in range(0, size, step)]
    except (BufferError, TypeError, ValueError):  # not contiguous, or of a dtype that has no buffer
        return None
    if shapes is None:
        return _views, (dtype, shape, pieces)
    lengths = np.fromiter(chain.from_iterable(shapes), np.int64, size * len(shape)).tobytes()
    return _ragged, (dtype, len(shape), lengths, step, pieces)


def _rows(form: Any, columns: list[Column]) -> list[Any]:
    values = zip(*(make(*arguments) for make, arguments in columns), strict=True)
    if form is tuple:
        return [*values]
    if form is list:
        return [*map(list, values)]
    return [dict(zip(form, row, strict=True)) for row in values]


def _numbers(code: str, data: bytes) -> list[Any]:
    numbers: list[Any] = np.frombuffer(data, code).tolist()
    return numbers


def _scalars(code: str, data: bytes) -> list[Any]:
    return [*np.frombuffer(data, code)]


def _views(dtype: np.dtype[Any], shape: tuple[int, ...], pieces: list[Any]) -> list[Any]:
    return [*chain.from_iterable(whole.reshape(-1, *shape) for whole in _writable(dtype, pieces))]


def _ragged(dtype: np.dtype[Any], dimensions: int, lengths: bytes, step: int, pieces: list[Any]) -> list[Any]:
    shapes = np.frombuffer(lengths, np.int64).reshape(-1, dimensions)
    sizes = shapes.prod(axis=1).tolist()
    views: list[Any] = []
    for number, whole in enumerate(_writable(dtype, pieces)):
        ends = accumulate(sizes[number * step :][:step], initial=0)
        views += [whole[begin:end] for begin, end in pairwise(ends)]
    return views if dimensions == 1 else [*map(np.ndarray.reshape, views, shapes.tolist())]


def _writable(dtype: np.dtype[Any], pieces: list[Any]) -> Iterator[Any]:
    for piece in pieces:
        data = np.frombuffer(piece, np.uint8)
        yield (data if data.flags.writeable else data.copy()).view(dtype)
