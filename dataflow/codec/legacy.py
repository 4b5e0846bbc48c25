"""The layouts of others: msgpack-numpy's, in which tensorpack wrote its files, and pickle.

::

    array         {nd: true,  type: dtype, kind: "" | "V", shape: [...], data: bytes}
    numpy scalar  {nd: false, type: dtype, data: bytes}
    complex       {complex: true, data: "(1+2j)"}

The keys are bytes, or text where an old writer made no difference. A dtype with fields is of kind V and is
written as numpy's ``dtype.descr``. Data of kind O is a pickle, which msgpack-numpy's own reader loads unasked,
and data of type "|O" it takes for pointers: hence a reader of our own. Tuples come back as lists, arrays in
Fortran order in C order.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.format import descr_to_dtype

from ..errors import CorruptDataError, UsageError
from ..utils.deps import need
from . import dtypes
from .leaves import NUMPY_SCALARS
from .refuse import MAX_DEPTH, foreign, too_deep, unheld
from .template import numpy_scalar
from .untrusted import msgpack, unpack

_ARRAY = {b"nd", b"type", b"kind", b"shape", b"data"}
_OLD_ARRAY = _ARRAY - {b"kind"}
_SCALAR = {b"nd", b"type", b"data"}
_COMPLEX = {b"complex", b"data"}
_MARKS = frozenset({b"nd", "nd", b"complex", "complex"})

_OTHERS = "or pass another serializer, which may hold it"


def load_pickle(data: Any, allow_pickle: bool) -> Any:
    """Load a pickle, if the caller has said that it may run code."""
    if not allow_pickle:
        raise UsageError(
            "this is a pickle, and loading one runs whatever code its writer put there; "
            "if you trust where it comes from, pass allow_pickle=True"
        )
    try:
        return pickle.loads(data)
    except (pickle.UnpicklingError, EOFError) as error:
        raise CorruptDataError(f"a damaged pickle: {error}. Write it again") from error


def load_msgpack(data: Any, allow_pickle: bool, copy: bool) -> Any:
    """Return the datapoint that msgpack-numpy wrote, without asking msgpack-numpy."""
    revive = functools.partial(_revive, allow_pickle, copy)
    try:
        # surrogateescape keeps the bytes of arrays that an old writer passed off as text.
        dp = unpack(data, object_hook=revive, unicode_errors="surrogateescape")
        _refuse_deep(dp)
        return dp
    except (ValueError, TypeError, OverflowError) as error:
        why = str(error).rstrip(".")
        raise CorruptDataError(f"neither a record of dataflow nor one msgpack value: {why}. Write it again") from error


def _refuse_deep(dp: Any) -> None:
    """Refuse what msgpack still reads, and Python can neither compare nor print."""
    level: list[Any] = [dp] if type(dp) is list or type(dp) is dict else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for found in level
            for item in (found if type(found) is list else found.values())
            if type(item) is list or type(item) is dict
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _revive(allow_pickle: bool, copy: bool, found: dict[Any, Any]) -> Any:
    """Turn a map that stands for something else into it."""
    fields = found
    if b"nd" not in found and b"complex" not in found:
        if "nd" not in found and "complex" not in found:
            return found
        fields = {_raw(key) if type(key) is str else key: value for key, value in found.items()}
    names = fields.keys()
    if names in (_ARRAY, _OLD_ARRAY) and fields[b"nd"] is True:
        if names == _ARRAY and _text(fields[b"kind"]) == "O":
            return load_pickle(_raw(fields[b"data"]), allow_pickle)
        array = _array(_dtype(fields[b"type"]), fields[b"shape"], _raw(fields[b"data"]))
        return array.copy() if copy else array
    if names == _SCALAR and fields[b"nd"] is False:
        dtype, raw = _dtype(fields[b"type"]), _raw(fields[b"data"])
        if len(raw) != dtype.itemsize:
            raise ValueError(f"a numpy scalar of {len(raw)} bytes, where {dtype} has {dtype.itemsize}")
        return numpy_scalar(dtype, raw)
    return complex(_text(fields[b"data"])) if names == _COMPLEX else found


def _array(dtype: np.dtype[Any], shape: Any, raw: bytes) -> np.ndarray[Any, Any]:
    size = dtype.itemsize
    for length in shape:
        if type(length) is not int or length < 0:
            raise ValueError(f"an array of shape {shape}")
        size *= length
    if size != len(raw):
        raise ValueError(f"an array of {len(raw)} bytes, where shape {shape} of {dtype} takes {size}")
    return np.ndarray(tuple(shape), dtype, raw)


def _text(value: Any) -> str:
    if type(value) is bytes:
        return str(value, "ascii")
    if type(value) is not str:
        raise ValueError(f"a {type(value).__name__} in the place of text")
    return value


def _raw(value: Any) -> bytes:
    if type(value) is str:
        return value.encode("utf-8", "surrogateescape")
    if type(value) is not bytes:
        raise ValueError(f"a {type(value).__name__} in the place of an array's bytes")
    return value


def _dtype(descr: Any) -> np.dtype[Any]:
    match descr:
        case str() | bytes():
            return _plain_dtype(_text(descr))
        case [["" | b"", str() | bytes() as void]]:  # how numpy describes a dtype like "V5"
            return _plain_dtype(_text(void))
    return dtypes.checked(descr_to_dtype(_descr(descr, 0)))


@functools.lru_cache(maxsize=256)
def _plain_dtype(name: str) -> np.dtype[Any]:
    return dtypes.checked(dtypes.plain(name))


def _descr(descr: Any, depth: int) -> Any:
    """Bring a ``dtype.descr`` back to what numpy wrote: tuples for lists, text for bytes, and no objects."""
    if type(descr) is not list:
        return dtypes.plain(_text(descr)).str
    if depth > dtypes.MAX_DEPTH:
        raise ValueError(f"a dtype is nested deeper than {dtypes.MAX_DEPTH} levels")
    fields = []
    for name, kind, *shape in descr:
        names = tuple(map(_text, name)) if type(name) is list else _text(name)
        fields.append((names, _descr(kind, depth + 1), *map(tuple, shape)))
    return fields


def dump_msgpack(dp: Any) -> bytes:
    """Return ``dp`` as msgpack-numpy writes it, unless another value would come back.

    Raises:
        TypeError: if something in it is of a type that this layout changes or cannot hold.
        ValueError: if it is nested too deep or contains itself.
    """
    _check(dp, ())
    return _packb()(dp)


@functools.cache
def _packb() -> Callable[[Any], bytes]:
    encode = need("msgpack_numpy", by="serializer='msgpack-numpy'").encode

    def default(value: Any) -> Any:
        return list(value) if type(value) is tuple else encode(value)

    # Strict, or a numpy.float64 would be written as the float that it also is.
    return functools.partial(msgpack().packb, default=default, use_bin_type=True, strict_types=True)


def _check(value: Any, path: tuple[Any, ...]) -> None:
    kind = type(value)
    if value is None or kind in (bool, float, complex, str, bytes):
        return
    if kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise unheld(path, "an int of more than 64 bits", f"Turn it into text first, {_OTHERS}")
    elif kind is np.ndarray or kind in NUMPY_SCALARS:
        if not _keeps(value.dtype, "biufcSUV" if kind is np.ndarray else "biufc"):
            what = f"a numpy value of dtype {value.dtype}, which msgpack-numpy does not keep"
            raise unheld(path, what, f"Give it a numeric dtype or turn it into a list first, {_OTHERS}")
    elif len(path) >= MAX_DEPTH:
        raise too_deep(path)
    elif kind is dict:
        for key in value:
            if type(key) not in (str, bytes) or key in _MARKS:
                what = f"a dict with the key {key!r}, which msgpack-numpy reads back otherwise or not at all"
                raise unheld(path, what, f"Rename it, {_OTHERS}")
        for key, item in value.items():
            _check(item, (*path, key))
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            _check(item, (*path, index))
    else:
        raise foreign(path, value, others=_OTHERS)


def _keeps(dtype: np.dtype[Any], kinds: str) -> bool:
    """Whether msgpack-numpy gives this dtype back."""
    if dtype.kind not in kinds or dtype.hasobject or dtype.type is np.record:
        return False
    try:
        return np.dtype(dtype.descr if dtype.kind == "V" else dtype.str) == dtype
    except ValueError:  # fields that overlap have no descr
        return False
