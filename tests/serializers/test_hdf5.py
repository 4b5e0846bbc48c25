"""HDF5Serializer: what is saved comes back exactly, or is refused when it is written; damage is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest

from dataflow import DataFromGenerator, DataFromList
from dataflow.errors import CorruptDataError, MissingKeyError, UsageError
from dataflow.serializers import hdf5_write as module
from dataflow.serializers.hdf5 import HDF5Serializer
from dataflow.sources.hdf5_file import HDF5Data
from dataflow.sources.hdf5_layout import ATTRIBUTE
from dataflow.testing import check_dataflow, same

IMAGES = [[np.full((4, 5, 3), number, np.uint8), number] for number in range(12)]
SCALARS = [[True, number, number / 2, number * 2j, np.float32(number), np.bool_(False)] for number in range(5)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.h5")


def save(rows, path, *args):
    HDF5Serializer.save(DataFromList(rows, shuffle=False), path, *args)
    return path


def read(path, *args):
    return list(HDF5Serializer.load(path, *args, shuffle=False))


# --- round trips ---


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(IMAGES, id="arrays and ints"),
        pytest.param(SCALARS, id="scalars"),
        pytest.param([tuple(dp) for dp in IMAGES], id="tuples"),
        pytest.param([{"image": image, "meta/label": label} for image, label in IMAGES], id="dicts"),
        pytest.param([{"äö 😀": 1}], id="a key beyond ASCII"),
        pytest.param([[np.array(5, np.int16), np.int16(5)]], id="no dimensions"),
        pytest.param([[np.zeros((2, 0, 3))], [np.zeros((2, 0, 3))]], id="no bytes"),
        pytest.param([[-(1 << 63)], [(1 << 63) - 1]], id="limits of int"),
        pytest.param([[float("nan")], [-0.0], [float("inf")]], id="special floats"),
        pytest.param([], id="no datapoints"),
    ],
)
def test_datapoints_come_back_as_they_were(path, rows):
    save(rows, path)
    assert same(read(path), rows)
    assert same(sorted(HDF5Serializer.load(path), key=repr), sorted(rows, key=repr))
    assert len(HDF5Serializer.load(path)) == len(rows)
    assert list(HDF5Serializer.damages(path)) == []


@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", ">i4", "<u8", "f2", ">f8", "c8", ">c16", "S5", "V5", [("a", "i1"), ("b", ">f8", (2,))]],
    ids=str,
)
def test_dtypes_come_back_bit_by_bit(path, dtype):
    dtype = np.dtype(dtype)
    lowest = 0 if dtype.kind == "b" else 1
    values = np.random.default_rng(0).integers(lowest, 2, (3, 4, dtype.itemsize), np.uint8).view(dtype)
    rows = [[array, array[0] if dtype.kind != "S" else 0] for array in values[..., 0]]
    save(rows, path)
    for dp, row in zip(read(path), rows, strict=True):
        assert same(dp, row)


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_long_doubles_come_back(path, dtype):
    rows = [[array, array[0]] for array in np.arange(12).reshape(3, 4).astype(dtype) / 7]
    for (array, scalar), row in zip(read(save(rows, path)), rows, strict=True):
        assert same(array, row[0])
        assert (type(scalar), scalar) == (dtype, row[1])  # of its bytes, six do not count


def test_payloads_of_nan_come_back(path):
    bits = np.array([0x7FF0000000000001, 0xFFF8DEADBEEF0001], np.uint64)
    save([[bits.view(np.float64), *bits.view(np.float64)]], path)
    ((array, *scalars),) = read(path)
    assert array.view(np.uint64).tolist() == [scalar.view(np.uint64) for scalar in scalars] == bits.tolist()


def test_arrays_in_any_order_come_back_in_c_order(path):
    array = np.arange(24).reshape(2, 3, 4)
    save([[array.transpose(2, 0, 1), array[:, ::-1]], [np.asfortranarray(array.transpose(2, 0, 1)), array]], path)
    (first, _) = read(path)
    assert np.array_equal(first[0], array.transpose(2, 0, 1))
    assert np.array_equal(first[1], array[:, ::-1])
    assert first[0].flags.c_contiguous


@pytest.mark.parametrize(("chunk", "buffer"), [(1, 1), (200, 500), (1 << 20, 1 << 22)])
@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
def test_rows_come_back_whatever_the_chunks(path, monkeypatch, chunk, buffer, known):
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
    monkeypatch.setattr(module, "_BUFFER_BYTES", buffer)
    df = DataFromList(IMAGES, shuffle=False) if known else DataFromGenerator(lambda: iter(IMAGES))
    HDF5Serializer.save(df, path)
    assert same(read(path), IMAGES)
    assert same(sorted(HDF5Serializer.load(path), key=lambda dp: dp[1]), IMAGES)


def test_a_row_larger_than_a_chunk_is_cut(path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_CHUNK_BYTES", 100)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 100)
    save(IMAGES, path)
    with h5py.File(path) as file:
        assert np.prod(file["0"].chunks) <= 100
    assert same(read(path), IMAGES)


@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
def test_other_programs_read_the_datasets(path, known):
    df = DataFromList(IMAGES, shuffle=False) if known else DataFromGenerator(lambda: iter(IMAGES))
    HDF5Serializer.save(df, path, ["images", "meta/labels"])
    with h5py.File(path) as file:
        assert file["images"].shape == (12, 4, 5, 3)
        assert file["images"][3].tolist() == IMAGES[3][0].tolist()
        assert file["meta/labels"][:].tolist() == list(range(12))


def test_paths_choose_components_as_lists(path):
    save([{"a": 1, "b": 2.5}], path)
    assert read(path, ["b"]) == [[2.5]]
    assert read(path, ["b", "a"]) == [[2.5, 1]]
    with pytest.raises(MissingKeyError, match="no dataset 'c'"):
        read(path, ["c"])


def test_files_of_others_are_read_by_their_paths(path):
    with h5py.File(path, "w") as file:
        file["x"] = [1, 2]
    assert read(path, ["x"]) == [[1], [2]]
    with pytest.raises(UsageError, match=r"not written by HDF5Serializer.*data_paths.*'x'"):
        read(path)


@pytest.mark.parametrize("shuffle", [False, True])
def test_keeps_the_contract(path, shuffle):
    save([[image, label, 0.5] for image, label in IMAGES], path)
    check_dataflow(lambda: HDF5Serializer.load(path, shuffle=shuffle), new_process=False)


# --- what is refused ---


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ([[1, None]], TypeError, "component 1: a value of type NoneType.*lmdb"),
        ([["text"]], TypeError, "component 0: a value of type str"),
        ([{"a": b"bytes"}], TypeError, "component 'a': a value of type bytes"),
        ([[np.bytes_(b"a\0")]], TypeError, "component 0: a value of type numpy.bytes_"),
        ([[[1, 2]]], TypeError, "component 0: a value of type list"),
        ([[np.zeros(2, object)]], TypeError, "component 0: an array of dtype object"),
        ([[np.zeros(2, "U3")]], TypeError, "dtype <U3, which HDF5 does not have"),
        ([[np.zeros(2, "M8[s]")]], TypeError, "which HDF5 does not have"),
        ([[np.zeros(2, [("r", "f4"), ("i", "f4")])]], TypeError, "which HDF5 does not have"),
        ([[np.ma.zeros(3)]], TypeError, "MaskedArray"),
        ([[1 << 63]], TypeError, "component 0: an int of more than 64 bits"),
        ([[1], [2.5]], TypeError, "component 0: a value of type float, and in the first datapoint one of type int"),
        ([[1], [True]], TypeError, "of type bool, and in"),
        ([[1], [np.int64(1)]], TypeError, "of type int64, and in"),
        ([[np.zeros(2)], [np.zeros(3)]], TypeError, r"component 0: shape \(3,\) .*\(2,\)"),
        ([[np.zeros(2)], [np.zeros(2, "f4")]], TypeError, "float32, where .* float64"),
        ([[1], [1, 2]], TypeError, "number of components is 2, and in the first datapoint 1"),
        ([[1], (1,)], TypeError, "first datapoint is of type list, and this one of type tuple"),
        ([{"a": 1}, {"b": 1}], TypeError, "has a component 'a', and here is none"),
        ([{1: 1}], TypeError, "a key of type int"),
        ([{"a": 1, "a/b": 1}], ValueError, "'a' cannot be the path"),
        ([{"a//b": 1}], ValueError, "cannot be the path"),
        ([{"": 1}], ValueError, "cannot be the path"),
        ([{"a\0": 1}], ValueError, "cannot be the path"),
        ([[]], TypeError, "without components"),
        ([np.zeros(3)], TypeError, "cannot save a datapoint of type ndarray to HDF5"),
    ],
)
def test_what_would_not_come_back_is_refused_and_leaves_nothing(path, rows, error, says):
    with pytest.raises(error, match=says) as caught:
        save(rows, path)
    assert f"in HDF5Serializer.save, datapoint {len(rows) - 1}" in caught.value.__notes__
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.parametrize(
    ("rows", "paths", "says"),
    [
        (IMAGES, ["a"], "names 1 datasets.*2 components"),
        (IMAGES, ["a", "/a"], "another is the same"),
        (IMAGES, ["a", "dataflow_checksums/0"], "where the checksums go. Rename it"),
        (IMAGES, ["a/b", "a"], "'a' cannot be .* begins with it"),
        ([{"a": 1}], ["a"], "leave it out"),
    ],
)
def test_paths_must_fit_the_datapoints(path, rows, paths, says):
    with pytest.raises(ValueError, match=says):
        save(rows, path, paths)


# --- damage ---

LOOP = """
import collections, json, random, signal, sys
import numpy as np
from dataflow import DataFromList
from dataflow.errors import CorruptDataError
from dataflow.serializers.hdf5 import HDF5Serializer
from dataflow.testing import same
path, rows = sys.argv[1], [[np.full((3, 40), number, np.uint8), number, number / 2] for number in range(20)]
HDF5Serializer.save(DataFromList(rows, shuffle=False), path)
whole, draw, seen = open(path, "rb").read(), random.Random(20), collections.Counter()
for attempt in range(150):
    data = bytearray(whole)
    if attempt % 3:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    else:
        del data[draw.randrange(len(data)) :]
    damaged = f"{path}.{attempt}"
    open(damaged, "wb").write(data)
    signal.alarm(5)
    try:
        found = list(HDF5Serializer.load(damaged, shuffle=attempt % 2 == 0))
        seen["same" if same(sorted(found, key=lambda dp: dp[1]), rows) else "other"] += 1
    except CorruptDataError as error:
        seen["named" if damaged in str(error) else "nameless"] += 1
print(json.dumps(seen))
"""


def test_truncated_and_flipped_files_are_damaged_or_the_same(path):
    done = subprocess.run([sys.executable, "-c", LOOP, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen) <= {"same", "named"}
    assert seen["named"] > 120


def test_damages_names_each_row_of_a_damaged_chunk(path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 120)
    save(IMAGES, path)
    with open(path, "r+b") as file:
        place = file.read().index(bytes([7]) * 60)
        file.seek(place)
        file.write(b"\0")
    calls = []
    found = list(HDF5Serializer.damages(path, on_record=lambda: calls.append(1)))
    assert [number for number, _ in found] == [6, 7]
    assert "dataset '0': the rows of a chunk and their checksum do not agree" in found[0][1]
    assert len(calls) == 12
    with pytest.raises(CorruptDataError, match=r"x\.h5', record 6: dataset '0'"):
        read(path)


def zeroed(path, data):
    """Replace a part of some data in a file by zeros."""
    with open(path, "r+b") as file:
        file.seek(file.read().index(data) + 100)
        file.write(bytes(1000))


def test_zeroed_arrays_are_damage_also_without_the_note_of_the_datapoints(path):
    save([[np.full(5000, 9, np.uint8)]], path)
    assert [dp[0].tolist() for dp in HDF5Data(path, ["0"])] == [[9] * 5000]
    zeroed(path, bytes([9]) * 5000)
    with pytest.raises(CorruptDataError, match="record 0"):
        list(HDF5Data(path, ["0"]))


def test_zeroed_numbers_are_damage_to_other_readers_too(path):
    save([[0x0707070707070707] for _ in range(1000)], path)
    zeroed(path, bytes([7]) * 8000)
    with h5py.File(path) as file, pytest.raises(OSError, match="filter"):
        file["0"][0]
    with pytest.raises(CorruptDataError, match="record 0"):
        list(HDF5Data(path, ["0"], shuffle=False))


@pytest.mark.parametrize("name", ["0", "/0", "./0", "0/"])
def test_damage_is_found_however_the_path_is_written(path, name):
    save([[np.full(5000, 9, np.uint8)]], path)
    zeroed(path, bytes([9]) * 5000)
    for df in HDF5Data(path, [name]), HDF5Serializer.load(path, [name]):
        with pytest.raises(CorruptDataError, match="record 0"):
            list(df)


@pytest.mark.parametrize(
    ("stored", "sums"), [({"compression": "gzip"}, True), ({}, True), ({"chunks": (12, 4, 5, 3)}, False)],
    ids=["compressed", "contiguous", "without checksums"],
)  # fmt: skip
def test_a_copy_that_is_stored_otherwise_is_read_by_its_paths(path, stored, sums):
    save(IMAGES, path, ["images", "labels"])
    copied = f"{path}.copy"
    with h5py.File(path) as file, h5py.File(copied, "w") as copy:
        copy.create_dataset("images", data=file["images"][:], **stored)
        for name in ["labels", "dataflow_checksums"][: 1 + sums]:
            file.copy(name, copy)
        copy.attrs.update(file.attrs)
    assert same([dp[0] for dp in HDF5Data(copied, ["images"], shuffle=False)], [dp[0] for dp in IMAGES])
    with pytest.raises(CorruptDataError, match=r"as its checksums say|no dataset"):
        read(copied)


def test_a_row_that_is_kept_does_not_keep_its_chunk(path):
    save([[np.full(512, number % 256, np.uint8)] for number in range(300)], path)
    for df in HDF5Data(path, ["0"]), HDF5Serializer.load(path):
        assert all(row.base is None or row.base.nbytes <= 512 for (row,) in df)


def test_damages_names_rows_that_are_lost(path):
    save([[number, 1.5] for number in range(1000)], path)
    with h5py.File(path, "r+") as file:
        file["0"].resize(900, axis=0)
        file["1"].resize(990, axis=0)
    assert list(HDF5Serializer.damages(path)) == [
        (900, "dataset '0' has 900 rows, and 1,000 were written"),
        (990, "dataset '1' has 990 rows, and 1,000 were written"),
    ]


def test_a_buffer_is_no_larger_than_what_is_written(path):
    rows = [[0] * 500] * 2
    tracemalloc.start()
    save(rows, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500 * module._CHUNK_BYTES / 4
    assert read(path) == rows


def noted(path, change):
    """Save two rows, and change what is noted about them."""
    save([[np.zeros(3), 1], [np.ones(3), 2]], path)
    with h5py.File(path, "r+") as file:
        note = json.loads(file.attrs[ATTRIBUTE])
        changed = change(note)
        file.attrs[ATTRIBUTE] = np.bytes_(changed if type(changed) is bytes else json.dumps(note).encode())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda note: note.update(version=9), "later dataflow", id="version"),
        pytest.param(lambda note: note.update(size=3), "has 2 rows, and 3 were written", id="lost rows"),
        pytest.param(lambda note: note.update(size=-1), "does not say", id="negative"),
        pytest.param(lambda note: note.update(datapoint="eval"), "does not say", id="container"),
        pytest.param(lambda note: note["components"][0].pop(), "damaged", id="short component"),
        pytest.param(lambda note: note["components"].append(5), "damaged", id="no component"),
        pytest.param(lambda note: note["components"][1].__setitem__(2, "float"), "noted 'float'", id="kind"),
        pytest.param(lambda note: note["components"][0].__setitem__(2, "int"), "noted 'int'", id="dimensions"),
        pytest.param(lambda note: note["components"][0].__setitem__(3, "1"), "as its checksums say", id="sums"),
        pytest.param(lambda note: note["components"][0].__setitem__(3, "none"), "no dataset 'none'", id="no sums"),
        pytest.param(lambda note: b"[" * 60_000, "damaged", id="nested"),
        pytest.param(lambda note: b"\xff{", "attribute 'dataflow_layout'", id="no text"),
    ],
)
def test_a_note_that_does_not_fit_is_damage(path, change, says):
    noted(path, change)
    with pytest.raises(CorruptDataError, match=says):
        len(HDF5Serializer.load(path))


def test_chunks_that_were_written_anew_are_damage(path):
    save([[np.zeros(300)], [np.ones(300)]], path)
    with h5py.File(path, "r+") as file:
        file["0"][1] = 2
    with pytest.raises(CorruptDataError, match="record 0"):
        read(path)


# --- the file ---


def test_an_existing_file_is_kept(path):
    save(IMAGES, path)
    with pytest.raises(FileExistsError):
        save(SCALARS, path)
    assert same(read(path), IMAGES)


def test_a_url_is_refused():
    with pytest.raises(UsageError, match="save it here"):
        save(IMAGES, "memory://x.h5")


FULL = """
import errno, resource, signal, sys
import numpy as np
from dataflow import DataFromList
from dataflow.serializers.hdf5 import HDF5Serializer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limit = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    HDF5Serializer.save(DataFromList([[np.full(1000, i)] for i in range(100)], shuffle=False), path)
except OSError as error:
    assert (error.errno, error.filename) == (errno.EFBIG, path), error
    print("refused")
"""


@pytest.mark.parametrize("limit", [0, 100_000, 801_000])
def test_a_full_disk_is_an_error_that_names_the_file_and_not_a_crash(path, limit):
    done = subprocess.run([sys.executable, "-c", FULL, path, str(limit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")
    assert os.listdir(os.path.dirname(path)) == []


def test_inspect_tells_what_there_is(path):
    save(IMAGES, path, ["images", "labels"])
    told = HDF5Serializer.inspect(path)
    assert json.loads(json.dumps(told)) == told
    assert told["format"] == "HDF5"
    assert (told["datapoints"], told["checksums"], told["bytes"]) == (12, "every chunk", os.path.getsize(path))
    assert told["datasets"]["images"]["shape"] == [12, 4, 5, 3]
    assert list(told["datasets"]) == ["images", "labels"]


def test_inspect_and_damages_take_files_of_others(path):
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = [1, 2, 3], [1, 2, 3]
        file["words"] = ["a"]
    told = HDF5Serializer.inspect(path)
    assert (told["datapoints"], told["checksums"]) == (3, "none")
    assert "variable length" in told["datasets"]["words"]["refused"]
    with pytest.raises(UsageError, match="variable length"):
        list(HDF5Serializer.damages(path))
