"""The readers of TFRecord files, on files whose bytes were made here and not by the writer."""

from __future__ import annotations

import gc
import os
import pickle
import struct

import google_crc32c
import msgpack
import numpy as np
import pytest

from dataflow import MapData, dumps
from dataflow.errors import CorruptDataError, UnknownLength, UsageError
from dataflow.sources import tfrecord_file
from dataflow.sources.tfrecord_file import TFRecordRecords, TFRecordStream
from dataflow.testing import check_dataflow, same

IMAGES = [[np.full((4, 5, 3), number, np.uint8), number] for number in range(12)]
# The file that tf.io.TFRecordWriter makes of one record, b"abc". The crc32c of its length is 576c35e3 and that of
# b"abc" is 364b3fb7; masked they are 0e4999b0 and 21f1576e.
GOLDEN = bytes.fromhex("0300000000000000 b099490e 616263 6e57f121")


def masked(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def frame(record):
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def write(path, records, index=True):
    frames = [frame(record) for record in records]
    path.write_bytes(b"".join(frames))
    ends = np.cumsum([len(part) for part in frames]).tolist()
    if index:
        lines = [f"{end - len(part)} {len(part)}\n" for part, end in zip(frames, ends, strict=True)]
        path.with_name(path.name + ".index").write_text("".join(lines))
    return str(path)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "x.tfrecord", map(dumps, IMAGES))


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


READERS = [
    pytest.param(TFRecordStream, {}, id="along the file"),
    pytest.param(TFRecordRecords, {}, id="by index, in order"),
    pytest.param(TFRecordRecords, {"shuffle": True}, id="by index, shuffled"),
]


@pytest.mark.parametrize(("reader", "options"), READERS)
def test_a_frame_that_was_made_by_hand_is_read(tmp_path, reader, options):
    (tmp_path / "x").write_bytes(GOLDEN)
    assert frame(b"abc") == GOLDEN
    assert list(reader(tmp_path / "x", decode=False, **options)) == [[b"abc"]]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(TFRecordStream, id="along the file"),
        pytest.param(lambda path: TFRecordStream(path, 12), id="of a size"),
        pytest.param(lambda path: TFRecordStream(path, 5, copy=False), id="of a smaller size, views"),
        pytest.param(lambda path: TFRecordStream(path, decode=False), id="bytes"),
        pytest.param(TFRecordRecords, id="by index"),
        pytest.param(lambda path: TFRecordRecords(path, True), id="shuffled"),
        pytest.param(lambda path: TFRecordRecords(path, True, verify="always", decode=False), id="shuffled bytes"),
    ],
)
def test_keeps_the_contract(path, make):
    check_dataflow(lambda: make(path), new_process=False)


@pytest.mark.slow
@pytest.mark.parametrize("make", [TFRecordStream, lambda path: TFRecordRecords(path, True)], ids=["stream", "index"])
def test_keeps_the_contract_in_a_new_process(path, make):
    check_dataflow(lambda: make(path))


@pytest.mark.parametrize("options", [{}, {"verify": "off"}, {"verify": "always"}, {"copy": False}], ids=str)
@pytest.mark.parametrize(("reader", "more"), READERS)
def test_datapoints_come_as_they_were_any_number_of_times(path, reader, more, options):
    df = reader(path, **options, **more)
    for _ in range(2):
        rows = sorted(df, key=lambda dp: dp[1])
        assert same(rows, IMAGES)
        assert rows[0][0].flags.writeable == options.get("copy", True)
        assert rows[0][0].ctypes.data % 16 == 0


def test_the_bytes_of_other_programs_are_handed_on(tmp_path):
    records = [b"\x0a\x07\x0a\x05\x0a\x01a\x12\x00", b"", bytes(100_000)]
    path = write(tmp_path / "x", records)
    assert [dp[0] for dp in TFRecordStream(path, decode=False)] == records
    with pytest.raises(CorruptDataError, match=r"record 0 at byte 0: .*decode=False"):
        list(TFRecordStream(path))


def test_what_tensorpack_wrote_is_read(tmp_path):
    path = write(tmp_path / "x", [msgpack.packb([1, {"a": "b"}]), pickle.dumps([2, "c"])])
    assert list(TFRecordStream(path, allow_pickle=True)) == [[1, {"a": "b"}], [2, "c"]]
    for df in (TFRecordStream(path), TFRecordRecords(path), TFRecordRecords(path, True, seed=1)):
        with pytest.raises(UsageError, match="allow_pickle=True") as info:
            list(df)
        assert sum("record 1" in note for note in info.value.__notes__) == 1


def test_the_length_is_the_size_or_that_of_the_index(path):
    assert len(TFRecordStream(path, 5)) == 5
    assert len(TFRecordRecords(path)) == 12
    with pytest.raises(UnknownLength, match="pass size=, or index=True"):
        len(TFRecordStream(path))


def test_a_size_ends_the_pass_and_is_kept_by_the_file(path):
    assert same(list(TFRecordStream(path, 3)), IMAGES[:3])
    assert list(TFRecordStream(path, 0)) == []
    with pytest.raises(CorruptDataError, match=r"record 12 at byte [\d,]+: the file ends here, and 13 records"):
        list(TFRecordStream(path, 13))


def test_a_file_without_an_index_is_read_through_once(tmp_path):
    path = write(tmp_path / "x", [b"a", b"", b"ccc"], index=False)
    df = TFRecordRecords(path, True, decode=False, seed=1)
    assert len(df) == 3
    assert sorted(df) == [[b""], [b"a"], [b"ccc"]]


def test_an_empty_file_is_an_empty_flow(tmp_path):
    path = write(tmp_path / "x", [])
    for df in (TFRecordStream(path), TFRecordStream(path, 0), TFRecordRecords(path), TFRecordRecords(path, True)):
        assert list(df) == []


def test_a_url_is_read_along_the_file(tmp_path):
    fs = pytest.importorskip("fsspec").filesystem("memory")
    with open(write(tmp_path / "x", map(dumps, IMAGES)), "rb") as file:
        fs.pipe("/test_tfrecord", file.read())
    check_dataflow(lambda: TFRecordStream("memory://test_tfrecord", 12), new_process=False)
    assert same(list(TFRecordStream("memory://test_tfrecord")), IMAGES)
    with pytest.raises(UsageError, match="along the file only: copy it to this machine"):
        TFRecordRecords("memory://test_tfrecord")
    fs.rm("/test_tfrecord")


# --- positions ---


def test_a_state_says_where_the_next_record_begins(path):
    df = TFRecordStream(path)
    it = iter(df)
    for _ in range(3):
        next(it)
    size = len(frame(dumps(IMAGES[0])))
    assert df.state_dict()["at"] == {"pass": [0], "index": 3, "offset": 3 * size}
    flip(path, 20)  # what is behind need not be read again
    other = TFRecordStream(path)
    other.load_state_dict(df.state_dict())
    assert same(list(other), IMAGES[3:])


def test_a_state_of_a_larger_file_is_refused(path):
    df = TFRecordStream(path)
    list(zip(df, range(9), strict=False))
    state = df.state_dict()
    os.truncate(path, 100)
    df.load_state_dict(state)
    with pytest.raises(UsageError, match="replaced by a smaller file"):
        iter(df)


def test_an_abandoned_pass_leaves_no_file_open(path):
    before = len(os.listdir("/proc/self/fd"))
    for df in (TFRecordStream(path), TFRecordRecords(path), TFRecordRecords(path, True)):
        next(iter(df))
        df.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


# --- damage ---


@pytest.mark.parametrize(("reader", "options"), READERS)
def test_any_flipped_bit_is_found_in_its_record(tmp_path, reader, options):
    records = [bytes([number]) * 5 for number in range(3)]
    path = write(tmp_path / "x", records)
    for offset in range(3 * 21):
        flip(path, offset)
        number = offset // 21
        with pytest.raises(CorruptDataError, match=rf"/x', record {number} at byte {number * 21}: "):
            list(reader(path, decode=False, **options))
        flip(path, offset)
    assert sorted(reader(path, decode=False, **options)) == [[record] for record in records]


@pytest.mark.parametrize(("reader", "options"), [*READERS, pytest.param(TFRecordStream, {"size": 3}, id="of a size")])
@pytest.mark.parametrize("index", [True, False], ids=["with an index", "without"])
def test_a_file_that_is_cut_short_anywhere_is_no_shorter_pass(tmp_path, reader, options, index):
    path = write(tmp_path / "x", [b"aaaaa", b"bbbbb", b"ccccc"], index)
    for size in reversed(range(3 * 21)):
        os.truncate(path, size)
        if not index and not size % 21 and "size" not in options:
            assert len(list(reader(path, decode=False, **options))) == size // 21  # nothing can tell
            continue
        with pytest.raises(CorruptDataError, match=r"/x.*(cut short|is not the index of)"):
            list(reader(path, decode=False, **options))


@pytest.mark.parametrize(("reader", "options"), READERS)
def test_off_reads_damaged_bytes_and_first_reads_them_once_they_are_verified(tmp_path, reader, options):
    path = write(tmp_path / "x", [b"aaaaa", b"bbbbb"])
    first, always = (reader(path, verify=how, decode=False, **options) for how in ("first", "always"))
    list(first)
    stat = os.stat(path)
    flip(path, 12)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a medium that rots leaves it
    assert sorted(first) == [[b"`aaaa"], [b"bbbbb"]]
    assert sorted(reader(path, verify="off", decode=False, **options)) == [[b"`aaaa"], [b"bbbbb"]]
    with pytest.raises(CorruptDataError, match="checksum do not agree"):
        list(always)


def test_a_file_that_has_changed_is_verified_again(tmp_path):
    path = write(tmp_path / "x", [b"aaaaa"])
    df = TFRecordStream(path, decode=False)
    list(df)
    flip(path, 12)
    os.utime(path, ns=(0, 0))
    with pytest.raises(CorruptDataError, match="checksum do not agree"):
        list(df)


def test_a_length_beyond_the_file_takes_no_memory(tmp_path):
    length = struct.pack("<Q", 1 << 62)
    (tmp_path / "x").write_bytes(length + masked(length) + bytes(100))
    for df in (TFRecordStream(tmp_path / "x"), TFRecordRecords(tmp_path / "x")):
        with pytest.raises(CorruptDataError, match="record 0 at byte 0: the file is cut short: it ends at byte 112"):
            list(df)


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path):
    path = write(tmp_path / "x", [bytes(1 << 20)] * 3)
    for df in (TFRecordStream(path, decode=False), TFRecordRecords(path, True, decode=False)):
        with open(path, "rb") as file:
            whole = file.read()
        it = iter(df)
        next(it)
        os.truncate(path, 100)
        with pytest.raises(CorruptDataError, match=r"/x', record \d"):
            list(it)
        with open(path, "wb") as file:
            file.write(whole)


def test_a_file_that_is_shorter_than_its_index_says_is_cut_short(tmp_path):
    path = write(tmp_path / "x", [b"aaaaa", b"bbbbb"])
    (tmp_path / "x.index").write_text("0 21\n21 21\n42 21\n")
    for kind in (TFRecordStream, TFRecordRecords):
        with pytest.raises(
            CorruptDataError, match=r"x' is cut short: it has 42 bytes, and 63 by .*x\.index'\. Copy it"
        ):
            list(kind(path, decode=False))


@pytest.mark.parametrize(
    "index",
    [
        pytest.param("", id="empty"),
        pytest.param("0 21\n", id="too few"),
        pytest.param("0 21\n21 -1\n20 22\n", id="a negative size"),
        pytest.param("0 21\n21 20\n", id="a gap"),
        pytest.param("5 21\n26 16\n", id="not from the start"),
        pytest.param("0 42\n42 0\n", id="a frame of no size"),
        pytest.param("-21 21\n0 42\n", id="negative"),
        pytest.param("0 21\n21\n", id="half a line"),
        pytest.param("0 21\n21 x\n", id="no number"),
        pytest.param(f"0 21\n21 {10**30}\n", id="a huge number"),
    ],
)
def test_an_index_that_does_not_fit_is_refused_with_the_way_out(tmp_path, index):
    path = write(tmp_path / "x", [b"aaaaa", b"bbbbb"])
    (tmp_path / "x.index").write_text(index)
    with pytest.raises(CorruptDataError, match=r"x\.index' is not the index of .*remove the index"):
        len(TFRecordRecords(path))


@pytest.mark.parametrize("index", ["0 42\n", "0 16\n16 26\n", "0 26\n26 16\n"], ids=str)
def test_an_index_of_other_frames_is_found_out(tmp_path, index):
    path = write(tmp_path / "x", [b"aaaaa", b"bbbbb"])
    (tmp_path / "x.index").write_text(index)
    with pytest.raises(CorruptDataError, match=r"/x', record \d at byte \d+: "):
        list(TFRecordRecords(path, True, decode=False))


def test_an_index_of_fewer_frames_makes_no_shorter_pass(tmp_path):
    path = write(tmp_path / "x", [b"aaaaa", b"bbbbb"])
    (tmp_path / "x.index").write_text("0 42\n")
    with pytest.raises(CorruptDataError, match="the file goes on behind the last record of its index"):
        list(TFRecordRecords(path, decode=False))


def test_a_record_too_large_to_be_read_at_once_is_read(path, monkeypatch):
    monkeypatch.setattr(tfrecord_file, "_MOST_AT_ONCE", 50)
    assert same(sorted(TFRecordRecords(path, True), key=lambda dp: dp[1]), IMAGES)


# --- arguments ---


@pytest.mark.parametrize("reader", [TFRecordStream, TFRecordRecords])
def test_wrong_arguments_are_refused_at_construction(path, reader):
    with pytest.raises(FileNotFoundError, match="no such TFRecord file"):
        reader(f"{path}.nowhere")
    with pytest.raises(ValueError, match="verify must be one of 'off', 'first', 'always', got 'on'"):
        reader(path, verify="on")
    with pytest.raises(TypeError, match="decode must be True or False"):
        reader(path, decode=None)


def test_a_size_is_a_number(path):
    with pytest.raises(ValueError, match="size must be an integer of at least 0, got -1"):
        TFRecordStream(path, -1)


def test_errors_of_the_consumer_are_not_about_the_file(path):
    def fail(dp):
        raise KeyError("x")

    with pytest.raises(KeyError) as info:
        list(MapData(TFRecordStream(path), fail))
    assert not any("tfrecord" in note for note in info.value.__notes__)
