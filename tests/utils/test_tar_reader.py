"""Tar files: those of every program are read, those of nobody's are refused."""

from __future__ import annotations

import io
import tarfile

import pytest

from dataflow.errors import CorruptDataError
from dataflow.utils.tar_headers import header, padded
from dataflow.utils.tar_reader import TarReader

END = bytes(1024)
LONG = f"{'folder/' * 15}{'x' * 90}.txt"


def reader(data):
    """Read members without the one at the end that tells what all of them are."""
    return TarReader(io.BytesIO(data), len(data), headers=None)


def member(name=b"a.txt", **fields):
    """One member as the module tarfile packs it, with fields that no honest writer sets."""
    info = tarfile.TarInfo(name.decode())
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def resummed(block, at, raw):
    """A header with other bytes in it, and a checksum that agrees."""
    block = block[:at] + raw + block[at + len(raw) :]
    total = sum(block[:148]) + 256 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


def refused(data, message):
    with pytest.raises(CorruptDataError, match=message):
        reader(data).member()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["a.txt", "folder/ä.txt", LONG], ids=["short", "not ascii", "long"])
def test_members_of_the_standard_library_are_read(name, form):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for data in (b"one", b"", b"x" * 600):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    tar = reader(file.getvalue())
    found = []
    while (there := tar.member()) is not None:
        found.append((there.name, bytes(tar.read(there)), there.crc))
    assert found == [(name, b"one", None), (name, b"", None), (name, b"x" * 600, None)]


def test_a_size_beyond_eight_gibibytes_is_read_as_gnu_tar_writes_it():
    size = 9 << 30
    assert TarReader(io.BytesIO(member(b"a.bin", size=size)), 10 << 30).member().size == size


def test_directories_are_passed_over():
    folder = member(b"folder", type=tarfile.DIRTYPE)
    assert reader(folder + member(b"a.txt") + END).member().name == "a.txt"
    assert reader(folder + END).member() is None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.LNKTYPE, "hard link.*--hard-dereference"),
        (tarfile.SYMTYPE, "symbolic link.*--dereference"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "named pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse file; pack it without --sparse"),
        (b"Z", "a kind that tar does not know"),
    ],
)
def test_what_is_no_regular_file_is_refused(kind, message):
    refused(member(type=kind, linkname="/etc/passwd") + END, message)


@pytest.mark.parametrize(
    ("pax", "message"),
    [
        ({"GNU.sparse.major": "1"}, "sparse file"),
        ({"size": "9" * 19}, "promises .* cut short"),
        ({"size": "-1"}, "no number"),
        ({"size": "1_0"}, "no number"),
    ],
    ids=["sparse", "larger than the file", "negative", "underscore"],
)
def test_hostile_pax_headers_are_refused(pax, message):
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = pax
    refused(info.tobuf(tarfile.PAX_FORMAT) + END, message)


@pytest.mark.parametrize("text", [b"", b"5 a=b\n", b"999 a=b\n", b"6 a=bc", b"0 a=b\n", b"x a=b\n"])
def test_pax_records_that_lie_about_their_length_are_refused(text):
    head = resummed(member(size=len(text)), 156, b"x")
    data = head + padded(text) + END
    if text:
        refused(data, "its header is damaged")
    else:
        refused(data, "has no member behind it")


def test_a_size_for_all_members_is_refused():
    text = b"10 size=5\n"
    refused(resummed(member(size=len(text)), 156, b"g") + padded(text) + member() + END, "for all members")


@pytest.mark.parametrize(
    "field",
    [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001\0", b"0x000000001\0", b"00000000008\0"],
    ids=["8 GiB", "2**88", "negative", "signed", "hexadecimal", "no octal"],
)
def test_sizes_that_lie_are_refused_before_memory_is_taken(field):
    refused(resummed(member(), 124, field) + END, "promises|no number")


def test_a_header_of_gigabytes_is_refused():
    refused(resummed(member(size=1 << 30), 156, b"x") + END, "its header has 1,073,741,824 bytes")
    refused(resummed(member(size=1 << 30), 156, b"L") + END, "its header has 1,073,741,824 bytes")


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"PK", "zip")],
)
def test_a_compressed_archive_is_refused_with_the_way_out(magic, name):
    refused(magic + bytes(range(256)) * 8, f"compressed with {name}. Unpack it first")


def test_every_flipped_bit_of_a_header_that_means_something_is_found():
    data = header("a.txt", 3, 1) + padded(b"one") + END
    expected = reader(data).member()
    for at in range(512):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            try:
                assert reader(bytes(flipped)).member() == expected, (at, bit)
            except CorruptDataError:
                continue


def names(data):
    tar, found = reader(data), []
    while (there := tar.member()) is not None:
        found.append(there.name)
    return found


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 600, 1023, 1024, 1535, 1536, 2047])
def test_an_archive_without_its_end_is_refused(cut):
    data = header("a.txt", 3) + padded(b"one") + END
    assert names(data) == ["a.txt"]
    with pytest.raises(CorruptDataError, match="cut short"):
        names(data[:cut])


def test_what_stands_behind_the_end_is_refused():
    data = header("a.txt", 0) + END
    with pytest.raises(CorruptDataError, match="archives that were glued together"):
        names(data + data)
