"""Parquet and Arrow files that were made to do harm: types that unpickle, notes that lie, and columns that do."""

from __future__ import annotations

import json
import pathlib
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from dataflow import ArrowSerializer, DataFromList, ParquetSerializer
from dataflow.codec import checksum
from dataflow.sources.parquet_file import NOTE

from .payloads import BOMB

HUGE = 2**62
UNPICKLES = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": BOMB}
LIES_ABOUT_SHAPE = {
    b"ARROW:extension:name": b"arrow.fixed_shape_tensor",
    b"ARROW:extension:metadata": json.dumps({"shape": [2**31, 2**31]}).encode(),
}


def arrow(table: Callable[[], Any], folder: pathlib.Path, note: bytes | None = None) -> pathlib.Path:
    path, made = folder / "x.arrow", table()
    schema = made.schema if note is None else made.schema.with_metadata({NOTE: note})
    with pa.ipc.new_file(path, schema) as writer:
        writer.write_table(made.cast(schema) if note is None else made.replace_schema_metadata({NOTE: note}))
    return path


def parquet(table: Callable[[], Any], folder: pathlib.Path, note: bytes | None = None) -> pathlib.Path:
    path, made = folder / "x.parquet", table()
    if note is not None:
        made = made.replace_schema_metadata({NOTE: note})
    pa.parquet.write_table(made, path, row_group_size=made.num_rows or 1)
    return path


def of_type(kind: Any, values: list[Any], metadata: dict[bytes, bytes] | None = None) -> Any:
    field = pa.field("a", kind, metadata=metadata)
    return pa.table([pa.array(values, kind)], schema=pa.schema([field]))


def noted(**changes: Any) -> bytes:
    """Return a note with the right checksum."""
    text = json.dumps({"version": 1, "layout": "list", "columns": [], "groups": [], **changes}).encode()
    return b"%08x" % checksum(text) + text


def text_note(text: bytes) -> bytes:
    return b"%08x" % checksum(text) + text


def ours(suffix: str, old: bytes, new: bytes, folder: pathlib.Path) -> pathlib.Path:
    """Return a file of ours, with some bytes of it exchanged."""
    path = folder / f"x.{suffix}"
    serializer: Any = ArrowSerializer if suffix == "arrow" else ParquetSerializer
    serializer.save(DataFromList([[number, "text"] for number in range(50)], shuffle=False), path)
    data = path.read_bytes()
    path.write_bytes(data.replace(old, new) if old else data + new)
    return path


def packed(folder: pathlib.Path) -> pathlib.Path:
    """Return a file whose column says that it unpacks to 1 EiB."""
    path = folder / "x.arrow"
    made = of_type(pa.int64(), [7] * 10_000)
    with pa.ipc.new_file(path, made.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(made)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<q", 80_000), struct.pack("<q", 2**60)))
    return path


def footer(length: int, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "x.parquet"
    path.write_bytes(b"PAR1" + bytes(100) + struct.pack("<I", length) + b"PAR1")
    return path


def deep(levels: int) -> Any:
    kind: Any = pa.int8()
    for _ in range(levels):
        kind = pa.list_(kind)
    return of_type(kind, [])


def zeros(rows: int) -> Any:
    return pa.table({"a": pa.nulls(rows)})


def twice() -> Any:
    return pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])


def dictionary() -> Any:
    """Return a column whose numbers lead beyond its words."""
    words = pa.DictionaryArray.from_arrays(pa.array([0, 5], pa.int32()), pa.array(["a"]), safe=False)
    return pa.table({"a": words})


def exchanged(table: Callable[[], Any], old: bytes, new: bytes, folder: pathlib.Path) -> pathlib.Path:
    """Return an Arrow file with some bytes exchanged, which must be there."""
    path = arrow(table, folder)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def read_arrow(path: pathlib.Path) -> list[Any]:
    return list(ArrowSerializer.load(path, shuffle=False))


def first_of_parquet(path: pathlib.Path) -> list[Any]:
    return list(next(iter(ParquetSerializer.load(path, shuffle=False))))


def read_parquet(path: pathlib.Path) -> list[Any]:
    return list(ParquetSerializer.load(path, shuffle=False))


CORRUPT = "CorruptDataError"
INT = ["a", "int"]
NOTES = {
    "that is a pickle": text_note(BOMB),
    "that is nothing": b"",
    "whose checksum is wrong": b"00000000" + noted()[8:],
    "of 100,000 levels": text_note(b"[" * 100_000),
    "of a later version": noted(version=2),
    "of another layout": noted(layout="os.system"),
    "of no columns": noted(),
    "of another column": noted(columns=[["b", "int"]]),
    "of an object": noted(columns=[["a", "array", "|O", [1], False]]),
    "of an array of 4 EiB": noted(columns=[["a", "array", "|u1", [HUGE], False]]),
    "of an array of a negative size": noted(columns=[["a", "array", "|u1", [-1], False]]),
    "of columns that are no list": noted(columns=5),
    "of groups beyond the file": noted(columns=[INT], groups=[[HUGE, HUGE, 0, 3]]),
    "of groups that are no numbers": noted(columns=[INT], groups=["os.system"]),
}
ONE = partial(of_type, pa.int64(), [1, 2, 3])
TEXT = partial(of_type, pa.string(), ["abc", "defg"])
PLACES = struct.pack("<3i", 0, 3, 7)
FILES = {
    f"{name}: a note {what}": (partial(make, ONE, note=note), read, CORRUPT, rf"x\.{name.lower()}")
    for name, make, read in (("Arrow", arrow, read_arrow), ("Parquet", parquet, read_parquet))
    for what, note in NOTES.items()
} | {
    "Arrow: a type that unpickles": (
        partial(arrow, partial(of_type, pa.binary(), [BOMB], UNPICKLES)), read_arrow, f"a value|{CORRUPT}", ""
    ),
    "Parquet: a type that unpickles": (
        partial(parquet, partial(of_type, pa.binary(), [BOMB], UNPICKLES)), read_parquet, f"a value|{CORRUPT}", ""
    ),
    "Arrow: a tensor that lies about its shape": (
        partial(arrow, partial(of_type, pa.list_(pa.int8(), 2), [[1, 2]], LIES_ABOUT_SHAPE)),
        read_arrow, CORRUPT, "x.arrow"
    ),
    "Arrow: a column that unpacks to 1 EiB": (packed, read_arrow, CORRUPT, r"x\.arrow"),
    "Arrow: words beyond the end": (partial(arrow, dictionary), read_arrow, CORRUPT, r"x\.arrow"),
    "Arrow: text beyond the end": (
        partial(exchanged, TEXT, PLACES, struct.pack("<3i", 0, 2**30, 2**31 - 1)), read_arrow, CORRUPT, r"x\.arrow"
    ),
    "Arrow: text that begins before its bytes": (
        partial(exchanged, TEXT, PLACES, struct.pack("<3i", -(2**20), 3, 7)), read_arrow, CORRUPT, r"x\.arrow"
    ),
    "Arrow: two columns of one name": (partial(arrow, twice), read_arrow, CORRUPT, "two columns have one name"),
    "Parquet: two columns of one name": (partial(parquet, twice), read_parquet, CORRUPT, "two columns have one name"),
    "Arrow: 60 levels of lists": (partial(arrow, partial(deep, 60)), read_arrow, f"a value|{CORRUPT}", ""),
    "Arrow: 500 levels of lists": (partial(arrow, partial(deep, 500)), read_arrow, CORRUPT, r"x\.arrow"),
    "Parquet: 500 levels of lists": (partial(parquet, partial(deep, 500)), read_parquet, f"a value|{CORRUPT}", ""),
    "Parquet: 20 million rows in a few kilobytes": (
        partial(parquet, partial(zeros, 20_000_000)), first_of_parquet, f"a value|{CORRUPT}", ""
    ),
    "Parquet: a footer of 4 GiB": (partial(footer, 2**32 - 1), read_parquet, CORRUPT, r"x\.parquet"),
    "Parquet: a footer of zeros": (partial(footer, 100), read_parquet, CORRUPT, r"x\.parquet"),
    "Parquet: an encrypted footer": (partial(ours, "parquet", b"PAR1", b"PARE"), read_parquet, CORRUPT, r"x\.parquet"),
    "Parquet: something behind its end": (partial(ours, "parquet", b"", b"more"), read_parquet, CORRUPT, r"x\.parquet"),
    "Arrow: something behind its end": (partial(ours, "arrow", b"", b"more"), read_arrow, CORRUPT, r"x\.arrow"),
    "Arrow: another text": (partial(ours, "arrow", b"texttext", b"taxttext"), read_arrow, CORRUPT, r"x\.arrow"),
}  # fmt: skip
