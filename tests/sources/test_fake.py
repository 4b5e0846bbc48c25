from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest

from dataflow import BatchData, FakeData, set_seed
from dataflow.testing import check_dataflow, same


def test_yields_arrays_of_the_given_shapes_and_types():
    dp = next(iter(FakeData([(2, 3), [4], ()], size=1, dtype=["float32", np.uint8, np.dtype("int64")])))
    assert [(type(c), c.shape, c.dtype.name) for c in dp] == [
        (np.ndarray, (2, 3), "float32"),
        (np.ndarray, (4,), "uint8"),
        (np.int64, (), "int64"),
    ]


@pytest.mark.parametrize("dtype", ["float64", np.float64, float, np.dtype("f8")], ids=repr)
def test_one_dtype_serves_all_components(dtype):
    assert [c.dtype.name for c in next(iter(FakeData([(1,), (2,)], dtype=dtype)))] == ["float64", "float64"]


def test_has_its_size():
    assert len(FakeData([(1,)])) == 1000
    df = FakeData([(1,)], size=3)
    assert len(df) == len(list(df)) == 3


def test_a_size_of_zero_is_an_empty_flow():
    assert list(FakeData([(1,)], size=0)) == []


def test_numbers_lie_in_the_domain_of_their_component():
    df = FakeData([(5000,), (5000,)], size=1, dtype=["float32", "int32"], domain=[(-2, 3), (0, 4)])
    floats, integers = next(iter(df))
    assert (floats >= -2).all()
    assert (floats <= 3).all()
    assert abs(floats.mean() - 0.5) < 0.1
    assert np.unique(integers).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("domain", [(7, 7), [7, 7], [(7, 7), (7, 7)], ((7, 7), (7, 7))], ids=repr)
def test_a_domain_may_be_given_once_or_for_each_component(domain):
    assert [c.tolist() for c in next(iter(FakeData([(2,), (1,)], dtype="int64", domain=domain)))] == [[7, 7], [7]]


def test_a_byte_takes_every_value():
    bytes_ = next(iter(FakeData([(100_000,)], dtype="uint8", domain=(0, 256))))[0]
    assert np.unique(bytes_).tolist() == list(range(256))


def test_each_datapoint_and_each_pass_is_drawn_anew():
    df = FakeData([(4,)], size=3)
    values = [dp[0].tobytes() for _ in range(2) for dp in df]
    assert len(set(values)) == 6


def test_the_same_seed_gives_the_same_numbers():
    assert same(list(FakeData([(4,)], 3, seed=5)), list(FakeData([(4,)], 3, seed=5)))
    assert not same(list(FakeData([(4,)], 3, seed=5)), list(FakeData([(4,)], 3, seed=6)))


def test_a_datapoint_depends_on_its_number_only():
    set_seed(1)
    long, short = FakeData([(4,)], 10), FakeData([(4,)], 5)
    assert same(list(islice(long, 5)), list(short))


def test_not_random_repeats_one_datapoint_in_a_pass_and_draws_another_for_the_next():
    df = FakeData([(4,), ()], size=3, random=False, seed=1)
    first, second = list(df), list(df)
    assert all(same(dp, first[0]) for dp in first)
    assert first[1][0] is first[0][0]
    assert not same(first[0], second[0])


def test_not_random_gives_each_datapoint_a_list_of_its_own():
    df = FakeData([(1,)], size=3, random=False)
    lengths = []
    for dp in df:
        lengths.append(len(dp))
        dp.clear()
    assert lengths == [1, 1, 1]


@pytest.mark.parametrize("random", [True, False])
def test_keeps_the_contract(random):
    check_dataflow(lambda: FakeData([(2, 3), ()], 6, random, ["float32", "int64"]), new_process=random)


@pytest.mark.parametrize("random", [True, False])
def test_goes_on_at_an_index(random):
    df = FakeData([(1,)], 5, random, seed=1)
    it = iter(df)
    list(islice(it, 2))
    state = json.loads(json.dumps(df.state_dict()))
    assert state["at"] == {"pass": [0], "index": 2}
    again = FakeData([(1,)], 5, random, seed=1)
    again.load_state_dict(state)
    assert same(list(again), list(it))


def test_can_be_batched():
    batch = next(iter(BatchData(FakeData([(2, 2), ()], 4, dtype=["uint8", "int64"]), 4)))
    assert [(c.shape, c.dtype.name) for c in batch] == [((4, 2, 2), "uint8"), ((4,), "int64")]


def test_does_not_notice_that_the_shapes_are_changed_later():
    shapes = [[2]]
    df = FakeData(shapes)
    shapes[0][0] = 9
    assert next(iter(df))[0].shape == (2,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shapes": (3, 4)}, TypeError, r"got 3 \(int\) in it; one component of shape \(3, 4\) is FakeData\(\[\(3, 4"),
        ({"shapes": 5}, TypeError, r"shapes must be a list of shapes, got 5"),
        ({"shapes": [(2.5,)]}, TypeError, r"each length in shapes must be an integer of at least 0, got 2.5"),
        ({"shapes": [(-1,)]}, ValueError, r"each length in shapes must be an integer of at least 0, got -1"),
        ({"size": -1}, ValueError, r"size must be an integer of at least 0, got -1"),
        ({"size": 2.0}, TypeError, r"size must be an integer of at least 0, got 2.0"),
        ({"random": 1}, TypeError, r"random must be True or False, got 1"),
        ({"dtype": ["int8", "int8"]}, ValueError, r"dtype must be one for all components, or a list of 1, got 2"),
        ({"dtype": "uint9"}, TypeError, r"^dtype must be one of numpy's, such as 'float32', got 'uint9' \(str\)"),
        ({"dtype": [",,"]}, TypeError, r"^dtype must be one of numpy's, such as 'float32', got ',,' \(str\)"),
        ({"domain": [(0, 1), (0, 1)]}, ValueError, r"domain must be one for all components, or a list of 1, got 2"),
        ({"domain": (2, 1)}, ValueError, r"finite min of at most max, got \(2, 1\)"),
        ({"domain": (0, float("inf"))}, ValueError, r"finite min of at most max, got \(0, inf\)"),
        ({"domain": (0, float("nan"))}, ValueError, r"finite min of at most max"),
        ({"domain": 5}, TypeError, r"domain must be a \(min, max\) tuple of numbers, or a list of such tuples, got 5"),
        ({"domain": ["ab"]}, TypeError, r"domain must be a \(min, max\) tuple of numbers, .* got 'ab'"),
        ({"seed": -1}, ValueError, r"seed must be an integer of at least 0, got -1"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        FakeData(**{"shapes": [(2,)], **options})
