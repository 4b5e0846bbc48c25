"""TFRecord files, their indexes and SVMlight files that were made to do harm."""

from __future__ import annotations

import bz2
import gzip
import pathlib
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from dataflow import SVMLightData, TFRecordSerializer, dumps
from dataflow.codec import checksum

from .payloads import BOMB, bare_record, nd


def masked(data: bytes) -> bytes:
    crc = checksum(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(record: bytes, length: int | None = None) -> bytes:
    """Return a frame whose checksums are right, whatever length it claims."""
    head = struct.pack("<Q", len(record) if length is None else length)
    return head + masked(head) + record + masked(record)


def file_of(data: bytes, index: str | None, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "x.tfrecord"
    path.write_bytes(data)
    if index is not None:
        path.with_name("x.tfrecord.index").write_text(index)
    return path


def lines(data: bytes, name: str, folder: pathlib.Path) -> pathlib.Path:
    path = folder / name
    path.write_bytes(data)
    return path


def packed(pack: Callable[[bytes], bytes], line: bytes, times: int, name: str, folder: pathlib.Path) -> pathlib.Path:
    return lines(pack(line) * times, name, folder)


def ones(data: bytes) -> bytes:
    """Return a line of 128 MiB in a few hundred bytes."""
    return bz2.compress(data * (1 << 27))


def streamed(path: pathlib.Path) -> list[Any]:
    return list(TFRecordSerializer.load(path))


def by_index(path: pathlib.Path) -> list[Any]:
    return list(TFRecordSerializer.load(path, index=True))


def svmlight(path: pathlib.Path) -> list[Any]:
    return list(SVMLightData(path))


CORRUPT = "CorruptDataError"
RECORD = r"x\.tfrecord', record 0"
ONE = frame(dumps([1]))
END = len(ONE)

FILES = {
    "TFRecord: a record of 2**63 bytes": (
        partial(file_of, frame(b"", 2**63), None), streamed, CORRUPT, f"{RECORD}.*cut short"
    ),
    "TFRecord: a record of 2**64 - 1 bytes": (partial(file_of, frame(b"", 2**64 - 1), None), streamed, CORRUPT, RECORD),
    "TFRecord: a record of 2**64 - 16 bytes, so that the frame ends where it begins": (
        partial(file_of, frame(b"", 2**64 - 16), None), streamed, CORRUPT, RECORD
    ),
    "TFRecord: a record of 64 GiB, scanned": (
        partial(file_of, frame(b"", 2**36), None), by_index, CORRUPT, r"x\.tfrecord"
    ),
    "TFRecord: a length whose checksum is wrong": (
        partial(file_of, b"\xff" * 64, None), streamed, CORRUPT, f"{RECORD}.*length of the record is damaged"
    ),
    "TFRecord: a record of nothing": (partial(file_of, frame(b""), None), streamed, CORRUPT, RECORD),
    "TFRecord: the beginning of a length": (partial(file_of, b"\0\0\0", None), streamed, CORRUPT, RECORD),
    "TFRecord: a pickle": (partial(file_of, frame(BOMB), None), streamed, "UsageError", "allow_pickle=True"),
    "TFRecord: msgpack-numpy's object kind": (
        partial(file_of, frame(nd(kind=b"O", data=BOMB)), None), streamed, "UsageError", "allow_pickle=True"
    ),
    "TFRecord: an array that lies": (
        partial(file_of, frame(bare_record(["array", "|u1", 1], [2**62])), None), streamed, CORRUPT, RECORD
    ),
    "TFRecord: an index of code": (
        partial(file_of, ONE, "__import__('os').system('id') 5\n"), by_index, CORRUPT, r"\.index"
    ),
    "TFRecord: an index of negative numbers": (partial(file_of, ONE, f"-5 {END + 5}\n"), by_index, CORRUPT, r"\.index"),
    "TFRecord: an index of numbers without end": (
        partial(file_of, ONE, f"0 {'9' * 100_000}\n"), by_index, CORRUPT, r"\.index"
    ),
    "TFRecord: an index that goes on behind the file": (
        partial(file_of, ONE, f"0 {END}\n{END} {2**40}\n"), by_index, CORRUPT, r"\.index"
    ),
    "TFRecord: an index of records that overlap": (
        partial(file_of, ONE, f"0 {END}\n0 {END}\n"), by_index, CORRUPT, r"\.index|x\.tfrecord"
    ),
    "TFRecord: an index that is no text": (partial(file_of, ONE, "\0\0 \0\n"), by_index, CORRUPT, r"\.index"),
    "SVMlight: a feature of number 2**31 - 1": (
        partial(lines, b"1 2147483646:1\n", "x.svm"), svmlight, CORRUPT, r"x\.svm.*n_features"
    ),
    "SVMlight: a feature of number 2**62": (
        partial(lines, b"1 %d:1\n" % 2**62, "x.svm"), svmlight, CORRUPT, r"x\.svm"
    ),
    "SVMlight: a negative feature": (partial(lines, b"1 -5:1\n", "x.svm"), svmlight, CORRUPT, r"x\.svm', line 1"),
    "SVMlight: a number of 100,000 digits": (
        partial(lines, b"1 " + b"9" * 100_000 + b":1\n", "x.svm"), svmlight, CORRUPT, r"x\.svm', line 1"
    ),
    "SVMlight: code": (
        partial(lines, b"1 __import__('os').system('id'):1\n", "x.svm"), svmlight, CORRUPT, r"x\.svm', line 1"
    ),
    "SVMlight: a pickle": (partial(lines, BOMB, "x.svm"), svmlight, CORRUPT, r"x\.svm', line 1"),
    "SVMlight: 1 GiB in 1 MB of gzip": (
        partial(packed, gzip.compress, bytes(1 << 20), 1024, "x.svm.gz"), svmlight, CORRUPT, r"x\.svm\.gz"
    ),
    "SVMlight: a line of 128 MB in bzip2": (
        partial(packed, ones, b"1", 1, "x.svm.bz2"), svmlight, CORRUPT, r"x\.svm\.bz2"
    ),
}  # fmt: skip
