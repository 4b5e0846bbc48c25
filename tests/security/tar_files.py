"""Tar files that were made to do harm: names, kinds and sizes of members, and what stands in them."""

from __future__ import annotations

import gzip
import io
import pathlib
import struct
import tarfile
from functools import partial
from typing import Any

import numpy as np

from dataflow import TarSerializer

from .payloads import BOMB, bare_record, nd

HUGE = 2**62


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", size: int | None = None,
           pax: dict[str, str] | None = None, kind_of_tar: int = tarfile.PAX_FORMAT) -> bytes:  # fmt: skip
    """Return one member as Python's tarfile writes it, with a size that may lie."""
    about = tarfile.TarInfo(name)
    about.size, about.type, about.linkname, about.pax_headers = len(data), kind, link, pax or {}
    if size is not None:
        about.size = size
    return about.tobuf(kind_of_tar, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def patched(block: bytes, place: int, field: bytes) -> bytes:
    """Return a header with another field, and a checksum that fits."""
    block = block[:place] + field + block[place + len(field) :]
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block[:512]) + block[156:]


def file_of(content: bytes, folder: pathlib.Path, name: str = "x.tar") -> pathlib.Path:
    (folder / "canary").write_bytes(b"this is of somebody else")
    path = folder / name
    path.write_bytes(content + bytes(1024))
    return path


def raw(content: bytes, folder: pathlib.Path) -> pathlib.Path:
    path = folder / "x.tar"
    path.write_bytes(content)
    return path


def linked(kind: bytes, folder: pathlib.Path) -> pathlib.Path:
    return file_of(member("0.txt", kind=kind, link=str(folder / "canary")), folder)


def along(path: pathlib.Path) -> list[Any]:
    return list(TarSerializer.load(path, shuffle=False))


def shuffled(path: pathlib.Path) -> list[Any]:
    return list(TarSerializer.load(path, shuffle=True))


def npy(described: Any, shape: tuple[int, ...], data: bytes = b"", order: bool = False) -> bytes:
    """Return what ``numpy.save`` would write for an array that claims to be another."""
    header = repr({"descr": described, "fortran_order": order, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


CORRUPT, USAGE, VALUE = "CorruptDataError", "UsageError", "a value"
RECORD = r"x\.tar'.*record"
BASE256 = b"\x80" + (2**88 - 1).to_bytes(11, "big")
SIZE = 124
CODE = "__import__('os').system('id')"
RECORDS = {
    "a link to another file": (partial(linked, tarfile.SYMTYPE), CORRUPT, "a symbolic link"),
    "a hard link to another file": (partial(linked, tarfile.LNKTYPE), CORRUPT, "a hard link"),
    "a device": (partial(file_of, member("0.txt", kind=tarfile.CHRTYPE)), CORRUPT, "a device"),
    "a block device": (partial(file_of, member("0.txt", kind=tarfile.BLKTYPE)), CORRUPT, "a device"),
    "a named pipe": (partial(file_of, member("0.txt", kind=tarfile.FIFOTYPE)), CORRUPT, "a named pipe"),
    "a sparse file": (partial(file_of, member("0.txt", kind=tarfile.GNUTYPE_SPARSE)), CORRUPT, "a sparse file"),
    "a sparse file by pax": (
        partial(file_of, member("0.txt", pax={"GNU.sparse.size": str(HUGE), "GNU.sparse.map": "0,1"})), CORRUPT,
        "sparse"
    ),
    "a kind that tar does not know": (partial(file_of, member("0.txt", kind=b"Z")), CORRUPT, "kind"),
    "an absolute name": (partial(file_of, member("/etc/passwd.txt", b"a")), CORRUPT, "leads out"),
    "a name that leads up": (partial(file_of, member("../../0.txt", b"a")), CORRUPT, "leads out"),
    "a name that leads up by pax": (
        partial(file_of, member("0.txt", b"a", pax={"path": "a/../../0.txt"})), CORRUPT, "leads out"
    ),
    "a name of 100,000 letters": (partial(file_of, member("a" * 100_000 + ".txt", b"a")), VALUE, ""),
    "a name of 2 MiB": (partial(file_of, member("a" * (2 << 20) + ".txt", b"a")), CORRUPT, "its header has"),
    "a name that is code": (partial(file_of, member(f"{CODE}.txt", b"a")), VALUE, ""),
    "a name with a zero byte by GNU": (
        partial(file_of, member("././@LongLink", b"a\0b.txt\0", tarfile.GNUTYPE_LONGNAME) + member("0.txt", b"a")),
        VALUE,
        ""
    ),
    "two members of one name": (partial(file_of, member("0.txt", b"a") + member("0.txt", b"b")), CORRUPT, "that name"),
    "a member called __key__": (partial(file_of, member("0.__key__", b"a")), CORRUPT, "that name"),
    "a size of 64 GiB": (partial(file_of, member("0.txt", size=8**11 - 1)), CORRUPT, "cut short"),
    "a size of 2**88": (
        partial(file_of, patched(member("0.txt"), SIZE, BASE256)), CORRUPT, "cut short"
    ),
    "a negative size": (partial(file_of, patched(member("0.txt"), SIZE, b"\xff" * 12)), CORRUPT, "no number"),
    "a size that is no number": (
        partial(file_of, patched(member("0.txt"), SIZE, b"0x7fffffff\0\0")), CORRUPT, "no number"
    ),
    "a size of 10**30 by pax": (
        partial(file_of, member("0.txt", pax={"size": "1" + "0" * 30})), CORRUPT, "no number"
    ),
    "a negative size by pax": (partial(file_of, member("0.txt", pax={"size": "-512"})), CORRUPT, "no number"),
    "a size for all members": (
        partial(file_of, member("g", b"12 size=999\n", tarfile.XGLTYPE) + member("0.txt", b"a")), CORRUPT,
        "for all members"
    ),
    "a pax header of 64 GiB": (
        partial(file_of, patched(member("p", b"", tarfile.XHDTYPE, size=8**11 - 1), 0, b"p")), CORRUPT, "its header has"
    ),
    "pax headers without end": (
        partial(file_of, member("p", b"9 path=a\n", tarfile.XHDTYPE) * 5000), CORRUPT, "no member behind"
    ),
    "a pax header that lies about its length": (
        partial(file_of, member("p", b"9999 path=a\n", tarfile.XHDTYPE) + member("0.txt")), CORRUPT, "damaged"
    ),
    "a checksum of a header that is wrong": (
        partial(file_of, b"1" + member("0.txt", b"a")[1:]), CORRUPT, "no header of a member"
    ),
    "a tar file in gzip": (partial(raw, gzip.compress(member("0.bin", bytes(range(256)) * 64)) * 9), CORRUPT, "gzip"),
    "no end": (partial(raw, member("0.txt", b"a")), CORRUPT, "cut short|never finished"),
    "something behind the end": (partial(file_of, member("0.txt") + bytes(1024) + b"x" * 512), CORRUPT, "glued"),
    "a pickle": (partial(file_of, member("0.pyd", BOMB)), USAGE, "allow_pickle=True"),
    "a pickle called pkl": (partial(file_of, member("0.pkl", BOMB)), USAGE, "allow_pickle=True"),
    "a pickle called pickle": (partial(file_of, member("0.a.b.pickle", BOMB)), USAGE, "allow_pickle=True"),
    "a pickle called df": (partial(file_of, member("0.df", BOMB)), USAGE, "allow_pickle=True"),
    "a pickle called jpg": (partial(file_of, member("0.jpg", BOMB)), VALUE, ""),
    "a pickle called pth": (partial(file_of, member("0.pth", BOMB)), VALUE, ""),
    "a pickle in msgpack": (partial(file_of, member("0.mp", nd(kind=b"O", data=BOMB))), USAGE, "allow_pickle=True"),
    "an array of objects": (
        partial(file_of, member("0.npy", saved(np.array([{}], object)))), USAGE, "allow_pickle=True"
    ),
    "an array of pointers": (partial(file_of, member("0.npy", npy("|O", (1,), bytes(8)))), f"{USAGE}|{CORRUPT}", ""),
    "an array of records with pointers": (
        partial(file_of, member("0.npy", npy([("a", "|O")], (1,), bytes(8)))), f"{USAGE}|{CORRUPT}", ""
    ),
    "an array that claims 4 EiB": (partial(file_of, member("0.npy", npy("|u1", (HUGE,)))), CORRUPT, "promised"),
    "an array whose size overflows to its own": (
        partial(file_of, member("0.npy", npy("|u1", (2**32, 2**32), b""))), CORRUPT, "promised"
    ),
    "an array of a negative size": (partial(file_of, member("0.npy", npy("|u1", (-4,)))), CORRUPT, "negative"),
    "an array of two negative sizes": (
        partial(file_of, member("0.npy", npy("|u1", (-2, -2), b"1234"))), CORRUPT, "negative"
    ),
    "an array of no elements and 65 dimensions": (
        partial(file_of, member("0.npy", npy("|u1", (0,) * 65))), CORRUPT, r"\.npy|header"
    ),
    "an array of no bytes": (partial(file_of, member("0.npy", npy("|V0", (HUGE,)))), CORRUPT, "header"),
    "an array whose header is code": (
        partial(file_of, member("0.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(CODE)) + CODE.encode())), CORRUPT,
        "header"
    ),
    "an array whose header is 5,000 brackets": (
        partial(file_of, member("0.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 5000) + b"(" * 5000)), CORRUPT,
        "header"
    ),
    "an array whose header claims 4 GiB": (
        partial(file_of, member("0.npy", b"\x93NUMPY\x03\x00\xff\xff\xff\xff" + bytes(40))), CORRUPT, "header"
    ),
    "JSON of 100,000 levels": (partial(file_of, member("0.json", b"[" * 100_000)), CORRUPT, "json"),
    "JSON of a number of 1,000,000 digits": (partial(file_of, member("0.json", b"9" * 1_000_000)), CORRUPT, "json"),
    "a number of 1,000,000 digits": (partial(file_of, member("0.cls", b"9" * 1_000_000)), CORRUPT, "no number"),
    "a number that is code": (partial(file_of, member("0.cls", CODE.encode())), CORRUPT, "no number"),
    "text that is no UTF-8": (partial(file_of, member("0.txt", b"\xff\xfe\x80")), CORRUPT, "txt"),
    "a record that lies": (
        partial(file_of, member("0.df", bare_record(["array", "|u1", 1], [HUGE]))), CORRUPT, "0.df"
    ),
}  # fmt: skip

FILES = {f"tar: {name}": (make, along, ends, says) for name, (make, ends, says) in RECORDS.items()} | {
    f"tar, shuffled: {name}": (make, shuffled, ends, says) for name, (make, ends, says) in RECORDS.items()
}
