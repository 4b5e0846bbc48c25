from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

from dataflow.errors import BatchError
from dataflow.testing import same
from dataflow.utils.stack import stack

Pair = namedtuple("Pair", "x y")
zeros = np.zeros


def column(*values):
    return [[value] for value in values]


@pytest.mark.parametrize(
    ("rows", "batch"),
    [
        pytest.param([[1, 2.0], [3, 4.0]], [np.array([1, 3], np.int32), np.array([2, 4], np.float32)], id="lists"),
        pytest.param([(1,), (2,)], [np.array([1, 2], np.int32)], id="tuples"),
        pytest.param(
            [Pair(1, "a"), Pair(2, "b")], [np.array([1, 2], np.int32), np.array(["a", "b"])], id="named tuples"
        ),
        pytest.param([{"x": 1}, {"x": 2}], {"x": np.array([1, 2], np.int32)}, id="dicts"),
        pytest.param([OrderedDict(x=1), {"x": 2}], {"x": np.array([1, 2], np.int32)}, id="kinds of dict"),
        pytest.param([[], []], [], id="no components"),
        pytest.param([[zeros(2)]], [zeros((1, 2))], id="one datapoint"),
    ],
)
def test_datapoints_become_one(rows, batch):
    assert same(stack(rows), batch)


def test_lists_hold_the_very_components():
    array = zeros(2)
    ((first, second),) = stack([[array], [None]], use_list=True)
    assert first is array
    assert second is None


def test_the_order_of_keys_is_that_of_the_first():
    assert list(stack([{"b": 1, "a": 2}, {"a": 3, "b": 4}])) == ["b", "a"]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        pytest.param([], "empty list of datapoints", id="nothing"),
        pytest.param([[1], [1, 2]], r"numbers of components differ \(1 of 1, 1 of 2\)", id="number of components"),
        pytest.param([{"x": 1}, {"y": 1}], r"keys differ \(1 of \('x',\), 1 of \('y',\)\)", id="keys"),
        pytest.param([{"x": 1}, {"x": 1, "y": 2}], "keys differ", id="a key more"),
        pytest.param([[1], {"x": 1}], r"kinds of datapoint differ \(1 of list, 1 of dict\)", id="list and dict"),
        pytest.param(column(1, 2.7), r"component 0: kinds differ \(1 of int, 1 of float\)", id="int and float"),
        pytest.param(column(True, 1), r"kinds differ \(1 of bool, 1 of int\)", id="bool and int"),
        pytest.param(column(1, None), r"kinds differ \(1 of int, 1 of NoneType\)", id="int and None"),
        pytest.param(column("a", b"a"), r"kinds differ \(1 of str, 1 of bytes\)", id="str and bytes"),
        pytest.param(
            column(np.uint8(3), np.float64(2.5)), r"kinds differ \(1 of numpy.uint8, 1 of numpy.float64\)", id="numpy"
        ),
        pytest.param(
            column(True, np.bool_(True)), r"kinds differ \(1 of bool, 1 of numpy.bool", id="two kinds of bool"
        ),
        pytest.param(column(zeros(3), zeros(3), zeros(4)), r"shapes differ \(2 of \(3,\), 1 of \(4,\)\)", id="shapes"),
        pytest.param(
            column(zeros(2, "f4"), zeros(2, "f8")), r"dtypes differ \(1 of float32, 1 of float64\)", id="dtypes"
        ),
        pytest.param(column(zeros(()), 1.0), r"kinds differ \(1 of numpy.ndarray, 1 of float\)", id="array and float"),
        pytest.param(column(1, 2**31), "component 0: 2147483648 does not fit int32.*np.int64", id="large"),
        pytest.param(column(-(2**31) - 1, 1), "component 0: -2147483649 does not fit int32", id="small"),
        pytest.param(column("a\0", "b"), "zero characters at the end.*use_list=True", id="str ends in zero"),
        pytest.param(column(b"a", b"b\0"), "zero characters at the end.*use_list=True", id="bytes end in zero"),
    ],
)
def test_what_cannot_be_stacked_says_why(rows, match):
    with pytest.raises(BatchError, match=match):
        stack(rows)


def test_the_component_and_the_way_out_are_named():
    rows = [{"image": zeros((4, 4)), "id": 1}, {"image": zeros((4, 5)), "id": 2}]
    match = (
        r"cannot stack component 'image': shapes differ .*MapDataComponent\(ds, func, index='image'\).*use_list=True"
    )
    with pytest.raises(BatchError, match=match):
        stack(rows)


@pytest.mark.parametrize(
    "rows", [[{"a": 1}, {"b": 1}], [[1], [1, 2]], [[1], {"a": 1}]], ids=["keys", "numbers", "kinds"]
)
def test_datapoints_that_differ_in_what_they_have_name_a_way_out(rows):
    with pytest.raises(
        BatchError, match=r"differ .*Make them alike .*MapData\(ds, func\), .*SelectComponent\(ds, idxs\)"
    ):
        stack(rows)


def test_a_batch_error_is_a_value_error():
    with pytest.raises(ValueError, match="kinds differ"):
        stack(column(1, "a"))


@pytest.mark.parametrize(
    "value",
    [None, [1], (1,), {"x": 1}, {1}, 1j, object(), np.ma.array([1], mask=[True]), np.array([None])],
    ids=lambda value: type(value).__name__,
)
def test_a_component_that_is_neither_scalar_nor_array_names_use_list(value):
    with pytest.raises(TypeError, match=r"cannot stack component 0: .*use_list=True"):
        stack(column(value, value))


@pytest.mark.parametrize("value", [1, "text", None, zeros(2)], ids=lambda value: type(value).__name__)
def test_a_datapoint_must_be_a_list_or_dict(value):
    with pytest.raises(TypeError, match=r"a datapoint must be a list or dict of components, got .*MapData\(ds, lambda"):
        stack([[1], value])


def test_only_four_of_many_shapes_are_shown():
    rows = column(*(zeros(n) for n in range(9)))
    with pytest.raises(BatchError, match=r"shapes differ \(1 of \(0,\), 1 of \(1,\), 1 of \(2,\), 1 of \(3,\)\)"):
        stack(rows)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_floats_become_float32():
    (batch,) = stack(column(0.1, 1e300))
    assert same(batch, np.array([0.1, np.inf], np.float32))
