"""LMDB files that were made to do harm: values, the list of keys, and Caffe's records."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import lmdb
import msgpack
import numpy as np

from dataflow import CaffeLMDB, DataFromList, LMDBData, LMDBSerializer, dumps

from .payloads import BOMB, bare_record, nd

HUGE = 2**62


def file_of(records: dict[bytes, bytes], folder: pathlib.Path) -> pathlib.Path:
    path = folder / "x.lmdb"
    with lmdb.open(os.fsencode(path), subdir=False, lock=False, lib_version=0) as env, env.begin(write=True) as txn:
        for key, value in records.items():
            txn.put(key, value)
    return path


def patched(change: Callable[[bytearray], None], folder: pathlib.Path) -> pathlib.Path:
    """Return a file of ours of which some bytes are changed."""
    path = folder / "x.lmdb"
    LMDBSerializer.save(DataFromList([[number, bytes(3000)] for number in range(20)], shuffle=False), str(path))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def in_both_headers(offset: int, number: int, data: bytearray) -> None:
    """Change a number in both pages that say where everything is."""
    for page in (0, 4096):
        struct.pack_into("<Q", data, page + 16 + offset, number)


def cut_to(size: int, data: bytearray) -> None:
    del data[size:]


def without_the_last_page(data: bytearray) -> None:
    del data[-4096:]


def text(data: bytearray) -> None:
    data[:32] = b"x" * 32


def in_order(path: pathlib.Path) -> list[Any]:
    return list(LMDBSerializer.load(path, shuffle=False))


def shuffled(path: pathlib.Path) -> list[Any]:
    return list(LMDBSerializer.load(path))


def pairs(path: pathlib.Path) -> list[Any]:
    return list(LMDBData(path))


def caffe(path: pathlib.Path) -> list[Any]:
    return list(CaffeLMDB(path))


ONE = {b"00000000": dumps([1])}
LIES = bare_record(["array", "|S8", 1], [HUGE])


def datum(*fields: tuple[int, int | bytes]) -> dict[bytes, bytes]:
    """Return a record of Caffe: ints as varints, bytes with their length in front."""
    message = b""
    for number, value in fields:
        if isinstance(value, int):
            message += bytes([number << 3]) + varint(value)
        else:
            message += bytes([number << 3 | 2]) + varint(len(value)) + value
    return {b"0": message}


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def png(width: int, height: int) -> bytes:
    """Return the beginning of an image that claims to be large."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\2\0\0\0" + bytes(4)


CORRUPT = "CorruptDataError"
IN_FILE = r"x\.lmdb"
RECORD = r"x\.lmdb', record 0 \(key b'00000000'\)"

FILES = {
    "LMDB: the list of keys is a pickle, LMDBData": (
        partial(file_of, {**ONE, b"__keys__": BOMB}),
        pairs,
        "a value",
        "",
    ),
    "LMDB: the list of keys is a pickle, LMDBSerializer": (
        partial(file_of, {**ONE, b"__keys__": BOMB}),
        shuffled,
        "a value",
        "",
    ),
    "LMDB: the list of keys is of msgpack-numpy's object kind": (
        partial(file_of, {**ONE, b"__keys__": nd(kind=b"O", data=BOMB)}),
        shuffled,
        "a value",
        "",
    ),
    "LMDB: the list of keys is an array that lies": (
        partial(file_of, {**ONE, b"__keys__": LIES}),
        shuffled,
        CORRUPT,
        f"{IN_FILE}', the list of keys",
    ),
    "LMDB: the list of keys names more than there are": (
        partial(file_of, {**ONE, b"__keys__": dumps(np.array([b"00000000", b"1"]))}),
        shuffled,
        CORRUPT,
        "lists 2 datap",
    ),
    "LMDB: the list of keys names others": (
        partial(file_of, {**ONE, b"__keys__": dumps(np.array([b"11111111"]))}),
        shuffled,
        "MissingKeyError",
        "11111111",
    ),
    "LMDB: the list of keys holds 1,048,575 lists that are not there": (
        partial(file_of, {**ONE, b"__keys__": b"\xdd\x00\x0f\xff\xff" * 500}),
        shuffled,
        "a value",
        "",
    ),
    "LMDB: a datapoint is a pickle": (partial(file_of, {b"00000000": BOMB}), in_order, "UsageError", RECORD),
    "LMDB: a datapoint is of msgpack-numpy's object kind": (
        partial(file_of, {b"00000000": nd(kind=b"O", data=BOMB)}),
        in_order,
        "UsageError",
        RECORD,
    ),
    "LMDB: a datapoint holds pointers": (
        partial(file_of, {b"00000000": nd(type="|O", shape=[1], data=bytes(8))}),
        in_order,
        CORRUPT,
        RECORD,
    ),
    "LMDB: the first datapoint is ours, the second a pickle": (
        partial(file_of, {**ONE, b"00000001": BOMB}),
        in_order,
        CORRUPT,
        "record 1",
    ),
    "LMDB: a datapoint of 100,000 levels": (
        partial(file_of, {b"00000000": b"\x91" * 100_000}),
        in_order,
        CORRUPT,
        RECORD,
    ),
    "LMDB: an empty datapoint": (partial(file_of, {b"00000000": b""}), in_order, CORRUPT, RECORD),
    "LMDB: text": (partial(patched, text), in_order, CORRUPT, "no LMDB"),
    "LMDB: nothing": (partial(patched, partial(cut_to, 0)), in_order, CORRUPT, "it is empty"),
    "LMDB: the first page alone": (partial(patched, partial(cut_to, 4096)), in_order, CORRUPT, IN_FILE),
    "LMDB: the last page is missing": (partial(patched, without_the_last_page), in_order, CORRUPT, "cut short"),
    "LMDB: a last page at 2**60": (partial(patched, partial(in_both_headers, 120, 2**60)), in_order, CORRUPT, IN_FILE),
    "LMDB: a map of 2**62 bytes": (
        partial(patched, partial(in_both_headers, 16, HUGE)),
        in_order,
        "OSError|a value",
        "",
    ),
    "Caffe: more pixels claimed than there": (
        partial(file_of, datum((1, 2**31 - 1), (2, 2**31 - 1), (3, 2**31 - 1), (4, b"abc"))),
        caffe,
        CORRUPT,
        "3 values for",
    ),
    "Caffe: a size that overflows to that of the data": (
        partial(file_of, datum((1, 2**16), (2, 2**16), (3, 2**31 + 1), (4, bytes(8)))),
        caffe,
        CORRUPT,
        "8 values for",
    ),
    "Caffe: negative sizes": (
        partial(file_of, datum((1, 2**64 - 2), (2, 2**64 - 2), (3, 1), (4, bytes(4)))),
        caffe,
        CORRUPT,
        "4 values for",
    ),
    "Caffe: data of 2**60 bytes": (
        partial(file_of, {b"0": b"\x22" + varint(2**60) + b"abc"}),
        caffe,
        CORRUPT,
        "cut off",
    ),
    "Caffe: a number without end": (partial(file_of, {b"0": b"\x08" + b"\xff" * 100}), caffe, CORRUPT, "no number"),
    "Caffe: a pickle": (partial(file_of, {b"0": BOMB}), caffe, CORRUPT, "holds no Datum"),
    "Caffe: an image of 60,000 x 60,000": (
        partial(file_of, datum((4, png(60_000, 60_000)), (7, 1))),
        caffe,
        CORRUPT,
        "key b'0'",
    ),
    "Caffe: msgpack": (partial(file_of, {b"0": msgpack.packb([1, 2])}), caffe, CORRUPT, "holds no Datum"),
}
