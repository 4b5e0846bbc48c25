"""The Python scalars that a record holds: how each one lies in it, and how it comes back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# A leaf of any size: its fixed value is the number of its bytes in the tail.
TAIL = "Q"

# The ints that are fixed values; others are bytes in the tail.
MIN_INT, MAX_INT = -(1 << 63), (1 << 63) - 1

_COMPLEX = struct.Struct("<dd")


class Leaf(NamedTuple):
    """One kind of scalar.

    Attributes:
        name: what the template calls it.
        code: its fixed value in the language of ``struct``.
        write: from the scalar to its fixed value, or to its bytes in the tail.
        read: the way back.
    """

    name: str
    code: str
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def same(value: Any) -> Any:
    """Return ``value``, which is its own fixed value."""
    return value


def _text(raw: Any) -> str:
    return str(raw, "utf-8", "surrogatepass")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


LEAF_OF: dict[type, Leaf] = {
    bool: Leaf("bool", "?", same, same),
    int: Leaf("int", "q", same, same),
    float: Leaf("float", "d", same, same),
    complex: Leaf(
        "complex",
        f"{_COMPLEX.size}s",
        lambda number: _COMPLEX.pack(number.real, number.imag),
        lambda raw: complex(*_COMPLEX.unpack(raw)),
    ),
    str: Leaf("str", TAIL, _utf8, _text),
    bytes: Leaf("bytes", TAIL, bytes, bytes),
    bytearray: Leaf("bytearray", TAIL, bytes, bytearray),
    # As arrays these two would lose trailing zeros, and their dtype would change with their length.
    np.str_: Leaf("numpy.str", TAIL, _utf8, lambda raw: np.str_(_text(raw))),
    np.bytes_: Leaf("numpy.bytes", TAIL, bytes, np.bytes_),
}

BIG_INT = Leaf(
    "big int",
    TAIL,
    lambda number: number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True),
    lambda raw: int.from_bytes(raw, "little", signed=True),
)

LEAVES = {leaf.name: leaf for leaf in (*LEAF_OF.values(), BIG_INT)}

# The numpy scalars that travel as the bytes of their dtype.
NUMPY_SCALARS = frozenset({np.dtype(code).type for code in np.typecodes["All"]} | {np.record}) - {
    np.object_,
    np.str_,
    np.bytes_,
}
