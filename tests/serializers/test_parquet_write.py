"""Datapoints on their way into columns: what these do not hold is refused by its name."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dataflow import DataFromGenerator, DataFromList
from dataflow.codec import columns
from dataflow.testing import same

pytest.importorskip("pyarrow")

from dataflow.serializers import parquet as module  # loaded where pyarrow is
from dataflow.serializers import parquet_write
from dataflow.serializers.parquet import ArrowSerializer, ParquetSerializer
from dataflow.serializers.parquet_write import Columns

BOTH = pytest.mark.parametrize("kind", [ParquetSerializer, ArrowSerializer])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.parquet")


def save(kind, rows, path, **options):
    kind.save(DataFromList(rows, shuffle=False), path, **options)


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
        ([{"a\ud800": 1}, {"a\ud800": 2}], "keys of str, without surrogates"),
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


class Job:
    """A save of some rows."""

    def __init__(self, rows):
        self.rows = lambda: iter(rows)


@pytest.mark.parametrize(
    ("sizes", "most_bytes", "groups"),
    [
        pytest.param([5, 5, 5, 5], 10, [2, 2], id="by bytes"),
        pytest.param([9, 1, 1, 9, 30], 10, [2, 2, 1], id="by bytes, of several sizes"),
        pytest.param([1, 1, 1, 30, 30], 100, [3, 2], id="by rows"),
        pytest.param([], 10, [], id="nothing"),
    ],
)
def test_a_group_ends_behind_so_many_bytes_or_rows(sizes, most_bytes, groups, monkeypatch):
    monkeypatch.setattr(parquet_write, "MOST_ROWS", 3)
    table = Columns(Job([[b"x" * size] for size in sizes]), "save", tensors=False)
    found = list(table.groups(most_bytes))
    assert [len(rows) for rows, _ in found] == groups
    assert [is_last for _, is_last in found] == [number == len(groups) for number in range(1, len(groups) + 1)]


@BOTH
def test_rows_that_become_large_behind_a_group_of_small_ones_come_back(path, kind, monkeypatch):
    monkeypatch.setattr(parquet_write, "MOST_ROWS", 8)
    for name in ("PARQUET_BYTES", "ARROW_BYTES"):
        monkeypatch.setattr(module, name, 1000)
    rows = [[number, "x" * (400 * (number >= 8))] for number in range(30)]
    save(kind, rows, path)
    assert len(kind.load(path)) == 30
    assert kind.inspect(path)["groups"] == 9  # of 8, of 3 and so on, and of 1
    assert list(kind.load(path, shuffle=False)) == rows
    assert sorted(kind.load(path)) == rows


@BOTH
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_generator_may_use_one_list_and_one_array_for_all_datapoints(path, kind, order, monkeypatch):
    for name in ("PARQUET_BYTES", "ARROW_BYTES"):
        monkeypatch.setattr(module, name, 100)

    def generate():
        dp = [np.zeros((2, 3), order=order), 0]
        for number in range(20):
            dp[0][:] = dp[1] = number
            yield dp

    kind.save(DataFromGenerator(generate), path)
    assert same(list(kind.load(path, shuffle=False)), [[np.full((2, 3), float(n), order=order), n] for n in range(20)])


@BOTH
@pytest.mark.parametrize("key", ["dataflow: crc32c=", "dataflow: crc32c=00000000", "", "a.b", "\0"])
def test_a_key_may_be_any_text(path, kind, key):
    rows = [{key: number, "b": "x", f"{key}t": "y"} for number in range(3)]
    save(kind, rows, path)
    assert list(kind.load(path, shuffle=False)) == rows


@BOTH
@pytest.mark.parametrize("value", ["x" * 101, b"x" * 101])
def test_text_beyond_what_a_column_holds_is_refused_by_its_name(path, kind, value, monkeypatch):
    monkeypatch.setattr(columns, "MOST_BYTES", 100)
    with pytest.raises(
        TypeError, match=r"dp\['t'\]: (str|bytes) of 101, which is too large: .* LMDBSerializer"
    ) as caught:
        save(kind, [{"t": value[:1]}, {"t": value}], path)
    assert caught.value.__notes__ == [f"in {kind.__name__}.save, datapoint 1"]


@pytest.mark.parametrize("serializer", [ParquetSerializer, ArrowSerializer])
def test_a_buffer_that_is_filled_again_is_saved_as_it_was_beside_arrays_that_are_not_in_one_piece(serializer, tmp_path):
    def rows():
        buffer, wide = np.zeros((2, 3), np.int64), np.full((2, 6), 2, np.int64)
        for number in (0, 1):
            buffer[:] = number
            yield [buffer, np.array(number)]
        yield [wide[:, ::2], np.array(2)]
        buffer[:] = 3
        yield [buffer, np.array(3)]

    path = tmp_path / "x"
    serializer.save(DataFromGenerator(rows), path)
    found = [(array.tolist(), int(number)) for array, number in serializer.load(path, shuffle=False)]
    assert found == [([[number] * 3] * 2, number) for number in range(4)]
