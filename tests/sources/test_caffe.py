"""CaffeLMDB: records as protobuf writes them, and records that it would not write."""

from __future__ import annotations

import struct

import cv2
import lmdb
import numpy as np
import pytest

from dataflow.errors import CorruptDataError, MissingKeyError
from dataflow.sources.caffe import CaffeLMDB
from dataflow.testing import check_dataflow

# What protobuf 7.36 makes of Datum(channels=3, height=2, width=2, data=bytes(range(12)), label=7), and of
# Datum(channels=1, height=1, width=2, float_data=[0.5, -2.0], label=-1).
GOLDEN = b'\x08\x03\x10\x02\x18\x02"\x0c\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b(\x07'
GOLDEN_FLOATS = b"\x08\x01\x10\x01\x18\x02(\xff\xff\xff\xff\xff\xff\xff\xff\xff\x015\x00\x00\x00?5\x00\x00\x00\xc0"


def varint(number):
    number &= (1 << 64) - 1
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def datum(channels=0, height=0, width=0, data=b"", label=0, **others):
    values = [channels, height, width, data, label]
    return b"".join(field(number, value) for number, value in enumerate(values, 1)) + others.get("more", b"")


@pytest.fixture
def write(tmp_path):
    """Write records with the keys 00000000, 00000001 and so on, as the tools of Caffe do."""

    def write(*records):
        path = str(tmp_path / "caffe.lmdb")
        env = lmdb.open(path, subdir=False, lock=False, map_size=1 << 24)
        with env.begin(write=True) as txn:
            for number, record in enumerate(records):
                txn.put(b"%08d" % number, record)
        env.close()
        return path

    return write


@pytest.fixture
def read(write):
    """Return the one datapoint of a file with one record."""
    return lambda record: next(iter(CaffeLMDB(write(record))))


@pytest.mark.parametrize("shuffle", [False, True])
def test_keeps_the_contract(write, shuffle):
    path = write(*(datum(1, 1, 2, bytes([number, 7]), number) for number in range(9)))
    check_dataflow(lambda: CaffeLMDB(path, shuffle), new_process=False)


def test_reads_what_protobuf_wrote(write):
    (image, label), (floats, negative) = CaffeLMDB(write(GOLDEN, GOLDEN_FLOATS), shuffle=False)
    assert image.tolist() == [[[0, 4, 8], [1, 5, 9]], [[2, 6, 10], [3, 7, 11]]]
    assert (image.dtype, image.flags.c_contiguous, image.flags.writeable, label) == (np.uint8, True, True, 7)
    assert floats.tolist() == [[[0.5], [-2.0]]]
    assert (floats.dtype, floats.flags.writeable, negative) == (np.float32, True, -1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 513])
def test_images_are_turned_from_planes_to_pixels(read, channels):
    planes = np.random.default_rng(channels).integers(0, 256, (channels, 5, 6), np.uint8)
    image, label = read(datum(channels, 5, 6, planes.tobytes(), 2**31 - 1))
    assert np.array_equal(image, planes.transpose(1, 2, 0))
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert label == 2**31 - 1


def test_floats_may_be_packed_or_not_and_many(read):
    values = np.random.default_rng(0).normal(size=(3, 20, 30)).astype("<f4")
    shape = datum(*values.shape, label=-(2**31))
    one_by_one = b"".join(b"\x35" + struct.pack("<f", value) for value in values.ravel()[600:])
    for floats in (
        field(6, values.tobytes()),
        field(6, values.ravel()[:600].tobytes()) + one_by_one,
        field(6, values.ravel()[:600].tobytes()) + one_by_one[:500] + field(5, 3) + one_by_one[500:],
    ):
        image, label = read(shape + floats)
        assert np.array_equal(image, values.transpose(1, 2, 0))
        assert image.dtype == np.float32
        assert label in (3, -(2**31))


def test_encoded_images_come_as_image_from_file_reads_them(write):
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0] = 255
    png = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    encoded = field(7, 1)
    df = CaffeLMDB(write(datum(data=png, label=5, more=encoded), datum(1, data=png, more=encoded)), shuffle=False)
    (image, label), (gray, _) = df
    assert np.array_equal(image, rgb)
    assert label == 5
    assert gray.shape == (4, 6, 1)


def test_fields_that_caffe_does_not_have_are_passed_over(read):
    others = field(8, 9) + field(9, b"text") + varint(10 << 3 | 1) + bytes(8) + varint(11 << 3 | 5) + bytes(4)
    image, label = read(others + datum(1, 1, 1, b"\x05", 4) + others)
    assert (image.tolist(), label) == ([[[5]]], 4)


def test_the_last_of_two_values_of_a_field_counts(read):
    image, label = read(datum(3, 9, 9, b"old", 1) + datum(1, 1, 1, b"\x05", 4))
    assert (image.tolist(), label) == ([[[5]]], 4)


def test_a_record_without_a_label_has_label_0(read):
    assert read(GOLDEN[:-2])[1] == 0


@pytest.mark.parametrize(
    ("record", "message"),
    [
        pytest.param(b"", "0 values for an image of 0 channels, 0 rows and 0 columns", id="empty"),
        pytest.param(datum(3, 2, 2, bytes(11)), "11 values for an image of 3 channels, 2 rows", id="pixel missing"),
        pytest.param(datum(3, 2, 2, bytes(13)), "13 values for an image of 3", id="pixel too many"),
        pytest.param(datum(-1, -1, 12, bytes(12)), "12 values for an image of -1 channels", id="negative size"),
        pytest.param(datum(2**31 - 1, 2**31 - 1, 4, b"1234"), "4 values for an image of 2,147,483,647", id="huge"),
        pytest.param(datum(0, 7, 7), "0 values for an image of 0 channels", id="no channel"),
        pytest.param(GOLDEN[:-1], "no number at byte 21", id="cut in a number"),
        pytest.param(GOLDEN[:15], "cut off at 15 bytes", id="cut in the data"),
        pytest.param(GOLDEN_FLOATS[:-2], "cut off at 25 bytes", id="cut in a float"),
        pytest.param(field(6, b"12345") + datum(1, 1, 1), "buffer size must be a multiple", id="half a float"),
        pytest.param(b"\x0b" + GOLDEN, "no field at byte 0", id="a group, which is no field any more"),
        pytest.param(b"\x22" + varint(2**64 - 1), "cut off at 11 bytes", id="length of 64 bits"),
        pytest.param(b"\xff" * 30, "no number at byte 0", id="number without an end"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "cut off at 8 bytes", id="another format"),
    ],
)
def test_a_damaged_record_is_an_error_with_file_and_key(write, record, message):
    df = CaffeLMDB(write(GOLDEN, record), shuffle=False)
    it = iter(df)
    next(it)
    with pytest.raises(CorruptDataError, match=rf"caffe\.lmdb', key b'00000001' holds no Datum: .*{message}"):
        next(it)


def test_a_damaged_encoded_image_is_an_error_with_file_and_key(read):
    jpeg = cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    for data in (jpeg[:-20], b"", b"no image"):
        with pytest.raises(CorruptDataError, match=r"caffe\.lmdb, key b'00000000'"):
            read(datum(data=data, more=field(7, 1)))


def test_no_bytes_make_it_raise_anything_else(write):
    rng = np.random.default_rng(0)
    records = []
    for number in range(2000):
        record = bytearray((GOLDEN, GOLDEN_FLOATS)[number % 2])
        record[rng.integers(len(record))] = rng.integers(256)
        records.append(bytes(record[: rng.integers(len(record) + 1)] if number % 3 else record))
    path = write(*records)
    outcomes = set()
    for number in range(2000):
        try:
            next(iter(CaffeLMDB(path, keys=[b"%08d" % number])))
            outcomes.add("read")
        except CorruptDataError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_keys_are_those_of_lmdb_data(write):
    path = write(*(datum(1, 1, 1, b"\0", number) for number in range(5)))
    assert [label for _, label in CaffeLMDB(path, False, ["00000003", b"00000001"])] == [3, 1]
    assert sorted(label for _, label in CaffeLMDB(path, keys="{:0>8d}")) == [0, 1, 2, 3, 4]
    assert len(CaffeLMDB(path)) == 5
    with pytest.raises(MissingKeyError, match="no key b'00000009'"):
        list(CaffeLMDB(path, keys=["00000009"]))


def test_shuffles_by_its_seed(write):
    path = write(*(datum(1, 1, 1, b"\0", number) for number in range(20)))
    orders = [[label for _, label in CaffeLMDB(path, seed=seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_a_missing_file_is_refused_at_construction(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such LMDB file"):
        CaffeLMDB(tmp_path / "nothing.lmdb")


def test_the_repr_shows_the_options(write):
    path = write(GOLDEN)
    assert repr(CaffeLMDB(path, False, "{:0>8d}")).endswith("caffe.lmdb', shuffle=False, keys='{:0>8d}')")
