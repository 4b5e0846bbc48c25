from __future__ import annotations

import os

import pytest

import dataflow
from dataflow import LMDBSerializer, SVMLightData, TFRecordSerializer
from dataflow.errors import UsageError
from dataflow.serializers import table
from dataflow.sources.tfrecord_file import TFRecordRecords, TFRecordStream
from dataflow.testing import numbers

CLASSES = {
    ".arrow": "ArrowSerializer",
    ".feather": "ArrowSerializer",
    ".h5": "HDF5Serializer",
    ".hdf5": "HDF5Serializer",
    ".libsvm": "SVMLightData",
    ".lmdb": "LMDBSerializer",
    ".mdb": "LMDBSerializer",
    ".npz": "NumpySerializer",
    ".parquet": "ParquetSerializer",
    ".svm": "SVMLightData",
    ".svmlight": "SVMLightData",
    ".tar": "TarSerializer",
    ".tfrecord": "TFRecordSerializer",
    ".tfrecords": "TFRecordSerializer",
}
WRITTEN = [suffix for suffix, name in CLASSES.items() if name != "SVMLightData"]


@pytest.mark.parametrize("suffix", CLASSES)
def test_a_suffix_has_its_class(suffix):
    assert table.serializer_of(f"folder.d/x{suffix.upper()}") is getattr(dataflow, CLASSES[suffix])


def test_every_format_is_listed_in_order():
    assert list(table.FORMATS) == sorted(CLASSES)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_is_saved_by_a_suffix_is_loaded_by_it_in_its_order(tmp_path, suffix):
    if suffix in (".parquet", ".arrow", ".feather"):
        pytest.importorskip("pyarrow")
    path = tmp_path / f"x{suffix}"
    dataflow.save(numbers(5), path)
    df = dataflow.load(path)
    assert list(df) == [[0], [1], [2], [3], [4]]
    assert len(df) == 5


@pytest.mark.parametrize("suffix", WRITTEN)
def test_every_format_is_loaded_shuffled(tmp_path, suffix):
    if suffix in (".parquet", ".arrow", ".feather"):
        pytest.importorskip("pyarrow")
    path = tmp_path / f"x{suffix}"
    dataflow.save(numbers(30), path)
    rows = list(dataflow.load(path, shuffle=True, seed=1))
    assert sorted(rows) == [[number] for number in range(30)] != rows


@pytest.mark.parametrize("suffix", WRITTEN)
def test_every_class_tells_what_a_file_is_and_what_is_damaged(tmp_path, suffix):
    if suffix in (".parquet", ".arrow", ".feather"):
        pytest.importorskip("pyarrow")
    path = tmp_path / f"x{suffix}"
    dataflow.save(numbers(3), path)
    kind = table.serializer_of(path)
    told = kind.inspect(path)
    assert list(told)[:5] == ["format", "codec", "datapoints", "bytes", "checksums"]
    assert (told["datapoints"], told["bytes"]) == (3, os.path.getsize(path))
    seen = []
    assert list(kind.damages(path, on_record=lambda: seen.append(1))) == []
    assert len(seen) == 3


def test_a_folder_is_one_of_lmdb(tmp_path):
    dataflow.save(numbers(3), tmp_path)
    assert os.listdir(tmp_path) == ["data.mdb"]
    assert list(dataflow.load(tmp_path)) == [[0], [1], [2]]


def test_options_go_to_the_class(tmp_path):
    path = tmp_path / "x.lmdb"
    dataflow.save(numbers(3), path, serializer="pickle")
    with pytest.raises(UsageError, match="allow_pickle"):
        list(dataflow.load(path))
    assert list(dataflow.load(path, allow_pickle=True)) == [[0], [1], [2]]
    with pytest.raises(TypeError, match="colour"):
        dataflow.load(path, colour="red")


def test_a_tfrecord_file_is_read_by_its_index_where_there_is_one(tmp_path):
    path = tmp_path / "x.tfrecord"
    dataflow.save(numbers(3), path)
    assert isinstance(dataflow.load(path), TFRecordRecords)
    assert isinstance(dataflow.load(path, size=2), TFRecordStream)
    assert isinstance(dataflow.load(path, index=False), TFRecordStream)
    os.remove(f"{path}.index")
    assert isinstance(dataflow.load(path), TFRecordStream)


def test_an_svmlight_file_is_read_and_not_written(tmp_path):
    pytest.importorskip("sklearn")
    path = tmp_path / "x.svm"
    path.write_text("1 1:0.5\n")
    df = dataflow.load(path)
    assert isinstance(df, SVMLightData)
    assert [[x.tolist(), y] for x, y in df] == [[[0.5], 1.0]]
    with pytest.raises(UsageError, match=r"only read here; write one of .*\.lmdb, .*\.npz"):
        dataflow.save(numbers(3), tmp_path / "y.svm")


def test_the_first_of_several_paths_tells():
    assert table.serializer_of(["a-0.tfrecord", "a-1.tfrecord"]) is TFRecordSerializer
    assert table.serializer_of("memory://x.lmdb") is LMDBSerializer


@pytest.mark.parametrize("path", ["x.svm.gz", "memory://x.libsvm.BZ2"])
def test_a_packed_svmlight_file_is_one(path):
    assert table.serializer_of(path) is SVMLightData
    with pytest.raises(ValueError, match="cannot tell the format"):
        table.serializer_of("x.lmdb.gz")


def test_a_slash_at_the_end_is_named():
    with pytest.raises(ValueError, match=r"'out\.lmdb/' is no folder that exists: leave the slash at its end out"):
        dataflow.save(numbers(3), "out.lmdb/")


def test_shards_are_not_written_by_braces(tmp_path):
    with pytest.raises(ValueError, match="put a number into the name"):
        dataflow.save(numbers(3), tmp_path / "x-{0..2}.tar")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["x.txt", "x", ".lmdb", "memory://x.zip"])
def test_an_unknown_suffix_is_refused_with_those_that_are_known(path):
    with pytest.raises(
        ValueError, match=r"\.hdf5, \.libsvm, .*\.tfrecords\. Rename it, .* LMDBSerializer\.load\(path\)"
    ):
        dataflow.load(path)
    with pytest.raises(
        ValueError, match=r"\.hdf5, \.lmdb, .*\.npz, \.parquet, \.tar, .*LMDBSerializer\.save\(df, path\)"
    ):
        dataflow.save(numbers(3), path)


@pytest.mark.parametrize("path", [3, None, [3]], ids=str)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match="path must be a path, got"):
        dataflow.load(path)


def test_a_list_of_no_paths_is_said_to_be_empty():
    with pytest.raises(ValueError, match="path must be a path, or a list of the paths of tar files, got an empty list"):
        dataflow.load([])


@pytest.mark.parametrize("path", [[], ["x.tar"]], ids=str)
def test_a_list_is_only_read(path):
    with pytest.raises(TypeError, match="path must be a path, got a list"):
        dataflow.save(numbers(3), path)


def test_a_file_that_is_missing_needs_no_index_to_be_shuffled(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such TFRecord file: '.*typo\.tfrecord'"):
        dataflow.load(tmp_path / "typo.tfrecord", shuffle=True)
