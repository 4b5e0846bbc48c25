"""Headers of tar files that we write are read by every program."""

from __future__ import annotations

import io
import tarfile

import pytest

from dataflow.utils.tar_headers import header, padded
from dataflow.utils.tar_reader import TarReader

END = bytes(1024)
LONG = f"{'folder/' * 15}{'x' * 90}.txt"


@pytest.mark.parametrize("name", ["a.txt", "ä.txt", LONG], ids=["short", "not ascii", "long"])
def test_the_standard_library_reads_our_headers(name):
    data = header(name, 3, 0xABCDEF) + padded(b"one") + END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (info,) = tar.getmembers()
        assert (info.name, info.gname) == (name, "crc32c=00abcdef")
        assert tar.extractfile(info).read() == b"one"
    found = TarReader(io.BytesIO(data), len(data), headers=None).member()
    assert (found.name, found.size, found.crc, found.unnamed) == (name, 3, 0xABCDEF, False)


def test_a_size_beyond_eight_gibibytes_is_written_and_read():
    size = 9 << 30
    data = header("a.bin", size)
    with tarfile.open(fileobj=io.BytesIO(data + END)) as tar:
        assert tar.firstmember.size == size
    assert TarReader(io.BytesIO(data), 10 << 30).member().size == size
