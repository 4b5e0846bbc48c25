"""What our writers note in Parquet and Arrow files: the columns, the groups of rows, and checksums."""

from __future__ import annotations

import json
from typing import NamedTuple

from ..codec import checksum
from ..codec.columns import Column, column_of
from ..errors import CorruptDataError

# Under this name it stands in the file.
NOTE = b"dataflow"
VERSION = 1
LAYOUTS = ("list", "dict")
# What the end of a Parquet file of ours says of itself: the crc32c that it had before the crc32c was put in.
SEAL, UNSEALED = b"dataflow: crc32c=", b"00000000"
MAGIC_BYTES = 8  # how long the end is, and "PAR1"


def seal_of(end: bytes) -> bytes:
    """Return the checksum of the end of a Parquet file."""
    return b"%08x" % checksum(end)


class Note(NamedTuple):
    """What our writers note in a file."""

    layout: str
    columns: tuple[Column, ...]
    # Offset, length, crc32c and rows of each, and where in the file each column of arrays begins, if they stand there
    # as they are in memory. Of Arrow there is none, as the note is written first: the last batch notes the rows of
    # each. Before dataflow did that, [[rows of each but the last]]; [[0]] if there is no batch.
    groups: list[list[int]]

    def written(self) -> bytes:
        """Return the note as bytes, with a checksum in front."""
        columns = [column.written() for column in self.columns]
        text = json.dumps(
            {"version": VERSION, "layout": self.layout, "columns": columns, "groups": self.groups}
        ).encode()
        return b"%08x" % checksum(text) + text


def note_of(written: bytes) -> Note:
    """Return the note that ``Note.written`` wrote.

    Raises:
        CorruptDataError: if it is damaged, or of a later version.
    """
    crc, text = written[:8], written[8:]
    if crc != b"%08x" % checksum(text):
        raise CorruptDataError("what it notes of its columns is damaged. Copy it again")
    try:
        note = json.loads(text)
        if note["version"] != VERSION:
            raise ValueError(f"it has version {note['version']}, and this dataflow reads version {VERSION}")
        if note["layout"] not in LAYOUTS:
            raise ValueError(f"datapoints were {str(note['layout'])[:60]!r}")
        if any(type(number) is not int or number < 0 for group in note["groups"] for number in group):
            raise ValueError("its groups of rows are none")
        return Note(note["layout"], tuple(map(column_of, note["columns"])), [*map(list, note["groups"])])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptDataError(f"what it notes of its columns cannot be read: {error}") from error


def note_in(about: dict[bytes, bytes] | None) -> Note | None:
    """Find the note in what a file says of itself; None if another program wrote the file."""
    for name, written in (about or {}).items():
        if name == NOTE:
            return note_of(written)
        if written[8:].startswith(b'{"version"'):
            raise CorruptDataError(f"what it notes of its columns is there under the name {name!r}: damaged")
    return None
