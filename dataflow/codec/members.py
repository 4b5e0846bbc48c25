"""One component to the bytes of a file that is named after what is in it, and back, as WebDataset has it.

::

    extension                               value
    df                                      whatever ``dumps`` holds
    npy                                     an array
    txt  text  transcript                   str
    cls  class  cls2  count  id  index  inx     int
    json  jsn                               what JSON holds
    mp  msg  msgpack  pyd  pickle  pkl      are read only; the last three only with ``allow_pickle``
    any other                               bytes

The extension is what follows the last dot: ``seg.npy`` is an array.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import CorruptDataError
from . import dtypes
from .legacy import load_msgpack, load_pickle
from .record import FIRST_BYTE, decode, encode
from .refuse import MAX_DEPTH

_TEXT = ("txt", "text", "transcript")
_NUMBER = ("cls", "class", "cls2", "count", "id", "index", "inx")
_JSON = ("json", "jsn")
_MSGPACK = ("mp", "msg", "msgpack")
_PICKLE = ("pyd", "pickle", "pkl")
# Python itself reads and writes no more than 4300, for the time that it would take.
_MOST_DIGITS = 4000
_INTEGER = re.compile(rb"\s*[+-]?\d{1,%d}\s*" % _MOST_DIGITS, re.ASCII)
_INT_END = 10**_MOST_DIGITS
_NPY = b"\x93NUMPY"
_MAX_NPY_HEADER = 10_000
# More headers than this many are those of a hostile file.
_MAX_CACHED = 256
_Npy = tuple[np.dtype[Any], tuple[int, ...], bool]
_npy_headers: dict[bytes, _Npy] = {}
_npy_written: dict[tuple[np.dtype[Any], tuple[int, ...], bool], bytes] = {}
_OTHERWISE = "Give it the extension 'df', which takes any value"


def decode_member(extension: str, data: bytearray, allow_pickle: bool = False, verify: bool = True) -> Any:
    """Return the value of a component; arrays are views on ``data``, to write to.

    Args:
        extension: what the file name says behind the first dot, in lower case.
        data: the bytes of the file, which nobody else holds.
        allow_pickle: load pickles too, which may run any code.
        verify: compare the checksum of a record.

    Raises:
        CorruptDataError: if the bytes do not hold what the extension promises.
        UsageError: if they are a pickle, or hold one, and ``allow_pickle`` is not set.
    """
    read = _READERS.get(extension.rpartition(".")[2])
    if read is None:
        return bytes(data)
    try:
        return read(data, allow_pickle, verify)
    except CorruptDataError:
        raise
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise CorruptDataError(f"these are not the bytes of a .{extension} file: {error}") from error


def encode_member(extension: str, value: Any) -> bytes:
    """Return the bytes from which ``decode_member`` makes ``value`` again, exactly.

    >>> encode_member("cls", 7), encode_member("seg.txt", "a cat"), encode_member("jpg", b"...")
    (b'7', b'a cat', b'...')

    Raises:
        TypeError: if there are none; the message says what the extension takes.
    """
    kind = extension.rpartition(".")[2]
    write = _WRITERS.get(kind)
    if write is not None:
        return write(value)
    if kind in _MSGPACK or kind in _PICKLE:
        raise TypeError(f"nothing is written as .{kind}. {_OTHERWISE}")
    data: bytes = _checked(bytes, value)
    return data


def _checked(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"it takes {kind.__name__}, got {type(value).__name__}. {_OTHERWISE}")
    return value


def _read_any(data: bytearray, allow_pickle: bool, verify: bool) -> Any:
    if data and data[0] == FIRST_BYTE:
        return decode(data, False, verify)
    if data and data[0] == 0x80:
        return load_pickle(bytes(data), allow_pickle)
    raise CorruptDataError("no record of dataflow: damaged, or written by something else. Read it with decode=False")


def _write_any(value: Any) -> bytes:
    return encode(value, True)


def _read_text(data: bytearray, *_: bool) -> str:
    return data.decode()


def _write_text(value: Any) -> bytes:
    return _encoded(_checked(str, value), "")


def _encoded(text: str, where: str) -> bytes:
    """Return ``text`` as UTF-8, which has no halves of characters; two of them would be a whole one in JSON."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"its text is not Unicode ({error}){where and f' (at {where})'}. {_OTHERWISE}") from None


def _read_number(data: bytearray, *_: bool) -> int:
    if not _INTEGER.fullmatch(data):
        raise CorruptDataError(f"{bytes(data[:24])!r} is no number")
    return int(data)


def _write_number(value: Any) -> bytes:
    return b"%d" % _few_digits(_checked(int, value))


def _few_digits(value: int) -> int:
    if not -_INT_END < value < _INT_END:
        raise TypeError(f"it takes an int of up to {_MOST_DIGITS} digits, and this has more. {_OTHERWISE}")
    return value


def _read_json(data: bytearray, *_: bool) -> Any:
    return json.loads(data)


def _write_json(value: Any) -> bytes:
    _check_json(value, "", 0)
    return json.dumps(value).encode()


def _check_json(value: Any, where: str, depth: int) -> None:
    """Raise unless JSON gives ``value`` back as it is."""
    kind = type(value)
    if kind is dict and all(type(key) is str for key in value):
        items = value.items()
        for key in value:
            _encoded(key, where)
    elif kind is list:
        items = enumerate(value)
    elif kind is int:
        _few_digits(value)
        return
    elif kind is str:
        _encoded(value, where)
        return
    elif kind is bool or value is None or (kind is float and not math.isnan(value)):
        return
    else:
        what = "a dict with keys that are not str" if kind is dict else "nan" if kind is float else kind.__name__
        raise TypeError(f"JSON has no {what}{where and f' (at {where})'}. {_OTHERWISE}")
    if depth > MAX_DEPTH:
        raise TypeError(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself. Flatten it first")
    for key, item in items:
        _check_json(item, f"{where}[{key!r}]", depth + 1)


def _read_msgpack(data: bytearray, allow_pickle: bool, *_: bool) -> Any:
    return load_msgpack(bytes(data), allow_pickle, True)


def _read_pickle(data: bytearray, allow_pickle: bool, *_: bool) -> Any:
    return load_pickle(bytes(data), allow_pickle)


def _read_npy(data: bytearray, allow_pickle: bool, *_: bool) -> Any:
    """Return the array of a file that ``numpy.save`` wrote."""
    wide = data[6:7] != b"\1"  # later versions have more room for the length of their header
    start = (12 if wide else 10) + int.from_bytes(data[8 : 12 if wide else 10], "little")
    if data[:6] != _NPY or not 10 < start <= min(len(data), _MAX_NPY_HEADER):
        raise CorruptDataError("its header is damaged, or is none of numpy")
    header = bytes(data[:start])
    known = _npy_headers.get(header)
    if known is None:
        if len(_npy_headers) >= _MAX_CACHED:
            _npy_headers.clear()
        known = _npy_headers[header] = _npy_header(header, wide)
    dtype, shape, by_columns = known
    if dtype.hasobject:
        return load_pickle(bytes(data[start:]), allow_pickle)
    if dtype.itemsize * math.prod(shape) != len(data) - start:
        raise CorruptDataError(
            f"an array of shape {shape} and dtype {dtype} is promised, and {len(data) - start} bytes are there"
        )
    return np.ndarray(shape, dtype, data, start, order="F" if by_columns else "C")


def _npy_header(header: bytes, wide: bool) -> _Npy:
    read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
    try:
        shape, by_columns, dtype = read(io.BytesIO(header[8:]), max_header_size=_MAX_NPY_HEADER)
        if not dtype.hasobject:
            dtypes.checked(dtype)
        if any(length < 0 for length in shape):
            raise ValueError("a negative length")
    except Exception as error:
        raise CorruptDataError(f"its header is damaged: {error}") from error
    return dtype, shape, by_columns


def _write_npy(value: Any) -> bytes:
    array = _checked(np.ndarray, value)
    by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
    key = array.dtype, array.shape, by_columns
    header = _npy_written.get(key)
    if header is None:
        header = _new_npy_header(*key)
        if array.dtype.names is None:  # with fields, dtypes that differ in their alignment are equal
            if len(_npy_written) >= _MAX_CACHED:
                _npy_written.clear()
            _npy_written[key] = header
    data: bytes = array.tobytes("F" if by_columns else "C")
    return header + data


def _new_npy_header(dtype: np.dtype[Any], shape: tuple[int, ...], by_columns: bool) -> bytes:
    try:
        described = np.lib.format.dtype_to_descr(dtypes.checked(dtype))
        # What numpy writes down of a dtype is not all of it: titles and alignment of fields, say, are left out.
        if dtypes.describe(np.lib.format.descr_to_dtype(described)) != dtypes.describe(dtype):
            raise ValueError
    except (TypeError, ValueError):
        raise TypeError(f"a .npy file does not keep the dtype {dtype}. {_OTHERWISE}") from None
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": described, "fortran_order": by_columns, "shape": shape})
    if file.tell() > _MAX_NPY_HEADER:
        raise TypeError(f"a dtype with {len(dtype.names or ())} fields is too large for a .npy file. {_OTHERWISE}")
    return file.getvalue()


_Reader = Callable[[bytearray, bool, bool], Any]
_READERS: dict[str, _Reader] = {
    "df": _read_any, "npy": _read_npy,
    **dict.fromkeys(_TEXT, _read_text), **dict.fromkeys(_NUMBER, _read_number), **dict.fromkeys(_JSON, _read_json),
    **dict.fromkeys(_MSGPACK, _read_msgpack), **dict.fromkeys(_PICKLE, _read_pickle),
}  # fmt: skip
_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "df": _write_any, "npy": _write_npy,
    **dict.fromkeys(_TEXT, _write_text), **dict.fromkeys(_NUMBER, _write_number), **dict.fromkeys(_JSON, _write_json),
}  # fmt: skip
