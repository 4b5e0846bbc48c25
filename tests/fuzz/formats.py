"""What each format is given to write, how it is read, and what it promises when its bytes are damaged."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import lmdb
import numpy as np

import dataflow
from dataflow import DataFromList, dumps

RECORDS: list[Any] = [[np.full((6, 5, 3), number, np.uint8), number, f"row {number}"] for number in range(40)]
# What HDF5 holds: numbers and arrays of one shape.
NUMBERS: list[Any] = [[np.full((6, 5, 3), number, np.uint8), number, number / 7] for number in range(40)]
FILES: list[Any] = [
    {"__key__": f"{number:04}", "jpg": bytes(range(number, 200)), "cls": number, "json": {"n": [number]}}
    for number in range(20)
]


# Where copies of the same bytes begin, and how long they are.
Span = tuple[list[int], int]


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        name: what the table calls it.
        file: name of the file, whose suffix chooses the reader.
        rows: what is written.
        write: writes it; by default ``dataflow.save``.
        read: reads all of it, given how many datapoints there are; by default ``dataflow.load``, in order.
        checks: what is always found of damage: "all" of it; a changed value, but not that whole datapoints are gone or
            double ("values"); that datapoints are gone, but not that one is changed, nor that all that was written
            last is gone ("count"); or "nothing".
        crashes: whether damage outside of the records may kill the reader.
    """

    name: str
    file: str
    rows: list[Any]
    write: Callable[[list[Any], str], None] | None = None
    read: Callable[[str, int], Iterable[Any]] | None = None
    checks: str = "all"
    crashes: bool = False

    def save(self, path: str) -> None:
        if self.write is not None:
            self.write(self.rows, path)
        else:
            dataflow.save(DataFromList(self.rows, shuffle=False), path)

    def load(self, path: str) -> list[bytes]:
        """Return the datapoints as bytes, which are equal only if they are the same bit for bit."""
        rows = dataflow.load(path, shuffle=False) if self.read is None else self.read(path, len(self.rows))
        return [dumps(dp, checksum=False) for dp in rows]

    def spans(self, data: bytes) -> list[Span]:
        """Return where in the file the records of the codec lie, as far as they lie in one piece; LMDB keeps copies."""
        found = []
        for record in (dumps(row, checksum=flag) for row in self.rows for flag in (True, False)):
            starts = [match.start() for match in re.finditer(re.escape(record), data)]
            if starts:
                found.append((starts, len(record)))
        return found


def _write_svmlight(rows: list[Any], path: str) -> None:
    lines = (f"{number % 2} 1:{number} 3:0.5 7:{number * 3}\n" for number in range(len(rows)))
    pathlib.Path(path).write_text("".join(lines))


def _write_caffe(rows: list[Any], path: str) -> None:
    """Write Datum records: channels, height, width, data, label."""
    with lmdb.open(os.fsencode(path), subdir=False, lock=False) as env, env.begin(write=True) as txn:
        for number in range(len(rows)):
            pixels = bytes((number + n) % 256 for n in range(3 * 4 * 5))
            datum = b"\x08\x03\x10\x04\x18\x05\x22" + bytes([len(pixels)]) + pixels + b"\x28" + bytes([number])
            txn.put(b"%08d" % number, datum)


def _indexed(path: str, _size: int) -> Iterable[Any]:
    return dataflow.load(path, index=True, shuffle=False)


def _streamed(path: str, size: int) -> Iterable[Any]:
    return dataflow.load(path, index=False, size=size)


def _components(path: str, _size: int) -> Iterable[Any]:
    """Yield each member of a tar file: damage may part those of a datapoint, which the format cannot know."""
    for dp in dataflow.load(path, shuffle=False):
        yield from ([dp["__key__"], name, value] for name, value in dp.items())


def _svmlight(path: str, _size: int) -> Iterable[Any]:
    return dataflow.SVMLightData(path, shuffle=False)


def _caffe(path: str, _size: int) -> Iterable[Any]:
    return dataflow.CaffeLMDB(path, shuffle=False)


FORMATS = {
    kind.name: kind
    for kind in (
        Format("LMDB", "x.lmdb", RECORDS, crashes=True),
        Format("npz", "x.npz", RECORDS),
        Format("TFRecord", "x.tfrecord", RECORDS, read=_indexed),
        Format("TFRecord, streamed", "x.tfrecords", RECORDS, read=_streamed),
        Format("HDF5", "x.h5", NUMBERS),
        Format("tar of records", "x.tar", RECORDS, checks="all"),
        Format("tar of files", "y.tar", FILES, read=_components, checks="all"),
        Format("Parquet", "x.parquet", RECORDS),
        Format("Arrow", "x.arrow", RECORDS),
        Format("SVMLight", "x.svm", RECORDS, _write_svmlight, _svmlight, checks="nothing"),
        Format("Caffe LMDB", "c.lmdb", RECORDS, _write_caffe, _caffe, checks="count", crashes=True),
    )
}

# Those that we write, with more to write: half a megabyte.
_MORE: list[Any] = [[np.full((40, 50, 3), number % 256, np.uint8), number, number / 7] for number in range(100)]
_MORE_FILES: list[Any] = [{"__key__": f"{number:04}", "jpg": bytes(5000), "cls": number} for number in range(100)]
SAVED = {
    name: replace(kind, rows=_MORE_FILES, read=None) if kind.rows is FILES else replace(kind, rows=_MORE)
    for name, kind in FORMATS.items()
    if kind.write is None
}
