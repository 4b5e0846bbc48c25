"""Rows that travel as columns: they come back as they were, value by value and type by type."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from dataflow.testing import same
from dataflow.utils import pickling
from dataflow.utils.row_list import LEAST, PIECE, RowList


def trip(rows: list[Any], out_of_band: bool = True) -> Any:
    buffers: list[Any] = []
    take = (lambda buffer: buffers.append(bytearray(buffer.raw()))) if out_of_band else None
    data = pickle.dumps(RowList(rows), 5, buffer_callback=take)
    return pickle.loads(data, buffers=buffers)


def row(i: int) -> list[Any]:
    return [np.full((2, 5), i, np.float32), i, i / 3, i % 2 == 0, f"name {i}", bytes([i % 256]), np.array([i], ">i2")]


@pytest.mark.parametrize("out_of_band", [True, False])
@pytest.mark.parametrize("size", [0, 1, LEAST - 1, LEAST, 100, 3000])
@pytest.mark.parametrize(
    "make", [row, lambda i: {"x": np.ones(3) * i, "y": i}, lambda i: [i]], ids=["list", "dict", "int"]
)
def test_rows_of_one_layout_come_back_equal(make, size, out_of_band):
    rows = [make(i) for i in range(size)]
    back = trip(rows, out_of_band)
    assert type(back) is list
    assert same(back, rows)


def ragged(i: int) -> list[Any]:
    return [np.full(i % 5, i, np.int32), np.full((i % 3, 2, i % 2), i, np.float16)]


@pytest.mark.parametrize(
    "make",
    [
        row,
        lambda i: {"x": np.ones(3) * i, "y": i},
        lambda i: (np.ones(3) * i, i),
        lambda i: [np.float32(i / 3), np.int64(i), np.bool_(i % 2), np.float16(i), np.complex64(i), np.longlong(i)],
        ragged,
        lambda i: [np.ones(2) * i, None if i % 2 else i, str(i)],
    ],
    ids=["list", "dict", "tuple", "numpy scalars", "ragged", "with others"],
)
def test_such_rows_are_packed(make):
    rows = [make(i) for i in range(300)]
    packed = pickle.dumps(RowList(rows), 5)
    assert same(pickle.loads(packed), rows)
    assert b"row_list" in packed
    assert b"_frombuffer" not in packed


ODD = {
    "length": [1, 2, 3],
    "type": [1.0],
    "bool for int": [True],
    "none": [None],
    "beyond 64 bits": [2**70],
    "tuple": (1,),
    "dict": {"x": 1},
    "object": [{"a": [1]}],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("at", [0, LEAST])
def test_a_row_of_another_layout_changes_nothing_but_the_way(odd, at):
    rows: list[Any] = [[i] for i in range(2 * LEAST)]
    rows[at] = odd
    assert same(trip(rows), rows)


ARRAYS = {
    "shape": lambda i: np.ones(2 + (i == 3)),
    "dimensions": lambda i: np.ones((2,) * (1 + i % 2)),
    "all but one empty": lambda i: np.ones((2 * (i == 3), 3)),
    "one large": lambda i: np.ones(2 + 998 * (i == 3)),
    "dtype": lambda i: np.ones(2, np.float32 if i == 3 else np.float64),
    "order of bytes": lambda i: np.ones(2, "<i4" if i == 3 else ">i4"),
    "strided": lambda i: np.arange(10)[::2],
    "Fortran": lambda i: np.asfortranarray(np.ones((2, 3))),
    "object": lambda i: np.array([None, i], object),
    "empty": lambda i: np.ones((0, 3)),
    "large": lambda i: np.ones(1000),
    "time": lambda i: np.array([i], "M8[s]"),
    "subclass": lambda i: np.ma.masked_array([i, 2], [False, True]),
    "structured": lambda i: np.array([(i, 2.0)], [("a", "i4"), ("b", "f8")]),
    "text": lambda i: np.array(["a", "bc"]),
    "zero dimensions": lambda i: np.array(i),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_come_back_as_they_were(make):
    rows = [[make(i)] for i in range(2 * LEAST)]
    back = trip(rows)
    for (sent,), (received,) in zip(rows, back, strict=True):
        assert type(received) is type(sent)
        assert (received.dtype, received.shape) == (sent.dtype, sent.shape)
        assert received.tolist() == sent.tolist()
        assert received.flags.f_contiguous == sent.flags.f_contiguous or not sent.flags.c_contiguous


@pytest.mark.parametrize("out_of_band", [True, False])
def test_arrays_are_writable_and_apart(out_of_band):
    back = trip([[np.full(4, i)] for i in range(20)], out_of_band)
    back[3][0][:] = -1
    assert [int(array[0]) for (array,) in back] == [-1 if i == 3 else i for i in range(20)]


@pytest.mark.parametrize("size", [1, LEAST - 1, LEAST, 100])
@pytest.mark.parametrize("length", [10, 5000], ids=["small", "large"])
def test_arrays_that_may_not_be_written_to_arrive_as_ones_that_may(size, length):
    def read_only(i: int) -> Any:
        return np.frombuffer(bytes([i % 256]) * length, np.uint8)

    rows = [[read_only(i), {"deep": [read_only(i).reshape(2, -1).T]}] for i in range(size)]
    buffers = pickling.Buffers()
    data = pickling.dumps(RowList(rows), buffers)
    back = pickle.loads(data, buffers=[bytearray(buffer) for buffer in buffers])
    assert same(back, rows)
    for array, parts in back:
        array += 1
        parts["deep"][0][:] = 0
    assert not rows[0][0].flags.writeable


def test_an_array_that_is_kept_keeps_a_piece_and_not_the_whole_column():
    back = trip([[np.zeros(256, np.uint8)] for _ in range(1000)])
    owners = {id(array.base) for (array,) in back}
    assert len(owners) >= 1000 * 256 // PIECE
    assert all(array.base.nbytes <= PIECE for (array,) in back)


def test_so_does_one_of_many_shapes_of_which_a_piece_may_be_empty():
    lengths = [2000] * 100 + [0] * 100 + [7] * 100
    back = trip([[np.full(length, 1, np.uint8)] for length in lengths])
    assert [array.sum() for (array,) in back] == lengths
    assert all(array.base.nbytes <= PIECE for (array,) in back)
    assert all(array.flags.writeable for (array,) in back)


def test_what_is_one_object_in_a_row_stays_one():
    def boxes(i: int) -> Any:
        box = np.full(4, i)
        return {"first": box, "all": [box]}, {"first": box, "second": box}, {"first": box, "second": np.ones(4)}

    inside, twice, apart = zip(*map(boxes, range(100)), strict=True)
    assert all(row["first"] is row["all"][0] for row in trip(list(inside)))
    assert all(row["first"] is row["second"] for row in trip(list(twice)))
    assert same(trip(list(apart)), list(apart))
    shared = {"names": ["a", "b"]}
    assert len({id(part) for _, part in trip([[i, shared] for i in range(100)])}) == 1


@pytest.mark.parametrize("size", [8, 16, 63])
def test_few_rows_of_python_numbers_are_left_alone(size):
    assert b"row_list" not in pickle.dumps(RowList([[float(i)] * 30 for i in range(size)]), 5)


def test_numpy_scalars_keep_every_bit():
    bits = [0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFC12345, 0x80000000, 1, 2, 3]
    rows = [[np.uint32(each).view(np.float32)] for each in bits]
    assert [int(value.view(np.uint32)) for (value,) in trip(rows)] == [int(value.view(np.uint32)) for (value,) in rows]


def test_floats_keep_every_bit():
    rows = [[value] for value in [0.0, -0.0, float("inf"), float("nan"), 5e-324, 1.7e308, 0.1, -1.5]]
    back = trip(rows)
    assert [np.float64(value).tobytes() for (value,) in back] == [np.float64(value).tobytes() for (value,) in rows]


def test_what_is_not_pickled_is_a_list_like_any_other():
    rows = RowList([[1], [2]])
    rows.append([3])
    assert rows == [[1], [2], [3]]
