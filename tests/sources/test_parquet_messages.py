"""What the batches of an Arrow file say of themselves is read from any such file; other bytes are damage."""

from __future__ import annotations

import io
import random

import pytest

from dataflow.errors import CorruptDataError

pa = pytest.importorskip("pyarrow")

from dataflow.sources.parquet_messages import Messages  # noqa: E402  # loaded where pyarrow is
from dataflow.sources.parquet_note import NOTE  # noqa: E402
from dataflow.sources.parquet_source import Source  # noqa: E402

TABLE = pa.table(
    {"n": [*range(5000)], "t": ["text"] * 5000, "d": pa.array(["word" * 500, "x"] * 2500).dictionary_encode()}
)
COUNTS = [2000, 2000, 1000]


def written(compression=None):
    file = io.BytesIO()
    with pa.ipc.new_file(file, TABLE.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for number, batch in enumerate(TABLE.to_batches(2000)):
            writer.write_batch(batch, custom_metadata={b"other": b"1", NOTE: b"note %d" % number})
    return file.getvalue()


def messages_of(data):
    return Messages(Source(io.BytesIO(data), at_url=True))


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_batches_say_their_rows_and_notes_and_what_they_unpack_to(compression):
    messages = messages_of(written(compression))
    assert [message.rows for message in map(messages.__getitem__, range(3))] == COUNTS
    assert [message.noted for message in map(messages.__getitem__, range(3))] == [b"note 0", b"note 1", b"note 2"]
    # Of each row a number, the place and the bytes of a text, and the place of a word; where the last text ends; words.
    expected = [count * (8 + 4 + 4 + 4) + 4 + (3 * 4 + 2001) for count in COUNTS]
    assert [*map(messages.unpacked, range(3))] == (expected if compression else [0, 0, 0])


def test_whatever_the_bytes_are_they_are_read_or_damaged():
    good = written("zstd")
    length = int.from_bytes(good[-10:-6], "little")
    draw = random.Random(5)
    found = 0
    for _ in range(400):
        data = bytearray(good)
        data[draw.randrange(len(data) - 10 - length, len(data) - 6)] = draw.choice([0, 1, 127, 128, 255])
        try:
            messages = messages_of(data)
            for number in range(len(messages)):
                messages[number]
                messages.unpacked(number)
        except CorruptDataError:
            found += 1
    assert found > 50
