"""Datapoints to bytes and back: bit-exact, fast for uniform datapoints, safe on bytes from anywhere.

One record, all numbers little-endian::

    0  magic     C1 44 46 01   C1 "DF" and the version; "df" where no checksum has been made
    4  length    u32           of the header
    8  header    u32           length of the template
                 msgpack       the template: the structure, as drawn in dataflow/codec/template.py
                 u64 ...       the lengths of the dimensions of all arrays
                 zeros         0 to 63, so that the first array lies at a multiple of 64
       values    fixed size    each int, float, bool, complex and numpy scalar; of text and bytes the size
       arrays    raw bytes     each at the next multiple of 64 from the start of the record
       tail      raw bytes     of text, bytes and ints beyond 64 bits
       checksum  u32           crc32c of all before it

    [image, 7, "cat"]  ->  template  ["list", ["array", "|u1", 3], "int", "str"]
                           lengths   480, 640, 3      values  7, 3      tail  b"cat"

Datapoints of one structure have one template, and with arrays of one shape one header, by which both sides look
up the rest. C1 begins no msgpack value and no pickle: ``loads`` tells all three apart by their first bytes.
"""

from __future__ import annotations

import pickle
from typing import Any

from ..errors import CorruptDataError
from ..utils import check
from .legacy import dump_msgpack, load_msgpack, load_pickle
from .record import CHECKED, FIRST_BYTE, UNCHECKED, checksum, decode, encode

__all__ = ["SERIALIZERS", "checksum", "dumps", "loads"]

SERIALIZERS = ("dataflow", "msgpack-numpy", "pickle")

# What follows the first byte of a record.
_MAGIC = (CHECKED[1:], UNCHECKED[1:])
_PICKLE = 0x80  # then the protocol, 2 to 5; in msgpack it is an empty map, with nothing behind it


def dumps(dp: Any, *, serializer: str = "dataflow", checksum: bool = True) -> bytes:
    """Return a datapoint as bytes that ``loads`` turns back into it.

    The layout of dataflow keeps every value and type exactly: arrays of every dtype but object, in C or Fortran
    order (any other comes back in C order), numpy scalars, None, bool, int, float, complex, str, bytes,
    bytearray, and list, tuple, set, frozenset and dict of them. What it cannot keep is an error, never a
    changed value.

    >>> loads(dumps({"image": b"jpeg", "label": ("cat", 7)}))
    {'image': b'jpeg', 'label': ('cat', 7)}

    Args:
        dp: a list or dict of components, or any one value.
        serializer: "dataflow"; "msgpack-numpy", for tensorpack, where tuples come back as lists; or "pickle".
        checksum: whether the bytes carry a checksum, which only the layout of dataflow has.

    Raises:
        TypeError: if something in ``dp`` would not come back as it is; the message names its place.
        ValueError: if ``dp`` is nested too deep or contains itself.
    """
    if serializer == "dataflow":
        return encode(dp, checksum)
    check.one_of(SERIALIZERS, serializer=serializer)
    if serializer == "pickle":
        return pickle.dumps(dp, protocol=5)
    return dump_msgpack(dp)


def loads(data: Any, allow_pickle: bool = False, *, copy: bool = True, verify: bool = True) -> Any:
    """Return the datapoint that ``dumps`` wrote with any of its serializers, or that tensorpack wrote.

    Bytes from anywhere are safe to give: they run no code, and take memory in proportion to their length.

    >>> loads(dumps([1, 2.5, None]))
    [1, 2.5, None]

    Args:
        data: any bytes-like object.
        allow_pickle: load a pickle too, which may run any code.
        copy: give out private arrays, to write to; else read-only views on ``data``, valid as long as it is.
        verify: compare the checksum, where there is one.

    Raises:
        CorruptDataError: if ``data`` is not whole and undamaged.
        UsageError: if it is a pickle, or holds one, and ``allow_pickle`` is not set.
    """
    if type(data) is not bytes:
        data = _flat(data)
    try:
        first = data[0]
    except IndexError:
        raise CorruptDataError("no bytes at all, where a datapoint should be") from None
    if first == FIRST_BYTE:
        return decode(data, copy, verify)
    if first == _PICKLE and len(data) > 1 and 2 <= data[1] <= 5:
        return load_pickle(data, allow_pickle)
    if data[1:4] in _MAGIC:
        _refuse_record(data)
    return load_msgpack(data, allow_pickle, copy)


def _refuse_record(data: Any) -> None:
    """Raise if ``data`` is a record but for its first byte: with C5 there, msgpack reads one of 17,481 bytes."""
    try:
        decode(bytes([FIRST_BYTE]) + data[1:], False, True)
    except CorruptDataError:
        return  # a value of msgpack that begins alike
    raise CorruptDataError(f"a record whose first byte is {data[0]:02X}, not {FIRST_BYTE:02X}: damaged. Copy it again")


def _flat(data: Any) -> Any:
    """Return a read-only view of single bytes."""
    if type(data) is memoryview and data.readonly and data.strides == (1,):
        return data
    try:
        view = memoryview(data).toreadonly()
    except (TypeError, ValueError):
        raise TypeError(f"data must be bytes-like, got {check.seen(data)}") from None
    return view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
