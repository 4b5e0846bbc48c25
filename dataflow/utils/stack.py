"""Datapoints to one batch: stack each component along a new first axis, or say why that cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from ..errors import BatchError
from .check import seen

_PLAIN = frozenset({list, tuple, dict})
_fromiter = np.fromiter
# What Python's numbers become; values of numpy keep their dtype.
_SCALARS = {bool: np.dtype(np.bool_), int: np.dtype(np.int32), float: np.dtype(np.float32)}
# True wherever a batch is made: BatchData can stand there, too.
_LIST = "keep a plain list with BatchData(ds, batch_size, use_list=True)"

# Batches of so many bytes are stacked where they will leave the process, if there is such a place.
LARGE = 1 << 16
# Takes the shape and dtype of a batch, and its first array.
Place = Callable[[tuple[int, ...], np.dtype[Any], np.ndarray[Any, Any]], np.ndarray[Any, Any] | None]
_place: Place | None = None


def place_arrays(place: Place) -> None:
    """Have ``place`` make the arrays of large batches; where it returns None, numpy does."""
    global _place
    _place = place


def stack(rows: Sequence[Any], use_list: bool = False) -> Any:
    """Return one datapoint whose components hold those of ``rows``, oldest first.

    >>> stack([[1, "a"], [2, "bc"]])
    [array([1, 2], dtype=int32), array(['a', 'bc'], dtype='<U2')]
    >>> stack([{"x": [1]}, {"x": [2, 3]}], use_list=True)
    {'x': [[1], [2, 3]]}

    Args:
        rows: at least one datapoint; all lists (or tuples) of one length, or all dicts with the same keys.
        use_list: put components into a list instead of an array of shape ``(len(rows), *shape)``.

    Raises:
        BatchError: if the datapoints differ in kind, in components, or in a component's kind, dtype or shape.
        TypeError: if a component is neither a scalar nor an array.
    """
    if not rows:
        raise BatchError("cannot stack an empty list of datapoints")
    kind = type(rows[0])
    if [*map(type, rows)].count(kind) != len(rows) or kind not in _PLAIN:
        return stack(_as_plain(rows), use_list)
    if kind is dict:
        return _stack_dicts(rows, use_list)
    try:
        columns = [*zip(*rows, strict=True)]
    except ValueError:
        raise BatchError(_unlike("numbers of components", Counter(map(len, rows)))) from None
    if use_list:
        return [*map(list, columns)]
    return [*map(_column, columns, count())]


def _stack_dicts(rows: Sequence[dict[Any, Any]], use_list: bool) -> dict[Any, Any]:
    keys = rows[0].keys()
    if any(row.keys() != keys for row in rows):
        raise BatchError(_unlike("keys", Counter(tuple(row) for row in rows)))
    columns = {key: [row[key] for row in rows] for key in keys}
    return columns if use_list else {key: _column(values, key) for key, values in columns.items()}


def _as_plain(rows: Sequence[Any]) -> Sequence[Any]:
    """Turn a mix of lists and tuples, or subclasses, into plain lists or plain dicts."""
    if all(isinstance(row, list | tuple) for row in rows):
        return [list(row) for row in rows]
    if all(isinstance(row, dict) for row in rows):
        return [dict(row) for row in rows]
    for row in rows:
        if not isinstance(row, list | tuple | dict):
            raise TypeError(
                f"a datapoint must be a list or dict of components, got {seen(row)}. "
                "Wrap it upstream, e.g. MapData(ds, lambda x: [x])"
            )
    raise BatchError(_unlike("kinds of datapoint", Counter(type(row).__name__ for row in rows)))


def _column(values: Sequence[Any], key: Any) -> np.ndarray[Any, Any]:
    """Stack one component."""
    kind, size = type(values[0]), len(values)
    # 13 ns a value to look at its type, the fastest of six ways that were measured.
    if [*map(type, values)].count(kind) != size:
        raise BatchError(_component(key, "kinds", Counter(map(_kind, values))))
    dtype = _SCALARS.get(kind)
    if dtype is not None:
        try:
            return _fromiter(values, dtype, size)
        except OverflowError:
            raise BatchError(_too_large(values, key)) from None
    make = _MAKERS.get(kind)
    if make is not None:
        return make(values, key)
    if issubclass(kind, np.generic):
        return _numpy(values, key)
    raise TypeError(
        f"cannot stack component {key!r}: {seen(values[0])} is neither a scalar nor an array. "
        f"Turn it into one where datapoints are mapped, or {_LIST}."
    )


def _too_large(values: Sequence[int], key: Any) -> str:
    large = next(value for value in values if not -(2**31) <= value < 2**31)
    return (
        f"cannot stack component {key!r}: {large} does not fit int32, which Python integers become. "
        f"Choose a dtype upstream, e.g. MapDataComponent(ds, np.int64, index={key!r})"
    )


def _text(values: Sequence[Any], key: Any) -> np.ndarray[Any, Any]:
    stacked = np.array(values)
    if stacked.tolist() != list(values):
        raise BatchError(
            f"cannot stack component {key!r}: numpy drops zero characters at the end of text. "
            f"Strip them where datapoints are mapped, or {_LIST}."
        )
    return stacked


def _numpy(values: Sequence[Any], key: Any) -> np.ndarray[Any, Any]:
    dtype, shape = values[0].dtype, values[0].shape
    for value in values:
        if value.shape != shape:
            raise BatchError(_component(key, "shapes", Counter(value.shape for value in values)))
        if value.dtype != dtype:
            raise BatchError(_component(key, "dtypes", Counter(str(value.dtype) for value in values)))
    if dtype.hasobject:
        raise TypeError(
            f"cannot stack component {key!r}: an array of objects. "
            f"Choose a dtype where datapoints are mapped, or {_LIST}."
        )
    size = len(values) * int(values[0].nbytes)
    if _place is not None and size >= LARGE and (placed := _place((len(values), *shape), dtype, values[0])) is not None:
        placed[...] = values  # faster than np.stack, which looks at each of them
        return placed
    return np.array(values, dtype)


_MAKERS: dict[type, Callable[[Sequence[Any], Any], np.ndarray[Any, Any]]] = {
    str: _text,
    bytes: _text,
    np.str_: _text,
    np.bytes_: _text,
    np.ndarray: _numpy,
    np.memmap: _numpy,
}


def _kind(value: Any) -> str:
    """Name a type; numpy's with the module, since both have a bool."""
    kind = type(value)
    return f"numpy.{kind.__name__}" if kind.__module__ == "numpy" else kind.__name__


def _component(key: Any, what: str, counts: Counter[Any]) -> str:
    return (
        f"cannot stack component {key!r}: {_unequal(what, counts)}. Make them equal where datapoints are mapped, e.g. "
        f"MapDataComponent(ds, func, index={key!r}), or {_LIST}."
    )


def _unlike(what: str, counts: Counter[Any]) -> str:
    return (
        f"cannot stack datapoints: {_unequal(what, counts)}. Make them alike where they are mapped, e.g. "
        "MapData(ds, func), or select what all of them have: SelectComponent(ds, idxs)."
    )


def _unequal(what: str, counts: Counter[Any]) -> str:
    shown = ", ".join(f"{count} of {value}" for value, count in counts.most_common(4))
    return f"{what} differ ({shown})"
