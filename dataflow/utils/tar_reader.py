"""Read a tar file from member to member, without trusting it; ``tar_headers`` draws what is in it.

The format is POSIX.1-2001 (pax), with the long names and large numbers of GNU tar.
"""

from __future__ import annotations

import json
import re
from typing import BinaryIO, NamedTuple

from ..errors import CorruptDataError
from .deps import need
from .tar_headers import ADLER, BLOCK, END, HEADER, OWNER, POSIX, UNNAMED, padded, sum_of

_GNU = b"ustar  \x00"
_ZEROS = bytes(BLOCK)
_REGULAR = frozenset({b"0", b"\0", b"7"})
_DIRECTORY = b"5"
_MORE = frozenset({b"x", b"g", b"L", b"K"})
_REFUSED = {
    b"1": "a hard link; pack what it leads to, e.g. with tar --hard-dereference",
    b"2": "a symbolic link; pack what it leads to, e.g. with tar --dereference",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"S": "a sparse file; pack it without --sparse",
}
_MAX_END_BYTES = 1 << 12
# Names and numbers of a header that goes before a member's own; more is no honest file.
_MAX_MORE_BYTES = 1 << 20
# Zeros that may follow the end.
_MAX_FILL_BYTES = 1 << 24
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=\0]+)=", re.ASCII)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}


class Member(NamedTuple):
    """A file in a tar file."""

    name: str
    size: int
    start: int  # where the first of its headers begins
    data: int  # where its bytes begin
    crc: int | None  # of its bytes, if the writer was ours
    unnamed: bool
    before: int | None  # the checksum of all headers before its own, as TarReader takes it


class TarReader:
    """Go from member to member of an open tar file, without ever using a name as a path.

    Only regular files are members; directories are passed over.

    Args:
        file: open for reading, in any state.
        size: how many bytes it holds.
        offset: where to begin, the ``start`` of a member.
        headers: the crc32c of the headers before it, or None: then nobody cares whether all members are there.
        until: where to stop, the ``start`` of another.

    Attributes:
        offset: where the next header is; at the end, where a reader may begin that would find nothing more.
        headers: the crc32c of those that were read; None once there is a member that is not of our writer.
        last: at the end, whether our writer wrote no other file after this one; None if it has not said so.
    """

    def __init__(
        self, file: BinaryIO, size: int, offset: int = 0, headers: int | None = 0, until: int = -1
    ) -> None:  # fmt: skip
        self.offset, self.headers = offset, headers
        self.last: bool | None = None
        self._header = offset
        self._extend = need("google_crc32c", by="the checksum of the headers").extend
        self._until = until
        self._file, self._size = file, size
        self._at = -1

    def member(self) -> Member | None:
        """Return the member that comes next, or None at the end.

        Raises:
            CorruptDataError: if the file is damaged, ends too early, or has a member that is no regular file.
        """
        start, before, more = self.offset, self.headers, dict[bytes, bytes]()
        end = start, before
        if start == self._until:
            return None
        while (block := self._block()) != _ZEROS:
            fields = HEADER.unpack(block)
            _check_sum(block, fields[6], self.offset)
            name, size, kind = fields[0].partition(b"\0")[0], self._number(fields[4]), fields[7]
            if fields[9] != _GNU and (prefix := fields[14].partition(b"\0")[0]):
                name = prefix + b"/" + name
            if kind in _MORE:
                more |= self._more(kind, size)
                continue
            if more:
                name = more.get(b"path", name)
                size = self._number(more[b"size"], 10) if b"size" in more else size
            data = self.offset + BLOCK
            if kind in _REFUSED:
                raise self._refused(f"{name[:80]!r} is {_REFUSED[kind]}")
            if kind not in _REGULAR and kind != _DIRECTORY:
                raise self._refused(f"{name[:80]!r} is of a kind that tar does not know ({kind!r})")
            self.offset = data + size + -size % BLOCK
            if self.offset > self._size:
                raise CorruptDataError(
                    f"the member {name[:80]!r} at byte {start} promises {size:,} bytes, and the file ends after "
                    f"{max(0, self._size - data):,}: cut short. Copy it again"
                )
            owner, group = fields[10].rstrip(b"\0"), fields[11].rstrip(b"\0")
            is_ours = owner in (OWNER, UNNAMED)
            if not is_ours:
                self.headers = None
            if kind == _DIRECTORY or (kind == b"\0" and name.endswith(b"/")):
                start, before, more = self.offset, self.headers, {}
                continue
            crc = int(group[7:], 16) if is_ours and _is_crc(group) else None
            member = Member(
                name.decode("utf-8", "surrogateescape"), size, start, data, crc, owner == UNNAMED, before
            )  # fmt: skip
            if not is_ours or member.name != END:
                return member
            end, start = (start, before), self.offset
            self._read_end(member)
            before = self.headers
        if start != self.offset:
            raise CorruptDataError(f"the header at byte {start} has no member behind it")
        self._check_end()
        if self.headers:
            raise CorruptDataError(
                f"it ends at byte {self.offset} without the member {END!r}, with which TarSerializer ends a file: "
                "members are missing. Copy it again, or read what is there with verify='off'"
            )
        self.offset, self.headers = end
        return None

    def _read_end(self, member: Member) -> None:
        """Compare what our writer says of all members with what they were."""
        try:
            data = self.read(member) if member.size <= _MAX_END_BYTES else bytearray()
            match json.loads(data):
                case {"version": 1, "headers": str(headers), "last": bool(last)}:
                    expected, self.last = int(headers, 16), last
                case other:
                    raise ValueError(f"{str(other)[:60]!r}")
        except (ValueError, RecursionError) as error:
            raise CorruptDataError(f"the member {END!r} at byte {member.start} cannot be read: {error}") from error
        if member.before is not None:
            if member.before != expected:
                raise CorruptDataError(
                    f"the members up to byte {member.start} are not all that were written, or not in their order: "
                    "damaged. Copy it again, or read what is there with verify='off'"
                )
            self.headers = 0  # what follows, after tar --concatenate, ends for itself

    def next_header(self) -> int | None:
        """Return where, behind the header that was read last, there is another that is whole; None if nowhere.

        It may be that of a member of an archive in a member.
        """
        offset = self._header + BLOCK
        self._seek(offset)
        while len(block := self._file.read(BLOCK)) == BLOCK:
            self._at = offset + BLOCK
            if block[257:262] == POSIX[:5]:
                try:
                    _check_sum(block, block[148:156], offset)
                except CorruptDataError:
                    pass  # part of something else
                else:
                    return offset
            offset += BLOCK
        self._at = -1
        return None

    def read(self, member: Member) -> bytearray:
        """Return the bytes of the member that ``member`` returned last, in memory of their own."""
        data = bytearray(member.size)
        self._seek(member.data)
        done = self._file.readinto(data)  # type: ignore[attr-defined]  # all binary files have it
        if done != member.size:
            raise self._ends(member.data + (done or 0))
        self._at += member.size
        return data

    def _seek(self, offset: int) -> None:
        if self._at != offset:
            self._file.seek(offset)
            self._at = offset

    def _block(self) -> bytes:
        """Read the block at ``offset``."""
        if 0 < self.offset - self._at < BLOCK and self._at >= 0:  # the zeros behind a member: no need to seek
            skipped = self.offset - self._at
            block = self._file.read(skipped + BLOCK)[skipped:]
        else:
            self._seek(self.offset)
            block = self._file.read(BLOCK)
        if len(block) != BLOCK:
            raise self._ends(self.offset + len(block))
        self._at = self.offset + BLOCK
        self._header = self.offset
        if self.headers is not None and block != _ZEROS:
            self.headers = self._extend(self.headers, block)
        return block

    def _ends(self, offset: int) -> CorruptDataError:
        return CorruptDataError(
            f"the file ends at byte {offset}, without the mark that ends an archive: cut short, or its writer "
            "never finished. Copy it again"
        )

    def _refused(self, why: str) -> CorruptDataError:
        return CorruptDataError(f"the member at byte {self.offset} cannot be read: {why}")

    def _number(self, field: bytes, base: int = 8) -> int:
        digits = field.strip(b" \0")
        if field[0] == 0x80 and base == 8:  # of GNU tar, for what octal digits cannot say
            return int.from_bytes(field[1:])
        try:
            if digits.isdigit() and len(digits) <= 20:
                return int(digits, base)
        except ValueError:
            pass  # an 8 or 9 among octal digits
        raise self._refused(f"its size is {digits[:24]!r}, which is no number")

    def _more(self, kind: bytes, size: int) -> dict[bytes, bytes]:
        """Read a header in front of a member's own: pax records, or a long name of GNU tar."""
        if size > _MAX_MORE_BYTES:
            raise self._refused(f"its header has {size:,} bytes")
        start = self.offset + BLOCK
        self._seek(start)
        text = self._file.read(size)
        if len(text) != size:
            raise self._ends(start + len(text))
        self._at += size
        if self.headers is not None:
            self.headers = self._extend(self.headers, padded(text))
        if kind == b"L":
            records = {b"path": text.partition(b"\0")[0]}
        elif kind == b"K":
            records = {}
        else:
            records = self._pax(text)
            if any(key.startswith(b"GNU.sparse") for key in records):
                raise self._refused(_REFUSED[b"S"])
            if kind == b"g" and records.keys() & {b"path", b"size"}:
                raise self._refused("one name or size is given for all members")
        self.offset = start + size + -size % BLOCK
        return records if kind != b"g" else {}

    def _pax(self, text: bytes) -> dict[bytes, bytes]:
        """Return what stands in lines like ``18 path=a/b.jpg``, each with its own length in front."""
        records, at = {}, 0
        while at < len(text):
            head = _PAX_RECORD.match(text, at)
            end = at + int(head[1]) if head else 0
            if head is None or not head.end() < end <= len(text) or text[end - 1] != 0x0A:
                raise self._refused("its header is damaged")
            records[head[2]] = text[head.end() : end - 1]
            at = end
        return records

    def _check_end(self) -> None:
        """Raise unless nothing but zeros is behind, and at least one more block of them."""
        self.offset += BLOCK
        left = self._size - self.offset
        if left < BLOCK:
            raise self._ends(self._size)
        fill = self._file.read(left) if left <= _MAX_FILL_BYTES else b"?"
        if fill.strip(b"\0"):
            raise CorruptDataError(
                f"its end stands at byte {self.offset - BLOCK}, and {left:,} bytes follow: damaged, or archives that "
                "were glued together. Read them one by one"
            )
        self.offset -= BLOCK


def _check_sum(block: bytes, field: bytes, offset: int) -> None:
    """Raise unless a header adds up to what stands in it, where its own field counts as spaces."""
    digits = field.strip(b" \0")
    try:
        if digits.isdigit() and (int(digits, 8) + sum(field) - 256) % ADLER == sum_of(block):
            return
    except ValueError:
        pass  # an 8 or 9 among octal digits
    if offset == 0:
        for magic, name in _COMPRESSED.items():
            if block.startswith(magic):
                raise CorruptDataError(f"no tar file: it is compressed with {name}. Unpack it first")
    raise CorruptDataError(f"no header of a member at byte {offset}: damaged, or no tar file. Copy it again")


def _is_crc(group: bytes) -> bool:
    return len(group) == 15 and group.startswith(b"crc32c=") and not group[7:].strip(b"0123456789abcdef")
