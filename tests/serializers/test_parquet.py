"""ParquetSerializer and ArrowSerializer: what columns hold comes back exactly, all else is refused by its name."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dataflow import DataFromList, MapData
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
