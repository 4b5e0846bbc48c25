from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict, UserList
from pathlib import Path

import numpy as np
import pytest

from dataflow import dumps
from dataflow.sources import packed
from dataflow.sources.packed import Arrays, Numbers, Packed, Spans

COUNT = 3000  # more than one chunk


def columns_of(rows):
    return [type(column) for column in Packed(rows)._columns]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        pytest.param([{"path": f"{i}.jpg", "label": i} for i in range(COUNT)], [Spans, Numbers], id="dicts"),
        pytest.param([[i, i / 2, i % 2 == 0] for i in range(COUNT)], [Numbers] * 3, id="lists"),
        pytest.param([(i, b"x" * (i % 5)) for i in range(COUNT)], [Numbers, Spans], id="tuples"),
        pytest.param([np.full((2, 3), i, np.float32) for i in range(COUNT)], [Arrays], id="arrays alone"),
        pytest.param([i * 0.1 for i in range(COUNT)], [Numbers], id="numbers alone"),
        pytest.param([np.float32(i) for i in range(COUNT)], [Numbers], id="scalars of numpy"),
        pytest.param([[np.float64(0.5), np.longlong(3), np.bool_(1)]] * 2, [Numbers] * 3, id="more of them"),
        pytest.param([[np.zeros(100_000, np.uint8) + i] for i in range(30)], [Arrays], id="large arrays"),
        pytest.param([[float("nan")], [float("inf")], [-0.0]], [Numbers], id="special floats"),
        pytest.param([[np.zeros(2, ">i4")], [np.ones(2, ">i4")]], [Arrays], id="big-endian arrays"),
        pytest.param([["\u00e4"], ["\U0001f600"], [""]], [Spans], id="other text"),
        pytest.param([[None]] * 3, [Spans], id="None"),
        pytest.param([[1 << 70], [2]], [Spans], id="a large int"),
        pytest.param([[1], [True]], [Spans], id="int and bool"),
        pytest.param([[1], [1.0]], [Spans], id="int and float"),
        pytest.param([[np.zeros(2)], [np.zeros(3)]], [Spans], id="arrays of two shapes"),
        pytest.param([[np.zeros(2)], [np.zeros(2, np.int8)]], [Spans], id="arrays of two dtypes"),
        pytest.param([[np.zeros((2, 3), order="F")]] * 2, [Spans], id="arrays by columns"),
        pytest.param([[np.zeros((0, 3))]] * 2, [Spans], id="empty arrays"),
        pytest.param([[np.array(3)]] * 2, [Spans], id="arrays of no dimension"),
        pytest.param([{"box": [1, 2]}, {"box": {"x": (3,)}}], [Spans], id="nested"),
        pytest.param([{"a": 1, "b": 2}, {"b": 3, "a": 4}], [Spans], id="keys in another order"),
        pytest.param([{"a": 1, "b": 2}, {"a": 3}, {"b": 4, "a": 5}], [Spans], id="a key that is missing"),
        pytest.param([{"{}": 1, "'": 2, "\ud800": 3}] * 2, [Numbers] * 3, id="strange keys"),
        pytest.param([{1: 1}, {True: 1}], [Spans], id="keys that are equal"),
        pytest.param([[1], [1, 2]], [Spans], id="lists of two lengths"),
        pytest.param([[1], (1,), {"x": 1}, "text", None], [Spans], id="of everything"),
        pytest.param([[*range(1000)]] * 2, [Spans], id="long lists"),
        pytest.param([[], []], [Spans], id="empty lists"),
        pytest.param([{}, {}], [Spans], id="empty dicts"),
        pytest.param([], [Spans], id="nothing"),
    ],
)
def test_items_come_back_type_by_type(rows, columns):
    lst = Packed(rows)
    expected = [dumps(row) for row in rows]
    assert [dumps(row) for row in lst.rows(range(len(rows)))] == expected
    assert [dumps(lst[index]) for index in range(len(rows))] == expected
    assert columns_of(rows) == columns
    order = np.random.default_rng(1).permutation(len(rows))
    assert [dumps(row) for row in lst.rows(order)] == [expected[index] for index in order]


@pytest.mark.parametrize(
    "row",
    [
        OrderedDict(x=1),
        np.array([{1}, None], object),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, [("x", "i4"), ("y", "f8")]),
        np.timedelta64(3, "ms"),
        np.ma.masked_array([1, 2], [True, False]),
    ],
    ids=repr,
)
def test_less_common_items_come_back_too(row):
    (back,) = Packed([row]).rows(range(1))
    assert type(back) is type(row)
    assert pickle.dumps(back) == pickle.dumps(row)


def test_keys_that_are_only_equal_keep_their_types():
    rows = Packed([{"a": 1}, {np.str_("a"): 1}]).rows(range(2))
    assert [type(key) for row in rows for key in row] == [str, np.str_]


def test_items_have_a_number():
    rows = Packed([[5], [6]])
    assert len(rows) == 2
    assert [rows[0], rows[1], rows[-1]] == [[5], [6], [6]]
    with pytest.raises(IndexError):
        rows[2]


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((3, 2), order="F")], ids=["a column", "a pickle"])
def test_arrays_are_made_anew_each_time_and_are_writable(array):
    rows = Packed([[array], [array]])
    rows[0][0][:] = 7
    assert rows[0][0].tolist() == array.tolist()


@pytest.mark.parametrize("rows", [range(3), UserList([0, 1, 2]), np.arange(3)], ids=repr)
def test_any_sequence_will_do(rows):
    assert list(Packed(rows).rows(range(3))) == [0, 1, 2]


def test_columns_take_no_more_than_their_values():
    columns = Packed([{"name": "abc", "label": 7} for _ in range(1000)])._columns
    assert [column.nbytes for column in columns] == [3 * 1000 + 2 * 1001, 8 * 1000]


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        pytest.param([{"x": 1}, {"x": LOCK}], r"lst\[1\]\['x'\]", id="in a column"),
        pytest.param([[1]] * 2000 + [[[0, LOCK]]], r"lst\[2000\]\[0\]\[1\]", id="within a value"),
        pytest.param([[1], {"x": {"y": LOCK}}], r"lst\[1\]\['x'\]\['y'\]", id="among several layouts"),
        pytest.param([1, LOCK], r"lst\[1\]", id="alone"),
    ],
)
def test_what_cannot_be_pickled_is_named_with_its_place(rows, place):
    with pytest.raises(TypeError, match=f"^{place} is a lock and cannot be sent .* Take it out"):
        Packed(rows)


def test_functions_without_a_name_are_packed_by_value():
    rows = Packed([[lambda x: x + 1], [len]])
    assert [rows[0][0](1), rows[1][0]("ab")] == [2, 2]


SCRIPT = """
from dataclasses import dataclass
from dataflow import DataFromList, MapData, MultiProcessRunner

@dataclass
class Sample:
    number: int

class Outer:
    class Inner(Sample):
        pass

rows = [[Sample(1)], [Outer.Inner(2)]]
def seen(dp):
    return [dp[0] if type(dp[0]) is Sample else isinstance(dp[0], Outer.Inner)]

df = MapData(DataFromList(rows, shuffle=False, shared=True), seen)
with MultiProcessRunner(df, 10, 1, start_method="spawn") as df:
    (sample,), (is_inner,) = df
    print(sample, type(sample) is Sample, is_inner)
"""


@pytest.mark.slow
def test_classes_of_the_script_are_themselves_in_a_new_interpreter_and_back(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "Sample(number=1) True True\n"


def in_child(function):
    """Return the number that ``function`` returns in a forked child."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, str(function()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader) as file:
        return int(file.read())


def own_kib():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel does not tell")
def test_a_forked_child_that_reads_all_copies_nothing():
    rows = [{"path": f"{i:08d}.jpg", "box": (i, i + 1)} for i in range(50_000)]
    packed_rows = Packed(rows)

    def copied(it):
        before = own_kib()
        for row in it():
            assert row["box"]
        return own_kib() - before

    as_list = in_child(lambda: copied(lambda: iter(rows)))
    shared = in_child(lambda: copied(lambda: packed_rows.rows(range(len(rows)))))
    assert shared < 2000 < 8000 < as_list


def test_freed_memory_goes_back_to_the_system_once_before_a_fork(monkeypatch):
    trimmed = []

    class Libc:
        malloc_trim = trimmed.append

    Packed([[1], [2]])
    monkeypatch.setattr(packed.ctypes, "CDLL", lambda _: Libc)
    assert in_child(lambda: len(trimmed)) == in_child(lambda: len(trimmed)) == 1


def test_a_libc_that_cannot_give_memory_back_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    Packed([[1]])
    assert in_child(lambda: 5) == 5
