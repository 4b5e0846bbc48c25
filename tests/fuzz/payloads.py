"""Payloads for the codec, made from honest ones by a grammar and by brute force; a number always makes the same one.

::

    an honest payload: record | msgpack-numpy | pickle, or a template and values drawn at random
      -> its tree changed: a node replaced, doubled, wrapped, removed, a number or a dtype exchanged
      -> its bytes changed: bits flipped, numbers overwritten, cut, doubled, spliced with another
      -> mostly: a checksum that is right again, or none, so that what lies behind it is reached
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, NamedTuple

import msgpack
import msgpack_numpy
import numpy as np

from dataflow.codec import checksum, dumps

KINDS = ("record", "msgpack-numpy", "pickle")

FIELDS = np.dtype([("x", "<i4"), ("y", ">f8", (2,)), ("when", "M8[s]"), ("name", "U3")])

VALUES: list[Any] = [
    [np.arange(12, dtype="u1").reshape(2, 2, 3), 7],
    {"image": np.zeros((4, 4), "<f4"), "label": np.int64(3), "name": "cat"},
    [1, -(2**63), 2**70, 2.5, None, True, 1 + 2j, "text", b"bytes", bytearray(b"array")],
    (np.asfortranarray(np.arange(6).reshape(2, 3)), np.zeros((0, 3)), np.array(7, "i2")),
    [np.zeros(3, FIELDS), np.zeros(1, FIELDS)[0], np.array(["a", "bcd"]), np.array([b"a", b"bcd"])],
    [np.array(["2020-02-29", "NaT"], "M8[ns]"), np.float16(1.5), np.str_("a\0"), np.bytes_(b"a\0"), np.void(b"abc")],
    {"s": 1, 5: 2, 2**70: 3, (1, ("a", None)): 4, b"b": 5, None: 6, 2.5: 7, True: 8},
    [{"boxes": [np.zeros(4), np.ones(4)], "meta": ({"k": (1, [2, (3,)])},)}, {1, 2}, frozenset({"a"}), []],
    [b"%08d" % number for number in range(40)],
    np.arange(3, dtype=">u2"),
    7,
    [],
]
_MSGPACK = [
    VALUES[0],
    VALUES[1],
    [1, 2**64 - 1, 2.5, None, True, 1 + 2j, "text", b"bytes"],
    [np.zeros((0, 3)), np.array(7, "i2"), np.array(["a", "bcd"]), np.float64(0.1), np.bool_(True)],
    [np.ones(2, [("x", "<i4"), ("y", "<f8", (2,)), ("in", [("z", "u1")])])],
    [np.array([{"a": 1}, None])],
    {"nested": {"deep": [[[np.arange(4)]]]}},
    [{"nd": 1}, {"complex": True}, {b"nd": 5}],
    VALUES[8],
]

INTS = [0, 1, 2, 3, 4, 8, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1023, 1024, 65535, 65536, 2**24]
INTS += [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 64, 2**64 - 1, -1, -2, -(2**63)]
DTYPES = [
    "|O", "|O8", "object", "<f8", "<f2", "|u1", "|b1", "<i8", ">u4", "<c16", "<f16", "|S0", "|S3", "<U0", "<U2",
    "|V0", "|V5", "|V2147483647", "<U536870911", "<M8[ns]", "<M8[25s]", "<M8", "<m8[D]", "i4,O", "(2,)f8",
    "StringDType()",
    "<f3", "|i1", "=i4", "", "P", "T",
]  # fmt: skip
NAMES = [
    "list", "tuple", "set", "frozenset", "dict", "array", "transposed", "numpy", "struct", "subarray", "big int",
    "int", "float", "bool", "complex", "str", "bytes", "bytearray", "numpy.str", "numpy.bytes",
    "nd", "type", "kind", "shape", "data", "V",
]  # fmt: skip
_LEAVES = ["int", "float", "bool", "complex", "str", "bytes", "bytearray", "numpy.str", "numpy.bytes", "big int", None]

_UNCHECKED = b"\xc1df\x01"


class Payload(NamedTuple):
    kind: str
    data: bytes
    copy: bool
    verify: bool
    view: bool  # hand it over as a view, not as bytes


def payload(number: int) -> Payload:
    """Return the payload of a number."""
    rng = Random(number)
    kind = rng.choices(KINDS, (12, 6, 1))[0]
    if kind == "record":
        data = _drawn_record(rng) if rng.random() < 0.2 else rng.choice(_honest()[kind])
        if rng.random() < 0.5:
            data = _change_record(rng, data)
    elif kind == "msgpack-numpy":
        data = rng.choice(_honest()[kind])
        if rng.random() < 0.6:
            data = _packed(_change(rng, _unpacked(data)))
    else:
        data = rng.choice(_honest()[kind])
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 6))):
        data = rng.choice(_BLOWS)(rng, data)
    if kind == "record" and rng.random() < 0.8:
        data = _believable(rng, data)
    return Payload(kind, data, rng.random() < 0.5, rng.random() < 0.8, rng.random() < 0.5)


@cache
def _honest() -> dict[str, list[bytes]]:
    return {
        "record": [dumps(value, checksum=flag) for value in VALUES for flag in (True, False)],
        "msgpack-numpy": [
            msgpack_numpy.packb(value, use_bin_type=flag) for value in _MSGPACK for flag in (True, False)
        ],
        "pickle": [pickle.dumps(value, protocol) for value in VALUES[:4] for protocol in (2, 3, 4, 5)],
    }


# Records.


def _drawn_record(rng: Random) -> bytes:
    """Return a record of a random template, with values that may even fit."""
    lengths: list[int] = []
    template = _drawn_node(rng, 0, lengths)
    packed = _packed(template)
    header = struct.pack("<I", len(packed)) + packed + struct.pack(f"<{len(lengths)}Q", *lengths)
    header += bytes(rng.choice((0, 0, rng.randrange(64))))
    rest = rng.randbytes(rng.choice((0, 8, 16, 64, 200)))
    if rng.random() < 0.5:
        rest = bytes(len(rest))
    return _UNCHECKED + struct.pack("<I", len(header)) + header + rest + bytes(4)


def _drawn_node(rng: Random, depth: int, lengths: list[int]) -> Any:
    draw = rng.random()
    if draw < 0.3:
        return rng.choice(_LEAVES)
    if draw < 0.6:
        ndim = rng.choice((0, 1, 1, 2, 3))
        lengths += [rng.choice((0, 1, 2, 3, 8, rng.choice(INTS) % 2**64)) for _ in range(ndim)]
        return [rng.choice(("array", "transposed")), _drawn_dtype(rng, 0), ndim]
    if draw < 0.7 or depth > 4:
        return ["numpy", _drawn_dtype(rng, 0)]
    children = [_drawn_node(rng, depth + 1, lengths) for _ in range(rng.randrange(4))]
    if draw < 0.9:
        return [rng.choice(("list", "tuple", "set", "frozenset")), *children]
    return ["dict", [_drawn_key(rng, 0) for _ in children], *children]


def _drawn_key(rng: Random, depth: int) -> Any:
    if rng.random() < 0.2 and depth < 3:
        return ["tuple", *(_drawn_key(rng, depth + 1) for _ in range(rng.randrange(3)))]
    return rng.choice((None, True, 1, 2.5, "a", "b", b"c", ["big int", b"\1\2"], rng.choice(NAMES), rng.choice(INTS)))


def _drawn_dtype(rng: Random, depth: int) -> Any:
    draw = rng.random()
    if draw < 0.7 or depth > 2:
        return rng.choice(DTYPES)
    if draw < 0.8:
        return ["subarray", _drawn_dtype(rng, depth + 1), [rng.choice((0, 1, 2, 3, rng.choice(INTS)))]]
    fields = [
        [
            rng.choice("abc"),
            rng.choice((None, None, "t")),
            rng.choice((0, 4, 8, rng.choice(INTS))),
            _drawn_dtype(rng, 3),
        ]
        for _ in range(rng.randrange(3))
    ]
    return ["struct", rng.choice((1, 4, 8, 16, rng.choice(INTS))), rng.random() < 0.3, rng.random() < 0.3, fields]


def _change_record(rng: Random, data: bytes) -> bytes:
    """Change the template or a length of a record, and put it together again."""
    (length,) = struct.unpack_from("<I", data, 4)
    header, rest = data[8 : 8 + length], data[8 + length :]
    (size,) = struct.unpack_from("<I", header)
    packed, tail = header[4 : 4 + size], header[4 + size :]
    if rng.random() < 0.7:
        packed = _packed(_change(rng, _unpacked(packed)))
    if len(tail) >= 8 and rng.random() < 0.4:
        place = 8 * rng.randrange(len(tail) // 8)
        tail = tail[:place] + struct.pack("<Q", rng.choice(INTS) % 2**64) + tail[place + 8 :]
    tail += bytes((size - len(packed)) % 64)  # the arrays stay where they were
    header = struct.pack("<I", len(packed)) + packed + tail
    return data[:4] + struct.pack("<I", len(header)) + header + rest


def _believable(rng: Random, data: bytes) -> bytes:
    """Say that there is no checksum, or put the right one."""
    if len(data) < 12:
        return data
    if rng.random() < 0.5:
        return _UNCHECKED + data[4:]
    data = b"\xc1DF\x01" + data[4:-4]
    return data + struct.pack("<I", checksum(data))


# Trees of lists and dicts.


def _unpacked(data: bytes) -> Any:
    return msgpack.unpackb(data, strict_map_key=False, raw=False, unicode_errors="surrogateescape")


def _packed(tree: Any) -> bytes:
    packed: bytes = msgpack.packb(tree, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def _change(rng: Random, tree: Any) -> Any:
    """Change a tree in one to three places."""
    root = [tree]
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = _places(root)
        holder, key = places[rng.randrange(len(places))]
        draw = rng.randrange(9)
        if draw < 3:
            holder[key] = _atom(rng)
        elif draw == 3:
            other, its = places[rng.randrange(len(places))]
            holder[key] = _copied(other[its])
        elif draw == 4:
            for _ in range(rng.choice((1, 2, 70))):
                holder[key] = [holder[key]]
        elif draw == 5:
            holder[key] = {_key(rng): holder[key]}
        elif draw == 6 and holder is not root:
            del holder[key]
        elif draw == 7 and type(holder) is list and holder is not root:
            holder.insert(key, _copied(holder[key]))
        elif type(holder) is dict:
            holder[_key(rng)] = holder.pop(key)
        else:
            holder[key] = [_atom(rng), holder[key]]
    return root[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    holders: list[Any] = [root]
    while holders and len(found) < 1000:
        holder = holders.pop()
        for key, item in enumerate(holder) if type(holder) is list else [*holder.items()]:
            found.append((holder, key))
            if type(item) in (list, dict):
                holders.append(item)
    return found


def _copied(tree: Any) -> Any:
    if type(tree) is list:
        return [_copied(item) for item in tree]
    return {key: _copied(item) for key, item in tree.items()} if type(tree) is dict else tree


def _atom(rng: Random) -> Any:
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(INTS)
    if kind == 1:
        return rng.choice(DTYPES)
    if kind == 2:
        return rng.choice(NAMES)
    if kind == 3:
        return rng.choice((b"O", b"V", b"", rng.choice(NAMES).encode()))
    if kind == 4:
        return rng.randbytes(rng.choice((0, 1, 4, 8, 24)))
    return rng.choice((None, True, False, [], {}, 0.5, float("nan"), -1, [0, 2**62, 2**62], [2**32, 2**32]))


def _key(rng: Random) -> Any:
    name = rng.choice(NAMES)
    return rng.choice((name, name.encode(), b"nd", "nd", b"complex", "complex", rng.choice(INTS), None))


# Bytes.


def _flip(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: Random, data: bytes) -> bytes:
    """Put a number in the place of another."""
    code = rng.choice("BHIQ")
    size = struct.calcsize(code)
    if len(data) < size:
        return data
    number = struct.pack(rng.choice("<>") + code, rng.choice(INTS) % (1 << 8 * size))
    place = rng.randrange(min(len(data), rng.choice((16, 64, 1 << 20))) - size + 1) if len(data) > size else 0
    return data[:place] + number + data[place + size :]


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _cut_out(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 4, 8, 64)) :]


def _double(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 2, 8, 40))]
    return data[:start] + piece * rng.choice((1, 2, 500)) + data[start:]


def _insert(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 4, 8, 64))) + data[start:]


def _splice(rng: Random, data: bytes) -> bytes:
    other = rng.choice(_honest()[rng.choice(KINDS)])
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_BLOWS: list[Callable[[Random, bytes], bytes]] = [
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _cut,
    _cut_out,
    _double,
    _insert,
    _splice,
]
