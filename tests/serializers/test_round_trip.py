"""What is saved comes back bit for bit, in every format; what a format cannot hold is refused when it is written."""

from __future__ import annotations

import os
import pathlib
import re
import struct
import tempfile
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import dataflow
from dataflow import DataFromList, dumps, loads

# Their files hold records of the codec: whatever dumps holds, and whatever the others of a flow look like.
RECORDS = ["lmdb", "npz", "tfrecord", "tar"]
# Their files hold columns: the same kind of value in every datapoint.
COLUMNS = ["h5", "parquet", "arrow"]

# The bytes of a longdouble that mean something.
LONGDOUBLE = 10 if np.finfo(np.longdouble).nmant == 63 else np.dtype(np.longdouble).itemsize

FIELDS = np.dtype([("x", "<i4"), ("y", ">f8", (2,)), ("when", "M8[s]"), ("name", "U3")])
ALIGNED = np.dtype([("a", "i1"), ("b", "i4")], align=True)
NAN = struct.unpack("<d", bytes.fromhex("01efbeaddeadf87f"))[0]

ARRAYS = {
    **{f"dtype {np.dtype(code)}": np.array([0, 1, 1], code) for code in "?bBhHiIlLefdgFDG"},
    "NaN with a payload": np.array([0x7FF8DEADBEEF0001], "u8").view("f8"),
    "NaN with a payload, float32": np.array([0x7FC0BEEF], "u4").view("f4"),
    "big-endian": np.arange(3, dtype=">i4"),
    "datetime64": np.array(["2020-02-29", "NaT"], "M8[ns]"),
    "datetime64 of days": np.array(["2020-02-29", "NaT"], "M8[D]"),
    "datetime64 of 25 s": np.arange(3).astype("M8[25s]"),
    "timedelta64": np.arange(3).astype("m8[D]"),
    "text": np.array(["", "hé", "猫"]),
    "bytes": np.array([b"", b"ab\0c"]),
    "raw bytes": np.frombuffer(b"abcde12345", "V5"),
    "fields": np.ones(3, FIELDS),
    "aligned fields": np.zeros(3, ALIGNED),
    "records": np.ones(3, np.dtype((np.record, ALIGNED))),
    "no elements": np.zeros((0, 3), "f4"),
    "no dimension": np.array(7, "i2"),
    "many dimensions": np.arange(2).reshape((1,) * 15 + (2,) + (1,) * 16),
    "Fortran order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "read-only": np.broadcast_to(np.int8(1), (3,)),
}
VALUES = {
    "bool": True,
    "int": 7,
    "int of 64 bits": -(2**63),
    "int of 65 bits": 2**64,
    "float": 0.1,
    "minus zero": -0.0,
    "NaN with a payload as a float": NAN,
    "complex": complex(-0.0, NAN),
    "None": None,
    "str": "hé猫\0",
    "no str": "",
    "half of a surrogate pair": "\udc80",
    "binary": b"\0\xff\0",
    "no binary": b"",
    "bytearray": bytearray(b"a\0"),
    **{
        f"numpy.{code}": np.ones(1, code)[0] for code in ("?", "u1", "i8", "f2", "f4", "f8", "g", "F", "M8[s]", "m8[D]")
    },
    "numpy.str_": np.str_("a\0"),
    "numpy.bytes_": np.bytes_(b"a\0"),
    "numpy.void": np.void(b"abc"),
    "one of fields": np.ones(1, FIELDS)[0],
    "tuple": (1, (2,), ()),
    "list": [1, [2], []],
    "dict": {"a": 1, "b": {"c": (1, 2)}},
    "dict of int and tuple keys": {5: 1, (1, ("a", None)): 2, 2**70: 3},
    "empty containers": [[], (), {}, set(), frozenset()],
    "set": {1, 2},
}
HELD = {**ARRAYS, **VALUES}
NOT_HELD = {
    "object array": np.array([None, 1]),
    "object field": np.zeros(1, [("a", object)]),
    "masked array": np.ma.zeros(2),
    "object": object(),
    "function": len,
}


def exactly(dp: Any) -> bytes:
    """Return what is equal only for values that are the same bit for bit, type by type."""
    return dumps(dp)


def nearly(value: Any) -> Any:
    """Return a datapoint as formats of columns keep it: arrays in C order, and no bytes that fill up a longdouble."""
    if isinstance(value, list | tuple):
        return type(value)(map(nearly, value))
    if isinstance(value, dict):
        return {key: nearly(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.type in (np.longdouble, np.clongdouble):
        parts = np.ascontiguousarray(value).view(np.longdouble).reshape(-1, 1).view("u1")[:, :LONGDOUBLE]
        return type(value).__name__, value.dtype.str, value.shape, parts.tobytes()
    return value.copy("C") if isinstance(value, np.ndarray) else value


def by_name(table: dict[str, Any]) -> list[Any]:
    return [pytest.param(value, id=name) for name, value in table.items()]


def saved_and_loaded(rows: list[Any], suffix: str) -> list[Any]:
    with tempfile.TemporaryDirectory(prefix="round-trip-") as folder:
        path = os.path.join(folder, f"x.{suffix}")
        dataflow.save(DataFromList(rows, shuffle=False), path)
        with dataflow.load(path) as df:
            return list(df)


def comes_back_or_is_refused(rows: list[Any], suffix: str) -> bool:
    """Say whether rows came back; if not, they were refused with the name of a component."""
    try:
        loaded = saved_and_loaded(rows, suffix)
    except (TypeError, ValueError) as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        assert re.search(r"component|dp\[|datapoint", text), text
        return False
    assert [exactly(nearly(dp)) for dp in loaded] == [exactly(nearly(dp)) for dp in rows]
    return True


# Everything, once.


@pytest.mark.parametrize("suffix", RECORDS)
def test_everything_comes_back_bit_for_bit(suffix):
    rows = [*([value] for value in HELD.values()), *({"key": value} for value in HELD.values())]
    loaded = saved_and_loaded(rows, suffix)
    assert len(loaded) == len(rows)
    for value, dp in zip(rows, loaded, strict=True):
        assert exactly(dp) == exactly(value)


@pytest.mark.parametrize("suffix", COLUMNS)
@pytest.mark.parametrize("value", by_name(HELD))
def test_a_column_comes_back_bit_for_bit_or_is_refused_by_its_name(value, suffix):
    comes_back_or_is_refused([[1, value], [2, value]], suffix)
    comes_back_or_is_refused([{"first": 1, "second": value}], suffix)


NATIVE = ["dtype bool", "dtype uint8", "dtype int64", "dtype float32", "dtype float64", "NaN with a payload", "bool",
          "int", "float", "minus zero", "numpy.u1", "numpy.f4"]  # fmt: skip


@pytest.mark.parametrize("suffix", COLUMNS)
@pytest.mark.parametrize("name", NATIVE)
def test_columns_hold_numbers_and_arrays_of_them(name, suffix):
    assert comes_back_or_is_refused([[number, HELD[name]] for number in range(3)], suffix)


@pytest.mark.parametrize("suffix", [*RECORDS, *COLUMNS])
@pytest.mark.parametrize("value", by_name(NOT_HELD))
def test_what_no_format_holds_is_a_type_error_that_names_the_component(tmp_path, value, suffix):
    path = tmp_path / f"x.{suffix}"
    with pytest.raises(TypeError, match=r"component 1\b|dp\[1\]"):
        dataflow.save(DataFromList([[1, value]], shuffle=False), path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [*RECORDS, *COLUMNS])
def test_a_flow_of_nothing_comes_back_as_nothing(suffix):
    assert saved_and_loaded([], suffix) == []


# Whatever there may be.

DTYPES = hnp.scalar_dtypes() | hnp.array_dtypes(hnp.scalar_dtypes(), max_size=3)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
LEAVES = (
    SCALARS
    | hnp.arrays(DTYPES.filter(lambda dtype: dtype.itemsize), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
    | hnp.scalar_dtypes().flatmap(lambda dtype: hnp.arrays(dtype, 1)).map(lambda array: array[0])
)
KEYS = st.text() | st.integers() | st.binary() | st.tuples(st.integers(), st.text())
VALUES_OF_ANY_KIND = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
DATAPOINTS = st.lists(VALUES_OF_ANY_KIND, max_size=4) | st.dictionaries(st.text(), VALUES_OF_ANY_KIND, max_size=4)

PROPERTY = settings(deadline=None, database=None, max_examples=20, suppress_health_check=[*HealthCheck])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", RECORDS)
@PROPERTY
@given(rows=st.lists(DATAPOINTS, max_size=4))
def test_any_datapoints_come_back_bit_for_bit(suffix, rows):
    assert [exactly(dp) for dp in saved_and_loaded(rows, suffix)] == [exactly(dp) for dp in rows]


@st.composite
def tables(draw: st.DrawFn) -> list[Any]:
    """Draw datapoints of one structure: each component of one kind, arrays of one dtype and shape."""
    kinds = [st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.none() | st.integers()]
    columns = []
    for _ in range(draw(st.integers(1, 3))):
        dtype = draw(hnp.scalar_dtypes().filter(lambda dtype: dtype.itemsize))
        shape = draw(hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
        arrays = hnp.arrays(dtype, shape)
        scalars = hnp.arrays(dtype, 1).map(lambda array: array[0])
        columns.append(draw(st.sampled_from([*kinds, arrays, scalars])))
    rows = draw(st.lists(st.tuples(*columns), min_size=1, max_size=4))
    return [dict(zip("abc", row, strict=False)) for row in rows] if draw(st.booleans()) else [list(row) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COLUMNS)
@PROPERTY
@given(rows=tables() | st.lists(DATAPOINTS, min_size=1, max_size=3))
def test_any_table_comes_back_bit_for_bit_or_is_refused(suffix, rows):
    comes_back_or_is_refused(rows, suffix)


# Beyond 2 and 4 GiB: HUGE=1 python -m pytest tests/serializers/test_round_trip.py -k huge


@pytest.fixture
def huge_folder(tmp_path: pathlib.Path) -> Any:
    if not os.environ.get("HUGE"):
        pytest.skip("takes minutes, 16 GiB of memory and 10 GiB of disk: HUGE=1 runs it")
    yield tmp_path
    for entry in tmp_path.iterdir():
        entry.unlink()


def huge(size: int) -> np.ndarray[Any, Any]:
    """Return an array whose every 64 MiB begin with another byte."""
    array = np.zeros(size, np.uint8)
    marks = array[:: 1 << 26]
    marks[:] = np.arange(1, len(marks) + 1)
    array[-1] = 255
    return array


SIZES = [pytest.param(size, id=f"{size >> 30} GiB + 1") for size in ((2 << 30) + 1, (4 << 30) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_huge_array_comes_back_as_bytes(size, huge_folder):
    array = huge(size)
    (loaded,) = loads(dumps([array]))
    assert np.array_equal(loaded, array)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("suffix", [*RECORDS, *COLUMNS])
def test_a_huge_array_comes_back_from_a_file_or_is_refused_when_it_is_written(size, suffix, huge_folder):
    array = huge(size)
    path = huge_folder / f"x.{suffix}"
    try:
        dataflow.save(DataFromList([[array, 1]], shuffle=False), path)
    except (TypeError, ValueError) as error:
        if not re.search("too large|GiB", str(error)):
            raise
        assert list(huge_folder.iterdir()) == []
        return
    with dataflow.load(path) as df:
        ((loaded, one),) = df
    assert one == 1
    assert np.array_equal(loaded, array)
