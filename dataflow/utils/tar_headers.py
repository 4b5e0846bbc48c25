"""The blocks of a tar file, and how they are written; ``tar_reader`` reads them.

A tar file is a row of members, each a header of 512 bytes and then its bytes, filled up with zeros to the next
multiple of 512. Two blocks of zeros end it. A header has a checksum, what follows it has none; so the writer puts the
crc32c of a member where tar has the name of its group, which no reader needs and every tool shows::

    $ tar -tvf x.tar
    -rw-r--r-- dataflow/crc32c=1a2b3c4d    30720 1970-01-01 00:00 00000000.jpg

Members that were zeroed, lost or doubled would not be missed by that. So the writer ends with one that says what the
headers of all others were, and whether a set of files goes on; webdataset passes over names of this kind::

    __dataflow__/end.json      {"version": 1, "headers": "1a2b3c4d", "last": true}
"""

from __future__ import annotations

import json
import struct
from zlib import adler32

BLOCK = 512
# An archive is as long as a multiple of this, as tar has it since there are tapes.
RECORD = 20 * BLOCK
# The owner of members with a checksum, and of those whose key is only the number of the datapoint.
OWNER, UNNAMED = b"dataflow", b"dataflow-unnamed"
END = "__dataflow__/end.json"

# name, mode, uid, gid, size, mtime, checksum, type, link, magic, owner, group, device (2), prefix
HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
POSIX = b"ustar\x0000"
# What `sum_of` is modulo.
ADLER = 65521
_GROUP = b"crc32c=%08x"
_MAX_OCTAL = 8**11


def header(name: str, size: int, crc: int | None = None, unnamed: bool = False) -> bytes:
    """Return the header of a regular file, with a pax header in front where it needs one.

    >>> len(header("a.txt", 3)), len(header("a" * 200 + ".txt", 3))
    (512, 1536)

    Args:
        name: its name; the caller sees to it that there is no NUL in it.
        size: how many bytes follow.
        crc: their crc32c.
        unnamed: the name was not given by the user.
    """
    short = name.encode("utf-8", "surrogateescape")
    records = b""
    if len(short) > 100 or not short.isascii():
        records, short = _pax_record(b"path", short), short[:100]
    if size >= _MAX_OCTAL:
        records += _pax_record(b"size", b"%d" % size)
    group = b"" if crc is None else _GROUP % crc
    block = _plain(short, 0 if size >= _MAX_OCTAL else size, b"0", UNNAMED if unnamed else OWNER, group)
    if records:
        return _plain(b"PaxHeaders/" + short[:80], len(records), b"x", OWNER, b"") + padded(records) + block
    return block


def end_of(headers: int, last: bool) -> bytes:
    """Return what stands in the member that is called END.

    Args:
        headers: the crc32c of all headers before it.
        last: whether no file of the same set follows.
    """
    return json.dumps({"version": 1, "headers": f"{headers:08x}", "last": last}).encode()


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Return a line that begins with its own length."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % (rest + len(b"%d" % rest)))
    return b"%d %s=%s\n" % (length, key, value)


def _plain(name: bytes, size: int, kind: bytes, owner: bytes, group: bytes) -> bytes:
    block = HEADER.pack(
        name, b"0000644", b"0000000", b"0000000", b"%011o" % size, b"00000000000", b" " * 8, kind, b"", POSIX,
        owner, group, b"", b"", b"",
    )  # fmt: skip
    return block[:148] + b"%06o\0 " % sum_of(block) + block[156:]  # which stays below the modulus


def padded(data: bytes) -> bytes:
    """Return ``data`` with zeros up to the next multiple of a block."""
    return data + bytes(-len(data) % BLOCK)


def sum_of(block: bytes) -> int:
    """Return the sum of all bytes, modulo 65521: a tenth of the time of ``sum(block)``."""
    return ((adler32(block) & 0xFFFF) - 1) % ADLER
