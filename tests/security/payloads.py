"""Bytes that were made to do harm to whoever decodes them, by name."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np

from dataflow import dumps

packb: Callable[[Any], bytes] = msgpack.packb


def nested(depth: int, wrap: Callable[[Any], Any], core: Any = None) -> Any:
    """Return ``core`` wrapped ``depth`` times."""
    for _ in range(depth):
        core = wrap(core)
    return core


def bare_record(template: Any, lengths: Sequence[int] = (), rest: bytes = b"") -> bytes:
    """Return an unchecked record of any template, dimensions and bytes behind the header."""
    packed = template if isinstance(template, bytes) else packb(template)
    header = struct.pack("<I", len(packed)) + packed + struct.pack(f"<{len(lengths)}Q", *lengths)
    return b"\xc1df\x01" + struct.pack("<I", len(header)) + header + rest + bytes(4)


HUGE = 2**62
# A list of 1,048,575 items, without any.
LONG_LIST = b"\xdd\x00\x0f\xff\xff"

RECORDS = {
    "nothing": b"",
    "first byte only": b"\xc1",
    "prelude only": b"\xc1df\x01\0\0\0\0",
    "header of 4 GiB": b"\xc1df\x01\xff\xff\xff\xff" + bytes(60),
    "template of 4 GiB": b"\xc1df\x01\x08\0\0\0\xff\xff\xff\xff" + bytes(60),
    "template cut short": bare_record(b"\x93\x01"),
    "template with more behind": bare_record(b"\xa3int\xa3int", rest=bytes(8)),
    "template of ext type": bare_record(msgpack.ExtType(5, b"abc")),
    "template of a map": bare_record({"list": 1}),
    "template of an int": bare_record(5),
    "empty node": bare_record([]),
    "node in place of a name": bare_record([["list"], "int"]),
    "unknown leaf": bare_record("pickle", rest=pickle.dumps(1)),
    "unknown container": bare_record(["eval", "int"]),
    "nested 70 times": bare_record(nested(65, lambda inner: ["list", inner])),
    "nested 100,000 times": bare_record(b"\x91" * 100_000 + b"\xc0"),
    "lists within lists of 1,048,575": bare_record(LONG_LIST * 900),
    "list of 4,294,967,295": bare_record(b"\xdd\xff\xff\xff\xff"),
    "map of 4,294,967,295": bare_record(b"\xdf\xff\xff\xff\xff"),
    "text of 4 GiB in the template": bare_record(b"\xdb\xff\xff\xff\xff"),
    "text of 16 EiB in the tail": bare_record("str", rest=b"\xff" * 8),
    "text longer than the tail": bare_record("str", rest=struct.pack("<Q", 6) + b"hello"),
    "text shorter than the tail": bare_record("str", rest=struct.pack("<Q", 4) + b"hello"),
    "text that is no UTF-8": bare_record("str", rest=struct.pack("<Q", 2) + b"\xff\xfe"),
    "values cut short": bare_record(["list", "int", "int"], rest=bytes(15)),
    "array without bytes": bare_record(["array", "<f8", 1], [1000]),
    "shape beyond 64 bits": bare_record(["array", "|u1", 2], [HUGE, HUGE]),
    "shape that overflows to 0": bare_record(["array", "|u1", 2], [2**32, 2**32]),
    "shape that overflows to 64": bare_record(["array", "|u1", 2], [2**63, 2**63], rest=bytes(64)),
    "negative shape": bare_record(["array", "|u1", 2], [2**64 - 1, 2**64 - 1], rest=bytes(64)),
    "huge shape of no elements": bare_record(["array", "|u1", 3], [0, HUGE, HUGE], rest=bytes(64)),
    "shape beyond int64 of no elements": bare_record(["array", "|u1", 2], [0, 2**64 - 1]),
    "fewer lengths than dimensions": bare_record(["array", "|u1", 3], [1]),
    "65 dimensions": bare_record(["array", "|u1", 65], [1] * 65, rest=bytes(64)),
    "-1 dimensions": bare_record(["array", "|u1", -1]),
    "huge number of dimensions": bare_record(["array", "|u1", HUGE]),
    "header with rubbish behind": bare_record(["list"], [1]),
    "header with zeros behind": bare_record(["list"], [0] * 8),
    "object dtype": bare_record(["array", "|O", 1], [1], rest=bytes(64)),
    "object dtype by its name": bare_record(["array", "object", 1], [1], rest=bytes(64)),
    "object scalar": bare_record(["numpy", "|O"], rest=bytes(8)),
    "dtype of a comma list": bare_record(["array", "i4,O", 1], [1], rest=bytes(64)),
    "dtype of a Python expression": bare_record(["array", "(1,)f8", 1], [1], rest=bytes(64)),
    "dtype of text": bare_record(["array", "StringDType()", 1], [1], rest=bytes(64)),
    "dtype unknown": bare_record(["array", "<f3", 1], [1], rest=bytes(64)),
    "dtype without bytes": bare_record(["array", "|V0", 1], [HUGE]),
    "dtype of 9 GB": bare_record(["array", "|V9999999999", 1], [1]),
    "dtype null": bare_record(["array", None, 1], [1]),
    "array of subarrays": bare_record(["array", ["subarray", "|u1", [4]], 1], [1], rest=bytes(64)),
    "scalar of 2 GB": bare_record(["numpy", "|V2000000000"]),
    "scalars of 2 GB without end": bare_record(["list", *[["numpy", "|V2000000000"]] * 1000]),
    "text scalar beyond Unicode": bare_record(["numpy", "<U1"], rest=b"\xff" * 4),
    "unhashable in a set": bare_record(["set", ["list"]]),
    "unhashable key": bare_record(["dict", [["list"]], "bool"], rest=b"\1"),
    "the same key twice": bare_record(["dict", ["a", "a"], "bool", "bool"], rest=b"\1\0"),
    "keys that are equal": bare_record(["dict", [1, True], "bool", "bool"], rest=b"\1\0"),
    "more keys than values": bare_record(["dict", ["a", "b"], "bool"], rest=b"\1"),
    "keys that are no list": bare_record(["dict", {"a": 1}, "bool"], rest=b"\1"),
    "key nested too deep": bare_record(["dict", [nested(65, lambda inner: ["tuple", inner])], None]),
}
for name, fields in {
    "object in a struct": [["a", None, 0, "|O"]],
    "object in a subarray": [["a", None, 0, ["subarray", "|O", [1]]]],
    "object in a struct in a struct": [["a", None, 0, ["struct", 8, False, False, [["b", None, 0, "|O"]]]]],
    "field outside its struct": [["a", None, 4, "<f8"]],
    "field before its struct": [["a", None, -4, "<i4"]],
    "field far away": [["a", None, HUGE, "<i4"]],
    "field twice": [["a", None, 0, "<i4"], ["a", None, 4, "<i4"]],
    "field without a name": [[None, None, 0, "<i4"]],
    "field with a list for a title": [["a", [], 0, "<i4"]],
    "field of three parts": [["a", 0, "<i4"]],
    "field that is no list": [5],
    "endless subarray": [["a", None, 0, ["subarray", ["subarray", "|u1", [2**30]], [2**30]]]],
    "negative subarray": [["a", None, 0, ["subarray", "|u1", [-1]]]],
    "dtype nested too deep": nested(
        40, lambda inner: [["a", None, 0, ["struct", 8, False, False, inner]]], [["a", None, 0, "<i8"]]
    ),
}.items():
    RECORDS[name] = bare_record(["array", ["struct", 8, False, False, fields], 1], [1], rest=bytes(64))


def nd(**fields: Any) -> bytes:
    array: dict[str, Any] = {"nd": True, "type": "|u1", "kind": b"", "shape": [4], "data": bytes(4), **fields}
    return packb([{key.encode(): value for key, value in array.items()}])


MSGPACK = {
    "rubbish": b"hello world",
    "nothing but a length": b"\xdd\xff\xff\xff\xff",
    "two values": b"\1\2",
    "nested 100,000 times": b"\x91" * 100_000,
    "nested 65 times": b"\x91" * 65 + b"\xc0",
    "maps nested 65 times": b"\x81\xa1a" * 65 + b"\xc0",
    "lists within lists of 1,048,575": LONG_LIST * 900 + bytes(1_000_000),
    "a list that lies": LONG_LIST + bytes(5000),
    "unhashable key": b"\x81\x90\1",
    "shape too large": nd(shape=[5]),
    "shape too small": nd(shape=[3]),
    "shape that overflows": nd(shape=[2**32, 2**32]),
    "negative shape": nd(shape=[-1]),
    "two negatives": nd(shape=[-2, -2]),
    "shape of floats": nd(shape=[4.0]),
    "shape of bools": nd(shape=[True, 4]),
    "shape of text": nd(shape="4"),
    "shape null": nd(shape=None),
    "huge shape of no elements": nd(shape=[0, HUGE, HUGE], data=b""),
    "65 dimensions": nd(shape=[1] * 65, data=b"\0"),
    "object dtype": nd(type="|O", shape=[1], data=bytes(8)),
    "object field": nd(type=[["a", "|O"]], kind=b"V", shape=[1], data=bytes(8)),
    "object field in a field": nd(type=[["a", [["b", "|O"]]]], kind=b"V", shape=[1], data=bytes(8)),
    "object subarray": nd(type=[["a", "|O", [1]]], kind=b"V", shape=[1], data=bytes(8)),
    "dtype without bytes": nd(type="|V0", shape=[HUGE], data=b""),
    "dtype of a comma list": nd(type="i4,O", shape=[1]),
    "dtype null": nd(type=None),
    "dtype of too few parts": nd(type=[["a"]], kind=b"V"),
    "dtype of too many parts": nd(type=[["a", "|u1", [1], 5]], kind=b"V"),
    "dtype with a field twice": nd(type=[["a", "|u1"], ["a", "|u1"]], kind=b"V", shape=[2]),
    "dtype nested too deep": nd(type=nested(40, lambda inner: [["a", inner]], "|u1"), kind=b"V"),
    "endless subarray": nd(type=[["a", "|u1", [2**40]]], kind=b"V"),
    "data that is no bytes": nd(data=[0, 0, 0, 0]),
    "kind that is no text": nd(kind=5),
    "scalar too short": packb({b"nd": False, b"type": "<f8", b"data": b"1234"}),
    "scalar of objects": packb({b"nd": False, b"type": "|O", b"data": bytes(8)}),
    "complex that is none": packb({b"complex": True, b"data": "__import__('os')"}),
}


class Bomb:
    """Run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo this must not run",)


BOMB = pickle.dumps([Bomb()])

# Pickles, and what has one inside where another reader would load it.
PICKLES = {
    **{f"protocol {protocol}": pickle.dumps([Bomb()], protocol) for protocol in (2, 3, 4, 5)},
    "msgpack-numpy's object kind": nd(kind=b"O", type="|O", shape=[1], data=BOMB),
    "msgpack-numpy's object kind as text": nd(kind="O", data=BOMB),
    "msgpack-numpy's object kind of no shape": nd(kind=b"O", type=None, shape=None, data=BOMB),
    "msgpack-numpy's object kind in a map": packb(
        {"a": {"b": {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": BOMB}}}
    ),
}

# What looks like more than it is, and is handed out as what it is.
HARMLESS = {
    "pickle as bytes in a record": dumps([BOMB]),
    "pickle as an array in a record": dumps([np.frombuffer(BOMB, "u1")]),
    "pickle as numpy.void in a record": dumps([np.void(BOMB)]),
    "pickle as a key in a record": dumps({BOMB: 1}),
    "pickle as bytes in msgpack": packb([BOMB]),
    "pickle as a key in msgpack": packb({BOMB: 1}),
    "map with a key nd": packb([{"nd": 1}, {b"nd": True, b"data": BOMB}]),
    "map with a key complex": packb([{"complex": True}, {b"complex": True, b"data": "1j", b"more": 1}]),
    "map with a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "map of no items in front of a pickle's protocol": b"\x80",
}

# A pickle of protocol 0 or 1 has no mark of its own, and is no msgpack either.
MSGPACK |= {f"pickle of protocol {protocol}": pickle.dumps([Bomb()], protocol) for protocol in (0, 1)}
MSGPACK["ext type of a pickle"] = packb([msgpack.ExtType(42, BOMB)]) + b"\0"
