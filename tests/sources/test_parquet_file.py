"""Parquet and Arrow files of every program, in order and shuffled; damaged ones are never a shorter pass."""

from __future__ import annotations

import datetime
import random
import sys
from itertools import islice

import numpy as np
import pytest

from dataflow import DataFromList
from dataflow.errors import CorruptDataError, UsageError
from dataflow.testing import check_dataflow, same

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from dataflow.serializers import parquet as writing  # noqa: E402  # loaded where pyarrow is
from dataflow.serializers.parquet import ArrowSerializer, ParquetSerializer  # noqa: E402
from dataflow.sources import parquet_file as module  # noqa: E402

ROWS = [[np.full((4, 5), number, np.uint8), number, f"t{number}", b"x" * number] for number in range(20)]
BOTH = pytest.mark.parametrize("kind", [ParquetSerializer, ArrowSerializer])
TABLE = pa.table(
    {
        "n": pa.array(range(10), pa.int32()),
        "list": [[float(n)] * n for n in range(10)],
        "struct": [{"a": n} for n in range(10)],
        "when": [datetime.date(2020, 1, 1 + n) for n in range(10)],
        "gaps": [None if n % 2 else "x" for n in range(10)],
    }
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.file")


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch):
    monkeypatch.setattr(writing, "PARQUET_BYTES", 150)
    monkeypatch.setattr(writing, "ARROW_BYTES", 150)


def save(kind, path, rows=ROWS):
    kind.save(DataFromList(rows, shuffle=False), path)


def write(kind, table, path, group=4):
    """Write a table as another program does, in groups."""
    if kind is ParquetSerializer:
        parquet.write_table(table, path, row_group_size=group)
    else:
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=group)


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_keeps_the_contract(path, kind, shuffle):
    save(kind, path, ROWS[:9])  # in groups of four and less
    check_dataflow(lambda: kind.load(path, shuffle), new_process=False)


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_of_other_programs_are_dicts(path, kind, shuffle):
    write(kind, TABLE, path)
    df = kind.load(path, shuffle)
    assert len(df) == 10
    assert sorted(df, key=lambda dp: dp["n"]) == TABLE.to_pylist()
    assert kind.inspect(path)["codec"] is None


@BOTH
def test_times_that_python_cannot_hold_are_refused_with_a_way_out(path, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # which has such times
    write(kind, pa.table({"t": pa.array([1, 2], pa.timestamp("ns")), "n": [1, 2]}), path)
    with pytest.raises(UsageError, match=r"nanoseconds, .* in column 't'\. Cast it to 'us'"):
        list(kind.load(path))
    assert list(kind.load(path, False, columns=["n"])) == [{"n": 1}, {"n": 2}]


def test_tensors_of_other_programs_are_arrays(path):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(24.0).reshape(4, 2, 3))
    write(ArrowSerializer, pa.table({"x": tensors}), path)
    for dp, expected in zip(ArrowSerializer.load(path, False), np.arange(24.0).reshape(4, 2, 3), strict=True):
        assert same(dp["x"], expected)


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("count", [3, 20])
def test_a_file_that_was_replaced_at_a_url_is_read_from_the_next_pass_on(kind, shuffle, count):
    fs = pytest.importorskip("fsspec").filesystem("memory")
    url = f"memory://{count}-{shuffle}.{kind.__name__}"
    save(kind, url, ROWS[:9])
    df = kind.load(url, shuffle)
    assert len(df) == len(list(df)) == 9
    running = iter(df)
    next(running)
    fs.rm(url)
    save(kind, url, ROWS[:count])
    assert sorted(dp[1] for dp in df) == list(range(count))
    assert len(df) == count
    assert len(list(running)) == 8
    fs.rm(url)


@BOTH
def test_only_some_columns_are_read(path, kind):
    write(kind, TABLE, path)
    assert list(kind.load(path, False, columns=["gaps", "n"]))[1] == {"gaps": None, "n": 1}
    with pytest.raises(ValueError, match="has no column 'm', only 'n', 'list'"):
        len(kind.load(path, columns=["m"]))
    with pytest.raises(TypeError, match="columns must be a list of names"):
        kind.load(path, columns="n")


@BOTH
def test_a_shuffled_pass_is_any_order_of_all(path, kind, monkeypatch):
    save(kind, path)
    for ahead in (1 << 28, 300, 1):
        monkeypatch.setattr(module, "AHEAD_BYTES", ahead)
        df = kind.load(path, seed=5)
        orders = [[dp[1] for dp in df] for _ in range(2)]
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
        assert orders[0] != orders[1]
        assert same([ROWS[n] for n in orders[0]], list(kind.load(path, seed=5)))


@BOTH
def test_arrays_are_private_and_can_be_written_to(path, kind):
    save(kind, path)
    for shuffle in (False, True):
        df = kind.load(path, shuffle)
        for dp in df:
            assert dp[0].flags.writeable
            assert dp[0].flags.aligned
        rows = list(df)
        for dp in rows[::2]:
            dp[0][:] = 99
        assert all(same(dp, ROWS[dp[1]]) for dp in rows[1::2])
        assert same(sorted(df, key=lambda dp: dp[1]), ROWS)


def test_small_batches_are_views_on_one_block_and_large_ones_are_copied(path, monkeypatch):
    monkeypatch.setattr(writing, "ARROW_BYTES", 1 << 14)
    save(ArrowSerializer, path, [[np.full(4096, number, np.uint8)] for number in range(8)])
    first, second = list(ArrowSerializer.load(path, False))[:2]
    assert first[0].base is second[0].base is not None
    monkeypatch.setattr(module, "_MOST_BLOCK", 1 << 13)
    first, second = list(ArrowSerializer.load(path, False))[:2]
    assert (first[0][0], second[0][0]) == (0, 1)
    assert first[0].base is second[0].base is None


@BOTH
def test_what_is_no_such_file_is_corrupt_data(path, kind):
    for data in (b"", b"PAR1", b"ARROW1", b"x" * 5000):
        with open(path, "wb") as file:
            file.write(data)
        with pytest.raises(
            CorruptDataError, match=r"x.file' is no (Parquet|Arrow) file, or a damaged .* Copy it again"
        ):
            len(kind.load(path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        kind.load(f"{path}.other")


@BOTH
@pytest.mark.parametrize("number", [0, 19], ids=["first", "last"])
def test_a_damaged_group_leaves_the_others_readable(path, kind, number):
    rows = [[number, f"text of {number}"] for number in range(20)]
    save(kind, path, rows)
    with open(path, "r+b") as file:
        file.seek(file.read().index(b"text of %d" % number))
        file.write(b"T")
    damaged = [found for found, _ in kind.damages(path)]
    assert number in damaged
    assert 0 < len(damaged) < 20
    df = kind.load(path, False)
    assert len(df) == 20
    it = iter(df)
    assert list(islice(it, damaged[0])) == rows[: damaged[0]]
    with pytest.raises(CorruptDataError, match=r"group \d, up to record"):
        next(it)


def test_batches_that_are_missing_at_the_end_are_missed_at_once(path):
    save(ArrowSerializer, path)
    with pa.OSFile(path) as file, pa.ipc.open_file(file) as reader:
        batches = [reader.get_batch_with_custom_metadata(number) for number in range(reader.num_record_batches - 1)]
        with pa.OSFile(f"{path}.cut", "wb") as cut, pa.ipc.new_file(cut, reader.schema) as writer:
            for batch, noted in batches:
                writer.write_batch(batch, custom_metadata=noted)
    with pytest.raises(CorruptDataError, match="batches at its end are missing"):
        len(ArrowSerializer.load(f"{path}.cut"))


def test_rows_that_unpack_to_a_thousand_times_their_size_are_refused(path, monkeypatch):
    monkeypatch.setattr(module, "_TRAP_BYTES", 1 << 20)
    parquet.write_table(pa.table({"x": np.zeros(1 << 20, np.int64)}), path, use_dictionary=False, compression="zstd")
    with pytest.raises(CorruptDataError, match=r"a group would unpack .*: a trap"):
        len(ParquetSerializer.load(path))


@BOTH
def test_rows_without_bytes_are_made_when_they_are_due_and_in_no_trap_of_an_order(path, kind, monkeypatch):
    monkeypatch.setattr(module, "_ORDER_BYTES", 1 << 16)
    write(kind, pa.table({"x": pa.nulls(100_000)}), path, group=100_000)
    df = kind.load(path, False)
    assert len(df) == 100_000
    assert next(iter(df)) == {"x": None}
    it = iter(df)
    for _ in range(5000):
        next(it)
    again = kind.load(path, False)
    again.load_state_dict(it.state_dict())
    assert sum(1 for _ in again) == 95_000
    with pytest.raises(CorruptDataError, match=r"order of its 100,000 rows would take .* shuffle=False"):
        len(kind.load(path, True))


@BOTH
def test_cuts_and_flips_are_found_or_change_nothing(path, kind):
    save(kind, path)
    with open(path, "rb") as file:
        good = file.read()
    draw = random.Random(11)
    cuts = [good[:cut] for cut in draw.sample(range(len(good)), 20)]
    flips = []
    for _ in range(60):
        flipped = bytearray(good)
        flipped[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        flips.append(flipped)
    found = 0
    for data in (*cuts, *flips):
        with open(path, "wb") as file:
            file.write(data)
        try:
            assert same(list(kind.load(path, False)), ROWS)
        except CorruptDataError:
            found += 1
    assert found > 50


@pytest.mark.parametrize(("kind", "name"), [(ParquetSerializer, b"dataflow"), (ArrowSerializer, b"dataflow")])
def test_a_note_under_a_damaged_name_is_not_the_file_of_another_program(path, kind, name):
    save(kind, path)
    with open(path, "rb") as file:
        good = file.read()
    with open(path, "wb") as file:
        file.write(good.replace(name, b"fataflow"))
    with pytest.raises(CorruptDataError, match="under the name b'fataflow': damaged"):
        len(kind.load(path))
