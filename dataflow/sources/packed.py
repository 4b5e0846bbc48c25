"""Datapoints in a few large buffers instead of millions of objects, so that forked processes share them.

Whoever looks at an object writes its reference count. In a worker this copies the page that the object lies in, so
each worker ends up with a list of its own. A buffer has one count for all of its bytes::

    [{"path": "a.jpg", "label": 3}, {"path": "b.jpg", "label": 5}]   of one layout: a column for each key
        "path"    Spans     "a.jpgb.jpg", and where each ends: 5, 10
        "label"   Numbers   3, 5

    [[1, "a"], {"x": None}]                                          of several: one column for all
                  Spans     two pickles, and where each ends

A column of anything but numbers, ASCII text, bytes and arrays of one shape holds pickles as well. A list of an array
and a number comes back from columns 20 times as fast as from a pickle, one of numbers 5 times.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import pickle
import sys
import types
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import countOf, itemgetter
from typing import Any

import numpy as np

from ..utils import pickling

# Items that are packed or unpacked in one go; to unpack, their bytes count, too.
CHUNK, CHUNK_BYTES = 1024, 1 << 20

# Items with more keys than this are packed whole.
MOST_COLUMNS = 256

_PYTHON = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64)}
_SCALARS = {np.dtype(code).type for code in "?bhilqBHILQefdFD"}

# Which values of a column to take: consecutive ones, or those with these numbers.
Which = slice | np.ndarray[Any, Any]
Keys = tuple[Any, ...]


class Packed:
    """A sequence that packs its items, and makes an item anew whenever it is asked for.

    >>> rows = Packed([{"x": 1}, {"x": 2}])
    >>> rows[1], len(rows)
    ({'x': 2}, 2)

    Args:
        rows: the items, in any sequence, which is not kept.

    Raises:
        TypeError: if an item cannot be pickled.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        rows = rows if type(rows) in (list, tuple) else [rows[index] for index in range(len(rows))]
        self._size = len(rows)
        # What each item is made of: dict, list or tuple, and its keys; None where they are packed whole.
        self._kind, self._keys = _layout(rows)
        # What the pickles know by its name in the user's script.
        self._of_main: dict[str, Any] = {}
        if self._kind is None:
            self._columns = [_column(rows, "", self._of_main)]
        else:
            self._columns = [_column([*map(itemgetter(key), rows)], f"[{key!r}]", self._of_main) for key in self._keys]
        width = sum(column.nbytes for column in self._columns) // max(self._size, 1)
        self._chunk = min(CHUNK, max(1, CHUNK_BYTES // max(width, 1)))
        _expect_garbage()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Any:
        number = range(self._size)[index]
        return next(self.rows(range(number, number + 1)))

    def rows(self, numbers: range | np.ndarray[Any, Any]) -> Iterator[Any]:
        """Return the items with these numbers, which are consecutive or in an array."""
        starts = range(0, len(numbers), self._chunk)
        return chain.from_iterable(self._unpacked(numbers[start : start + self._chunk]) for start in starts)

    def _unpacked(self, numbers: range | np.ndarray[Any, Any]) -> Iterable[Any]:
        which = slice(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers
        values = [column.take(which) for column in self._columns]
        if self._kind is None:
            return values[0]
        if self._kind is dict:
            return map(_dict_of(self._keys), *values)
        return map(self._kind, zip(*values, strict=True))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for name, obj in self._of_main.items():  # in a new interpreter of ours, __main__ is not the user's script
            vars(sys.modules["__main__"]).setdefault(name, obj)

    def __repr__(self) -> str:
        return f"packed list of {self._size}"


def _layout(rows: Sequence[Any]) -> tuple[type | None, Keys]:
    """Return the type that all rows have and the keys of each, or None if these differ."""
    kind = _type_of(rows)
    if kind not in (dict, list, tuple) or len(rows[0]) > MOST_COLUMNS:
        return None, ()
    if kind is dict:
        # All keys in one list: that says the same as row by row, since no dict has a key twice, in half the time.
        keys = [*chain.from_iterable(rows)]
        if _type_of(keys) is str and keys == [*rows[0]] * len(rows):
            return dict, tuple(rows[0])
    elif (width := len(rows[0])) and countOf(map(len, rows), width) == len(rows):
        return kind, tuple(range(width))
    return None, ()


def _type_of(values: Sequence[Any]) -> type | None:
    """Return the type that all of ``values`` have; None if they differ, or there are none."""
    kind = type(values[0]) if values else None
    return kind if countOf(map(type, values), kind) == len(values) else None


@functools.lru_cache
def _dict_of(keys: Keys) -> Callable[..., dict[str, Any]]:
    """Make the function from values to a dict; a dict display takes half as long as ``dict(zip(keys, values))``."""
    names = [f"value{number}" for number in range(len(keys))]
    items = ", ".join(f"{key!r}: {name}" for key, name in zip(keys, names, strict=True))
    function: Callable[..., dict[str, Any]] = eval(f"lambda {', '.join(names)}: {{{items}}}")
    return function


class Numbers:
    """A column of Python's numbers, or of scalars of numpy."""

    def __init__(self, values: Sequence[Any], kind: type) -> None:
        self._python = kind in _PYTHON
        self._values = np.fromiter(values, _PYTHON.get(kind, kind), len(values))
        self.nbytes = self._values.nbytes

    def take(self, which: Which) -> Iterable[Any]:
        values = self._values[which]
        return values.tolist() if self._python else values


class Arrays:
    """A column of arrays of one shape and dtype."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values
        self.nbytes = values.nbytes

    def take(self, which: Which) -> Iterable[Any]:
        return map(np.ndarray.copy, self._values[which])


class Spans:
    """A column of text, bytes or pickles, one behind the other."""

    def __init__(self, joined: str | bytes, sizes: Iterable[int], count: int, pickles: bool = False) -> None:
        self._joined = joined
        ends = np.zeros(count + 1, np.int64)
        np.cumsum(np.fromiter(sizes, np.int64, count), out=ends[1:])
        self._ends = ends.astype(np.min_scalar_type(len(joined)))
        self._pickles = pickles
        self.nbytes = len(joined) + self._ends.nbytes

    def take(self, which: Which) -> Iterable[Any]:
        spans = map(slice, self._ends[:-1][which].tolist(), self._ends[1:][which].tolist())
        if self._pickles:
            return map(pickle.loads, map(memoryview(self._joined).__getitem__, spans))  # type: ignore[arg-type]
        return map(self._joined.__getitem__, spans)


def _column(values: Sequence[Any], suffix: str, of_main: dict[str, Any]) -> Numbers | Arrays | Spans:
    """Pack the values at one key of all rows; ``suffix`` is how one writes the key."""
    kind, count = _type_of(values), len(values)
    if kind in _PYTHON or kind in _SCALARS:
        with contextlib.suppress(OverflowError):  # an int beyond 64 bits
            return Numbers(values, kind)
    if kind is str and (joined := "".join(values)).isascii():  # any other would take up to 4 bytes a character
        return Spans(joined, map(len, values), count)
    if kind is bytes:
        return Spans(b"".join(values), map(len, values), count)
    if kind is np.ndarray and (arrays := _stacked(values)) is not None:
        return Arrays(arrays)
    return _pickled(values, suffix, of_main)


def _stacked(arrays: Sequence[Any]) -> np.ndarray[Any, Any] | None:
    """Return one array of all, or None if that would not keep what they are."""
    dtype, shape = arrays[0].dtype, arrays[0].shape
    if not shape or not arrays[0].nbytes or dtype.hasobject:
        return None
    if any(one.dtype != dtype or one.shape != shape for one in arrays):
        return None
    try:
        joined = b"".join(arrays)
    except (BufferError, TypeError, ValueError):  # not in C order, or of a dtype that has no buffer
        return None
    return np.frombuffer(joined, dtype).reshape(-1, *shape)


def _pickled(values: Sequence[Any], suffix: str, of_main: dict[str, Any]) -> Spans:
    file, sizes = io.BytesIO(), array("Q")
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK]
        try:
            pickles = [*map(_dumps, chunk)]
        except Exception:
            pickles = [_dumped(value, f"lst[{index}]{suffix}") for index, value in enumerate(chunk, start)]
        joined = b"".join(pickles)
        if pickling.MAIN in joined:
            of_main.update(_found_in_main(chunk))
        file.write(joined)
        sizes.extend(map(len, pickles))
    return Spans(file.getvalue(), sizes, len(values), pickles=True)


_dumps = functools.partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL)


def _dumped(value: Any, name: str) -> bytes:
    """Pickle one value, by cloudpickle if need be."""
    try:
        return pickling.dumps(value)
    except Exception as error:
        raise TypeError(pickling.explain([(name, value)], error)) from error


def _found_in_main(values: Sequence[Any]) -> dict[str, Any]:
    """Return the classes and functions of the user's script in ``values``, by the names they have there."""
    found: dict[str, Any] = {}
    names = vars(sys.modules["__main__"])

    def note(obj: Any) -> Any:
        if isinstance(obj, type | types.FunctionType) and obj.__module__ == "__main__":
            name = obj.__qualname__.partition(".")[0]
            if name in names:
                found[name] = names[name]
        return NotImplemented

    pickling.travel(values, reduce=note)
    return found


_garbage = False


def _expect_garbage() -> None:
    """Remember that a list has been packed, which its owner will probably free."""
    global _garbage
    _garbage = True


def _before_fork() -> None:
    """Give freed memory back to the system: without this, a list of arrays of 1 kB stays in this process."""
    global _garbage
    if _garbage:
        _garbage = False
        with contextlib.suppress(AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
