"""npz files that were made to do harm: the archive, the list of offsets, and pickles in it."""

from __future__ import annotations

import io
import pathlib
import struct
import zipfile
from functools import partial
from typing import Any

import numpy as np

from dataflow import NumpySerializer, dumps

from .payloads import BOMB, Bomb, bare_record, nd


def archive(
    members: dict[str, bytes], folder: pathlib.Path, packing: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> pathlib.Path:
    path = folder / "x.npz"
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, data in members.items():
            file.writestr(name, data)
        file.comment = comment
    return path


def holding(records: bytes, offsets: Any, folder: pathlib.Path) -> pathlib.Path:
    """Return a file as NumpySerializer lays it out, with anything for records and offsets."""
    return archive({"records": records, "offsets.npy": offsets_of(offsets)}, folder)


def offsets_of(offsets: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(offsets, "<u8"))
    return file.getvalue()


def patched(mark: bytes, place: int, field: bytes, folder: pathlib.Path) -> pathlib.Path:
    """Return a good file with another field in each header that begins with ``mark``."""
    path = holding(ONE, [0, len(ONE)], folder)
    data = path.read_bytes()
    parts = data.split(mark)
    path.write_bytes(mark.join([parts[0], *(part[:place] + field + part[place + len(field) :] for part in parts[1:])]))
    return path


def bomb(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Return a file with a member of 128 MiB that is packed into 130 KB."""
    size = 1 << 27
    members = {"records": ONE, "offsets.npy": offsets_of([0, size]), name: bytes(size)}
    return archive(members, folder, packing=zipfile.ZIP_DEFLATED)


def objects(folder: pathlib.Path) -> pathlib.Path:
    """Return what tensorpack writes: an array of objects named buffer."""
    path = folder / "x.npz"
    np.savez(path, buffer=np.array([[Bomb()]], object))
    return path


def raw(data: bytes, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "x.npz"
    path.write_bytes(data)
    return path


def in_order(path: pathlib.Path) -> list[Any]:
    return list(NumpySerializer.load(path, shuffle=False))


def shuffled(path: pathlib.Path) -> list[Any]:
    return list(NumpySerializer.load(path))


ONE = dumps([1])
CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
CORRUPT, USAGE = "CorruptDataError", "UsageError"
IN_FILE = r"x\.npz"
OF_OBJECTS = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O'}".ljust(117) + BOMB
LIE = bare_record(["array", "|u1", 1], [2**62])

FILES = {
    "npz: tensorpack's array of objects": (objects, in_order, USAGE, "allow_pickle=True"),
    "npz: tensorpack's array of objects, shuffled": (objects, shuffled, USAGE, "allow_pickle=True"),
    "npz: a buffer that is a pickle": (
        partial(archive, {"buffer.npy": BOMB}), in_order, f"{USAGE}|{CORRUPT}", f"{IN_FILE}|allow_pickle=True"
    ),
    "npz: a datapoint is a pickle": (
        partial(holding, BOMB, [0, len(BOMB)]), in_order, CORRUPT, f"{IN_FILE}', record 0"
    ),
    "npz: a datapoint is of msgpack-numpy's object kind": (
        partial(holding, nd(kind=b"O", data=BOMB), [0, len(nd(kind=b"O", data=BOMB))]), in_order, CORRUPT,
        f"{IN_FILE}', record 0"
    ),
    "npz: a datapoint that lies": (partial(holding, LIE, [0, len(LIE)]), in_order, CORRUPT, f"{IN_FILE}', record 0"),
    "npz: a datapoint of nothing": (partial(holding, b"", [0, 0]), in_order, CORRUPT, f"{IN_FILE}', record 0"),
    "npz: offsets beyond the end": (partial(holding, ONE, [0, 2**40]), in_order, CORRUPT, IN_FILE),
    "npz: an offset of 2**64 - 1": (partial(holding, ONE, [0, 2**64 - 1, len(ONE)]), in_order, CORRUPT, IN_FILE),
    "npz: offsets that go back": (partial(holding, ONE, [0, len(ONE), 0, len(ONE)]), in_order, CORRUPT, IN_FILE),
    "npz: offsets that do not begin at 0": (partial(holding, ONE, [1, len(ONE)]), in_order, CORRUPT, IN_FILE),
    "npz: no offsets": (partial(holding, ONE, []), in_order, CORRUPT, IN_FILE),
    "npz: offsets that are an array of objects": (
        partial(archive, {"records": ONE, "offsets.npy": OF_OBJECTS}), in_order, CORRUPT, IN_FILE
    ),
    "npz: 128 MiB of zeros in 130 KB": (partial(bomb, "records"), in_order, CORRUPT, IN_FILE),
    "npz: offsets of 128 MiB in 130 KB": (partial(bomb, "offsets.npy"), in_order, CORRUPT, IN_FILE),
    "npz: members of 4 GiB - 2": (
        partial(patched, CENTRAL, 16, struct.pack("<II", 2**32 - 2, 2**32 - 2)), in_order, CORRUPT, IN_FILE
    ),
    "npz: members at the end of 4 GiB": (
        partial(patched, CENTRAL, 38, b"\xfe\xff\xff\xff"), in_order, CORRUPT, IN_FILE
    ),
    "npz: members that are encrypted": (partial(patched, CENTRAL, 4, b"\x01\x00"), in_order, CORRUPT, IN_FILE),
    "npz: members packed in an unknown way": (partial(patched, CENTRAL, 6, b"\x63\x00"), in_order, CORRUPT, IN_FILE),
    "npz: members of other names in their places": (
        partial(patched, LOCAL, 26, b"../../x"), in_order, CORRUPT, IN_FILE
    ),
    "npz: 65,535 members claimed": (
        partial(patched, END, 4, struct.pack("<HH", 65535, 65535)), in_order, f"{CORRUPT}|a value", ""
    ),
    "npz: a directory of 4 GiB": (partial(patched, END, 8, b"\xff\xff\xff\xff"), in_order, CORRUPT, IN_FILE),
    "npz: names that lead up": (
        partial(archive, {"../../records": ONE, "/offsets.npy": b""}), in_order, CORRUPT, IN_FILE
    ),
    "npz: a comment full of ends": (
        partial(archive, {"records": ONE, "offsets.npy": offsets_of([0, len(ONE)])}, comment=b"PK\x05\x06" * 4000),
        in_order, f"a value|{CORRUPT}", ""
    ),
    "npz: an archive of nothing": (partial(archive, {}), in_order, CORRUPT, IN_FILE),
    "npz: a pickle": (partial(raw, BOMB), in_order, CORRUPT, IN_FILE),
    "npz: nothing": (partial(raw, b""), in_order, CORRUPT, IN_FILE),
}  # fmt: skip
