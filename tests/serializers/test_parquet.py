"""ParquetSerializer and ArrowSerializer: what columns hold comes back exactly, all else is refused by its name."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dataflow import DataFromList, MapData
from dataflow.codec import columns
from dataflow.testing import FailsAt, numbers, same

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from dataflow.serializers import parquet as module  # noqa: E402  # loaded where pyarrow is
from dataflow.serializers.parquet import ArrowSerializer, ParquetSerializer  # noqa: E402

IMAGES = [[np.full((4, 5, 3), number, np.uint8), number] for number in range(12)]
BOTH = pytest.mark.parametrize("kind", [ParquetSerializer, ArrowSerializer])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.parquet")


def save(kind, rows, path, **options):
    kind.save(DataFromList(rows, shuffle=False), path, **options)


@BOTH
@pytest.mark.parametrize("group_bytes", [200, 1 << 20])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(IMAGES, id="images"),
        pytest.param([{"a": n, "b": str(n), "c": b"0" * n, "d": n / 7, "e": n == 0} for n in range(9)], id="dicts"),
        pytest.param([[None if n % 3 else n, None if n % 2 else "ä", None] for n in range(9)], id="none"),
        pytest.param([[-(1 << 63), float("nan"), -0.0, ""], [(1 << 63) - 1, 1e308, 5e-324, "\0"]], id="edges"),
        pytest.param([[np.float16(n), np.int8(-n), np.uint64(n), np.bool_(n)] for n in range(9)], id="numpy numbers"),
        pytest.param([[np.asfortranarray(np.arange(6.0).reshape(2, 3)) + n] for n in range(5)], id="by columns"),
        pytest.param([[np.array(n), np.zeros((0, 3)), np.arange(9)[n::-2][:1]] for n in range(5)], id="odd shapes"),
        pytest.param([[np.array([n], ">i4"), np.array(["ab"]), np.array([1j])] for n in range(3)], id="dtypes"),
        pytest.param([[np.array([n], "M8[s]"), np.array([n < 2])] for n in range(3)], id="times and bools"),
        pytest.param([[np.array([(n, 2.0)], "i4,f8")] for n in range(3)], id="fields"),
        pytest.param([], id="no datapoints"),
    ],
)
def test_datapoints_come_back_bit_by_bit(path, kind, rows, group_bytes, monkeypatch):
    monkeypatch.setattr(module, "PARQUET_BYTES", group_bytes)
    monkeypatch.setattr(module, "ARROW_BYTES", group_bytes)
    save(kind, rows, path)
    df = kind.load(path, shuffle=False)
    assert len(df) == len(rows)
    for _ in range(2):
        assert same(list(df), rows)
    assert same(sorted(kind.load(path), key=repr), sorted(rows, key=repr))
    assert list(kind.damages(path)) == []


@BOTH
@pytest.mark.parametrize("gap", [[], [[None, None]]], ids=["all", "beside None"])
def test_a_nan_keeps_its_bits(path, kind, gap):
    signaling = [np.array(0x7FA00001, "u4").view("f4")[()], np.array(0x7D01, "u2").view("f2")[()]]
    save(kind, [signaling, *gap, signaling], path)
    read = list(kind.load(path, shuffle=False))
    assert [value.tobytes() for value in read[-1]] == [value.tobytes() for value in signaling]
    assert read[1:-1] == gap
    assert same(list(map(type, read[0])), [np.float32, np.float16])


@BOTH
def test_a_component_that_is_none_in_the_whole_first_group_says_so(path, kind, monkeypatch):
    monkeypatch.setattr(module, "PARQUET_BYTES", 1)
    monkeypatch.setattr(module, "ARROW_BYTES", 1)
    with pytest.raises(TypeError, match=r"None in the whole first group of rows, and is int now\. Begin with a row"):
        save(kind, [[None], [1]], path)


@BOTH
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1], [object()]], r"dp\[0\]: it was int so far, and is object now.*LMDBSerializer"),
        ([[object()], [1]], r"dp\[0\]: a column holds bool, int, .* and this is a object"),
        ([{"a": 0}, {"a": 1 << 70}], r"dp\['a'\]: .*(too big|large)"),
        ([["a"], ["\ud800"]], r"dp\[0\]: .*surrogates"),
        ([[1], [True]], r"dp\[0\]: it was int so far, and is bool now"),
        ([[1], [np.int64(1)]], "it was int so far, and is int64 now"),
        ([[np.zeros(2)], [np.zeros(3)]], r"of shape \(2,\) and dtype float64 so far, and is an array of shape \(3,\)"),
        ([[np.zeros(2)], [np.zeros(2, "f4")]], "dtype float32 now"),
        ([[np.zeros(2)], [None]], "and is NoneType now"),
        ([[np.zeros((2, 2))], [np.zeros((2, 2), order="F")]], "float64, by columns now"),
        ([[np.array([None])], [1]], "an array of dtype object"),
        ([[1], [1, 2]], "every row of a table has the same components"),
        ([{"a": 1}, {"b": 1}], "every row of a table has the same components"),
        ([[1], {"0": 1}], "every row of a table has the same components"),
        ([{1: 1}, {1: 2}], "keys of str"),
        ([[], []], "not empty"),
        ([[(1,)], [1]], "this is a tuple"),
    ],
)
def test_what_columns_do_not_hold_is_refused_by_its_name(path, kind, rows, message):
    with pytest.raises(TypeError, match=message) as caught:
        save(kind, rows, path)
    assert caught.value.__notes__[0].startswith(f"in {kind.__name__}.save, datapoint ")
    assert not os.path.exists(path)


@BOTH
def test_arrays_beyond_what_a_column_holds_are_refused_by_their_name(path, kind, monkeypatch):
    with pytest.raises(TypeError, match=r"dp\[1\]: .*too large: a column holds arrays of up to 1 GiB and 63 dim.*LMDB"):
        save(kind, [[1, np.zeros((1,) * 64)]], path)
    monkeypatch.setattr(columns, "MOST_BYTES", 100)
    with pytest.raises(TypeError, match=r"dp\[1\]: an array of shape \(101,\) and dtype uint8, which is too large"):
        save(kind, [[1, np.zeros(101, np.uint8)]], path)
    save(kind, [[1, np.zeros(100, np.uint8)]], path)
    monkeypatch.setattr(columns, "MOST_BYTES", 99)
    with pytest.raises(ValueError, match=r"x\.parquet': .* of arrays that are larger than any"):
        len(kind.load(path))


@BOTH
def test_the_note_counts_datapoints_through_all_groups(path, kind, monkeypatch):
    monkeypatch.setattr(module, "PARQUET_BYTES", 16)
    monkeypatch.setattr(module, "ARROW_BYTES", 16)
    with pytest.raises(TypeError) as caught:
        save(kind, [*([n] for n in range(7)), ["x"], [8]], path)
    assert caught.value.__notes__ == [f"in {kind.__name__}.save, datapoint 7"]


@BOTH
def test_a_failed_save_leaves_nothing_behind(path, kind):
    with pytest.raises(KeyError, match="no"):
        kind.save(FailsAt(numbers(12), 9, KeyError("no")), path)
    assert not os.listdir(os.path.dirname(path))


@BOTH
def test_a_url_is_written_and_read(kind):
    pytest.importorskip("fsspec")
    url = f"memory://columns/{kind.__name__}"
    save(kind, IMAGES, url)
    assert same(list(kind.load(url, shuffle=False)), IMAGES)
    with pytest.raises(FileExistsError):
        save(kind, IMAGES, url)


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_compressed_files_come_back(path, compression):
    rows = [[np.zeros(1000), "x" * 100]] * 20
    save(ParquetSerializer, rows, path, compression=compression)
    assert os.path.getsize(path) < 20_000
    assert same(list(ParquetSerializer.load(path)), rows)


def test_other_programs_see_columns(path):
    save(ParquetSerializer, [{"x": np.array([1, 2], "<i2"), "y": n} for n in range(3)], path)
    assert parquet.read_table(path).to_pydict() == {"x": [b"\1\0\2\0"] * 3, "y": [0, 1, 2]}
    save(ArrowSerializer, [{"x": np.array([[1, 2]], "<i2"), "y": n} for n in range(3)], f"{path}.arrow")
    with pa.OSFile(f"{path}.arrow") as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.column("x").combine_chunks().to_numpy_ndarray().tolist() == [[[1, 2]]] * 3
    assert table.column("y").to_pylist() == [0, 1, 2]


@BOTH
def test_inspect_tells_what_a_file_is(path, kind):
    save(kind, IMAGES, path)
    told = kind.inspect(path)
    assert told["codec"] == "dataflow"
    assert (told["datapoints"], told["groups"], told["checksums"]) == (12, 1, "every record")
    assert list(told["columns"]) == ["0", "1"]


@BOTH
def test_damages_are_listed_and_what_is_behind_them_is_read(path, kind, monkeypatch):
    monkeypatch.setattr(module, "PARQUET_BYTES", 200)
    monkeypatch.setattr(module, "ARROW_BYTES", 200)
    save(kind, IMAGES, path)
    groups = kind.inspect(path)["groups"]
    with open(path, "r+b") as file:
        at = file.read().index(bytes([5]) * 60)
        file.seek(at)
        file.write(b"????")
    found = dict(kind.damages(path))
    assert 5 in found
    assert len(found) == 12 // groups
    assert "checksum does not agree" in found[5]
    with pytest.raises(ValueError, match=r"x.parquet', record"):
        list(kind.load(path))


def test_a_flow_of_unknown_length_is_written(path):
    ParquetSerializer.save(MapData(DataFromList(IMAGES, shuffle=False), lambda dp: dp if dp[1] % 2 else None), path)
    assert [dp[1] for dp in ParquetSerializer.load(path, shuffle=False)] == [1, 3, 5, 7, 9, 11]


def test_an_unknown_compression_is_refused(path):
    with pytest.raises(ValueError, match="compression must be one of"):
        save(ParquetSerializer, IMAGES, path, compression="rar")
