"""The walk over the groups of Parquet and Arrow files: any order, no datapoint lost, each verified when that is due."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest

from dataflow import DataFromList
from dataflow.errors import CorruptDataError
from dataflow.testing import same

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from dataflow.serializers import parquet as writing  # noqa: E402  # loaded where pyarrow is
from dataflow.serializers.parquet import ArrowSerializer, ParquetSerializer  # noqa: E402
from dataflow.sources import parquet_groups as module  # noqa: E402

ROWS = [[np.full((4, 5), number, np.uint8), number, f"t{number}", b"x" * number] for number in range(20)]
BOTH = pytest.mark.parametrize("kind", [ParquetSerializer, ArrowSerializer])


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


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_flow_that_is_dropped_closes_its_file_at_once(path, kind, shuffle):
    save(kind, path)
    gc.disable()
    try:
        df = kind.load(path, shuffle)
        it = iter(df)
        next(it)
        dropped, table = weakref.ref(df), weakref.ref(df._opened().read)
        del df, it
        assert dropped() is None
        assert table() is None
    finally:
        gc.enable()


@BOTH
def test_each_of_two_passes_that_start_at_once_has_a_file_of_its_own(path, kind):
    save(kind, path)
    df = kind.load(path, False)
    len(df)
    both = threading.Barrier(2)
    opened = df._opened

    def together():
        table = opened()
        both.wait(10)
        return table

    df._opened = together
    with ThreadPoolExecutor(2) as pool:
        tables = [*pool.map(lambda _: df._own_table(), range(2))]
    assert tables[0] is not tables[1]
    del df._opened
    first = iter(df)
    assert same([next(first)], ROWS[:1])
    assert same(list(df), ROWS)
    assert same(list(first), ROWS[1:])


def rot(path):
    """Flip a bit in the first array with the number 7, as a medium that rots does: nothing else tells of it."""
    stat = os.stat(path)
    with open(path, "r+b") as file:
        at = file.read().index(bytes([7]) * 20)
        file.seek(at)
        file.write(bytes([6]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_off_reads_damaged_bytes_and_first_reads_them_once_they_are_verified(path, kind, shuffle):
    save(kind, path)
    first, always = (kind.load(path, shuffle, verify=how) for how in ("first", "always"))
    for df in (first, always):
        assert len(list(df)) == 20
    rot(path)
    damaged = {dp[1]: dp[0].flat[0] for dp in first}
    assert damaged == {number: number - (number == 7) for number in range(20)}
    assert {dp[1]: dp[0].flat[0] for dp in kind.load(path, shuffle, verify="off")} == damaged
    for df in (always, kind.load(path, shuffle)):
        with pytest.raises(CorruptDataError, match="checksum does not agree"):
            list(df)


@BOTH
def test_only_groups_that_were_read_whole_and_well_count_as_verified(path, kind):
    save(kind, path)
    df = kind.load(path, False)
    assert next(iter(df))[1] == 0
    rot(path)
    for _ in range(2):
        with pytest.raises(CorruptDataError, match="checksum does not agree"):
            list(df)


@BOTH
def test_a_file_that_has_changed_is_verified_again(path, kind):
    save(kind, path)
    df = kind.load(path, False)
    assert len(list(df)) == 20
    rot(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(CorruptDataError, match="checksum does not agree"):
        list(df)


@BOTH
def test_a_url_is_verified_in_each_pass_as_nobody_knows_whether_it_has_changed(kind):
    fs = pytest.importorskip("fsspec").filesystem("memory")
    url = f"memory://verified.{kind.__name__}"
    save(kind, url)
    df = kind.load(url, False)
    assert len(list(df)) == 20
    fs.pipe_file(url, fs.cat_file(url).replace(bytes([7]) * 20, bytes([6]) * 20))
    with pytest.raises(CorruptDataError, match="checksum does not agree"):
        list(df)
    fs.rm(url)


@BOTH
def test_an_unknown_way_to_verify_is_refused(path, kind):
    save(kind, path)
    with pytest.raises(ValueError, match="verify must be one of 'off', 'first', 'always', got 'on'"):
        kind.load(path, verify="on")
