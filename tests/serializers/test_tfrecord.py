from __future__ import annotations

import os

import numpy as np
import pytest

from dataflow import BatchData, DataFromGenerator, DataFromList, RepeatedData, TFRecordSerializer, loads
from dataflow.errors import CorruptDataError, UsageError
from dataflow.sources.tfrecord_file import TFRecordRecords, TFRecordStream
from dataflow.testing import FailsAt, check_dataflow, numbers, same

IMAGES = [[np.full((4, 5, 3), number, np.uint8), number] for number in range(12)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.tfrecord")


@pytest.fixture
def images(path):
    TFRecordSerializer.save(DataFromList(IMAGES, shuffle=False), path)
    return path


def content(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("options", [{}, {"size": 12}, {"index": True}, {"copy": False}], ids=str)
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(IMAGES, id="lists with arrays"),
        pytest.param([{"x": np.arange(3.0), "name": "a"}, {"x": np.arange(5), "name": None}], id="dicts"),
        pytest.param([[[1, {"a": (2, b"3")}], 1 << 70], [np.float32(0.5), True]], id="nested"),
        pytest.param([["x" * 5000, b"y" * 1_000_000]], id="large"),
        pytest.param([[]], id="no components"),
    ],
)
def test_datapoints_come_back_bit_by_bit(path, rows, options):
    if "size" in options:
        options = {"size": len(rows)}
    TFRecordSerializer.save(DataFromList(rows, shuffle=False), path)
    df = TFRecordSerializer.load(path, **options)
    for _ in range(2):
        assert same(list(df), rows)


@pytest.mark.parametrize("serializer", ["dataflow", "msgpack-numpy", "pickle"])
def test_every_layout_is_read(path, serializer):
    TFRecordSerializer.save(DataFromList(IMAGES, shuffle=False), path, serializer=serializer)
    assert TFRecordSerializer.inspect(path)["codec"] == serializer
    assert same(list(TFRecordSerializer.load(path, allow_pickle=serializer == "pickle")), IMAGES)


def test_no_datapoints_make_an_empty_file(path):
    TFRecordSerializer.save(numbers(0), path)
    assert content(path) == content(f"{path}.index") == b""
    assert list(TFRecordSerializer.load(path, index=True)) == []


def test_keeps_the_contract(images):
    check_dataflow(
        lambda: BatchData(TFRecordSerializer.load(images, index=True, shuffle=True), 5, remainder=True),
        new_process=False,
    )


def test_the_file_is_a_row_of_frames_with_masked_checksums(path):
    # The record of [1] is made by hand, too: magic, length of the header, template ["list", "int"], value, no checksum.
    TFRecordSerializer.save(DataFromList([[1]], shuffle=False), path)
    data = content(path)
    size = int.from_bytes(data[:8], "little")
    assert len(data) == 12 + size + 4
    for start, stop in ((0, 8), (12, 12 + size)):
        crc = crc32c(data[start:stop])
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
        assert data[stop : stop + 4] == masked.to_bytes(4, "little")
    assert loads(data[12 : 12 + size]) == [1]


def crc32c(data):
    """Castagnoli's polynomial, bit by bit; of b"123456789" it is E3069283."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def test_our_own_crc32c_is_the_published_one():
    assert crc32c(b"123456789") == 0xE3069283


def test_the_index_has_offset_and_size_of_every_frame(path):
    TFRecordSerializer.save(DataFromList([["a"], ["b" * 10]], shuffle=False), path)
    first = 16 + int.from_bytes(content(path)[:8], "little")
    rest = os.path.getsize(path) - first
    assert content(f"{path}.index").decode() == f"0 {first}\n{first} {rest}\n"


def test_load_has_a_length_as_documented(images):
    assert isinstance(TFRecordSerializer.load(images), TFRecordStream)
    assert len(TFRecordSerializer.load(images, 5)) == 5
    assert len(TFRecordSerializer.load(images, index=True)) == 12
    assert isinstance(TFRecordSerializer.load(images, index=True, shuffle=True), TFRecordRecords)


def test_a_shuffled_pass_is_drawn_from_the_seed(images):
    first, second = (list(TFRecordSerializer.load(images, index=True, shuffle=True, seed=3)) for _ in range(2))
    assert same(first, second)
    assert [dp[1] for dp in first] != list(range(12))
    assert same(sorted(first, key=lambda dp: dp[1]), IMAGES)


def test_an_unknown_layout_is_refused(path):
    with pytest.raises(ValueError, match="serializer must be one of 'dataflow', 'msgpack-numpy', 'pickle', got 'json'"):
        TFRecordSerializer.save(numbers(3), path, serializer="json")


def test_options_that_exclude_each_other_are_refused(images):
    with pytest.raises(ValueError, match=r"shuffle=True needs index=True.*ShuffleData"):
        TFRecordSerializer.load(images, shuffle=True)
    with pytest.raises(ValueError, match="size=5 and index=True"):
        TFRecordSerializer.load(images, 5, index=True)
    with pytest.raises(TypeError, match="index must be True or False"):
        TFRecordSerializer.load(images, index="x.index")


def test_a_url_is_written_and_read_along_the_file():
    fs = pytest.importorskip("fsspec").filesystem("memory")
    url = "memory://test_tfrecord_save/x.tfrecord"
    TFRecordSerializer.save(DataFromList(IMAGES, shuffle=False), url)
    assert fs.ls("/test_tfrecord_save", detail=False) == ["/test_tfrecord_save/x.tfrecord"]
    assert same(list(TFRecordSerializer.load(url, size=12)), IMAGES)
    assert TFRecordSerializer.inspect(url)["index"] is False
    assert list(TFRecordSerializer.damages(url)) == []
    fs.rm("/test_tfrecord_save", recursive=True)


def test_a_file_url_is_a_path(tmp_path):
    TFRecordSerializer.save(numbers(3), f"file://{tmp_path}/x.tfrecord")
    assert sorted(os.listdir(tmp_path)) == ["x.tfrecord", "x.tfrecord.index"]
    assert list(TFRecordSerializer.load(f"file://{tmp_path}/x.tfrecord", index=True)) == [[0], [1], [2]]


# --- failures of save ---


def test_an_error_leaves_nothing_behind(path):
    with pytest.raises(KeyError):
        TFRecordSerializer.save(FailsAt(numbers(9), 5, KeyError("x")), path)
    assert os.listdir(os.path.dirname(path)) == []


def test_what_cannot_be_held_is_named_with_its_place_and_the_way_out(path):
    df = DataFromList([[1], [1, range(3)]], shuffle=False)
    with pytest.raises(TypeError, match=r"component 1: a value of type range.*serializer='pickle'") as info:
        TFRecordSerializer.save(df, path)
    assert "in TFRecordSerializer.save, datapoint 1" in info.value.__notes__
    TFRecordSerializer.save(df, path, serializer="pickle")
    assert list(TFRecordSerializer.load(path, allow_pickle=True)) == [[1], [1, range(3)]]


@pytest.mark.parametrize("name", ["x.tfrecord", "x.tfrecord.index"])
def test_neither_the_file_nor_an_index_is_overwritten(tmp_path, path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="remove it first") as info:
        TFRecordSerializer.save(FailsAt(numbers(3), 0, AssertionError("it ran")), path)
    assert info.value.filename == str(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_an_endless_flow_is_refused(path):
    with pytest.raises(UsageError, match="never ends"):
        TFRecordSerializer.save(RepeatedData(numbers(3), -1), path)


def test_a_flow_without_a_length_is_saved(path):
    TFRecordSerializer.save(DataFromGenerator(lambda: ([number] for number in range(3))), path)
    assert list(TFRecordSerializer.load(path, index=True)) == [[0], [1], [2]]


def test_a_file_without_its_index_is_whole(images):
    os.remove(f"{images}.index")
    assert same(list(TFRecordSerializer.load(images, index=True)), IMAGES)


def test_a_file_of_another_index_is_refused_with_the_way_out(images, tmp_path):
    TFRecordSerializer.save(numbers(3), tmp_path / "y.tfrecord")
    os.replace(tmp_path / "y.tfrecord.index", f"{images}.index")
    for df in (TFRecordSerializer.load(images), TFRecordSerializer.load(images, index=True)):
        with pytest.raises(CorruptDataError, match=r"is not the index of .*If the file is whole, remove the index"):
            list(df)
